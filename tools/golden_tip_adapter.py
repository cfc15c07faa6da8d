"""Record results of the authors' own code of Tip-Adapter, for tests/methods/test_closed_form.py.

    git clone https://github.com/gaopengcuhk/Tip-Adapter      # as of d0e2d6f for the recorded file
    python -m tools.golden_tip_adapter --repository Tip-Adapter

Their `build_cache_model`, `run_tip_adapter` and `run_tip_adapter_F` run in fp32 on the CPU, on random unit vectors
instead of images: the stub for CLIP returns its input, and data sets, devices and the accuracy are stubs too. The file
holds `draws` [2, 12, 16], `labels` [12] and `text` [4, 16]; images to classify, `test` [9, 16] and `test_labels`, on
which alpha and beta are searched for; the cache `keys` [12, 16]; `logits` at alpha 2 and beta 3, and `searched` at
`best` (beta, alpha); `tuned`, the keys after three epochs of two batches of Tip-Adapter-F, whose AdamW has epsilon 1e-4
and whose learning rate falls as a cosine from 1e-3, step by step.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tip-adapter.safetensors"
CLASSES, DIM, EPOCHS = 4, 16, 3


def record(repository: Path) -> dict[str, Tensor]:
    """Run the authors' code and return the tensors of the file."""
    identity: Any = lambda tensor, *_: tensor  # noqa: E731
    Tensor.cuda = torch.nn.Module.cuda = identity  # pyright: ignore[reportAttributeAccessIssue]
    Tensor.half = Tensor.float  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules["clip"] = sys.modules["datasets"] = sys.modules["datasets.utils"] = SimpleNamespace(  # pyright: ignore
        build_dataset=None, build_data_loader=None
    )
    sys.path.insert(0, str(repository))
    theirs: Any = import_module("main")
    utils: Any = import_module("utils")
    # their code converts a one-element array to float in a way that NumPy no longer supports
    utils.cls_acc = lambda output, target: 100 * (output.argmax(dim=1) == target).float().mean().item()
    clip = SimpleNamespace(encode_image=torch.clone, dtype=torch.float32)

    generator = torch.Generator().manual_seed(0)
    labels, test_labels = torch.arange(12) % CLASSES, torch.arange(9) % CLASSES
    centres = torch.randn(CLASSES, DIM, generator=generator)
    near = lambda of, *shape: F.normalize(of + 1.5 * torch.randn(*shape, DIM, generator=generator), dim=-1)  # noqa: E731
    draws, text, test = near(centres[labels], 2, 12), near(centres, CLASSES), near(centres[test_labels], 9)

    outputs: list[Tensor] = []
    theirs.cls_acc = lambda output, target: outputs.append(output.detach().clone()) or 0.0
    optimizers: list[torch.optim.Optimizer] = []
    plain = torch.optim.AdamW

    def adamw(*arguments: Any, **settings: Any) -> torch.optim.Optimizer:
        optimizers.append(plain(*arguments, **settings))
        return optimizers[-1]

    class Draws:
        """A loader whose every epoch is one batch: the next draw of the training images."""

        def __init__(self) -> None:
            self.left = list(draws)

        def __iter__(self) -> Any:
            return iter([(self.left.pop(0), labels)])

    with tempfile.TemporaryDirectory() as folder:
        config = {"load_cache": False, "augment_epoch": len(draws), "cache_dir": folder, "shots": 3}
        config |= {"search_hp": True, "search_scale": [12, 10], "search_step": [200, 20]}
        config |= {"init_beta": 3, "init_alpha": 2, "lr": 1e-3, "train_epoch": EPOCHS}
        keys, values = theirs.build_cache_model(config, clip, Draws())
        shared = keys, values, test, test_labels
        theirs.run_tip_adapter(config, *shared, test, test_labels, text.T)
        _, logits, _, searched = outputs
        beta, alpha = theirs.search_hp(config, *shared, text.T)
        torch.optim.AdamW = adamw  # pyright: ignore[reportAttributeAccessIssue]
        theirs.cls_acc = lambda output, target: 1.0
        batches = [(draws[0, :6], labels[:6]), (draws[0, 6:], labels[6:])]
        start = keys.clone()
        theirs.run_tip_adapter_F(config, *shared, test, test_labels, text.T, clip, batches)
    [tuned] = optimizers[0].param_groups[0]["params"]
    recorded = {"draws": draws, "labels": labels, "text": text, "test": test, "test_labels": test_labels}
    recorded |= {"keys": start.T, "logits": logits, "searched": searched, "best": torch.tensor([beta, alpha])}
    return {name: tensor.detach().clone().contiguous() for name, tensor in (recorded | {"tuned": tuned}).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repository", type=Path, required=True)
    save_file(record(parser.parse_args().repository), GOLDEN)
