"""Record whole trainings by the authors' own code, for tests/methods/test_golden_training.py.

    git clone https://github.com/KaiyangZhou/Dassl.pytorch                # as of c61a1b5 for the recorded files
    git clone https://github.com/KaiyangZhou/CoOp                         # as of ff61507
    git clone https://github.com/htyao89/KgCoOp                           # as of c43ccc3
    git clone https://github.com/muzairkhattak/multimodal-prompt-learning # as of 69bce21
    git clone https://github.com/muzairkhattak/PromptSRC                  # as of bb95c77
    git clone https://github.com/yunncheng/MMRL                           # as of 27d8821
    for method in cocoop kgcoop maple promptsrc mmrl; do
        python -m tools.golden_training --repositories FOLDER $method
    done

Each method becomes tests/golden/training-METHOD.safetensors: the loss before each step, `losses` [epochs, batches], and
the learned tensors after the last epoch (`after.*`), PromptSRC's averaged as its code does. All epochs of the authors'
base-to-new settings run in fp32 on the CPU: their `forward_backward`, with the optimiser and the schedule that Dassl
builds from their settings file. The CLIP is small and random, as in tools/golden_rivals.py and tools/golden_maple.py.
The initial tensors and the batches, the same in each epoch, are those of `drawn_parameters` and `drawn_batches`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.golden import GOLDEN, drawn_batches
from tools import golden_rivals
from tools.authors import Authors, named, read_settings, use_repository
from tools.golden_maple import SPECS, build_maple, build_mmrl, build_promptsrc


@dataclass(frozen=True)
class Training:
    """A repository, the settings file in it, our spec of the method and the number of images in a batch."""

    repository: str
    settings: str
    build: Callable[[Any], Authors]
    spec: str
    batch: int = 4


def rival(name: str) -> Callable[[Any], Authors]:
    """Return a function that builds a case of tools/golden_rivals.py with our name of the context."""

    def build(settings: Any) -> Authors:
        authors = golden_rivals.build(golden_rivals.CASES[name])
        return replace(authors, learned={key.replace("ctx", "context"): p for key, p in authors.learned.items()})

    return build


def promptsrc(settings: Any) -> Authors:
    """Build PromptSRC with the epochs and the average of its settings."""
    own = settings.TRAINER.PROMPTSRC
    return build_promptsrc(settings.OPTIM.MAX_EPOCH, own.GPA_MEAN, own.GPA_STD)


TRAININGS = {
    "cocoop": Training(
        "CoOp", "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml", rival("cocoop"), golden_rivals.CASES["cocoop"].spec, batch=1
    ),
    "kgcoop": Training(
        "KgCoOp/KgCoOp", "KgCoOp/vit_b16_ep100_ctxv1.yaml", rival("kgcoop"), golden_rivals.CASES["kgcoop"].spec
    ),
    "maple": Training(
        "multimodal-prompt-learning",
        "MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml",
        lambda settings: build_maple(),
        SPECS["maple"],
    ),
    "promptsrc": Training("PromptSRC", "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx.yaml", promptsrc, "promptsrc[depth=3]"),
    "mmrl": Training("MMRL", "MMRL/vit_b16.yaml", lambda settings: build_mmrl(), SPECS["mmrl"]),
}


def record(training: Training, repositories: Path) -> dict[str, Tensor]:
    """Train with the authors' code; return the tensors of the file."""
    settings = read_settings(repositories / training.repository / "configs" / "trainers" / training.settings)
    authors, dassl = training.build(settings), import_module("dassl.optim")
    trainer = authors.trainer
    authors.draw_parameters()
    trainer.optim = dassl.build_optimizer(authors.model, settings.OPTIM)
    trainer.sched = dassl.build_lr_scheduler(trainer.optim, settings.OPTIM)
    batches = drawn_batches(training.batch)
    trainer.num_batches, losses = len(batches), []
    authors.model.train()
    for _ in range(settings.OPTIM.MAX_EPOCH):
        for trainer.batch_idx, (images, labels) in enumerate(batches):  # they step the schedule after the last batch
            losses.append(trainer.forward_backward({"img": images, "label": labels})["loss"])
    return {"losses": torch.tensor(losses).view(-1, len(batches)), **named("after", authors.tensors())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=TRAININGS)
    parser.add_argument("--repositories", type=Path, required=True, help="folder that holds the repositories")
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder to write to")
    arguments = parser.parse_args()
    training = TRAININGS[arguments.method]
    use_repository(arguments.repositories / training.repository, arguments.repositories / "Dassl.pytorch")
    tensors = record(training, arguments.repositories)
    path = arguments.output / f"training-{arguments.method}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"spec": training.spec})


if __name__ == "__main__":
    main()
