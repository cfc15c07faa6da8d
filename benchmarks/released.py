"""The released GOPro code, out of a checkout that the user has, made to run on its own.

A checkout of github.com/mainaksingha01/GOPro is imported as it lies; nothing of it is part of this repository. Its own
`build_model`, `CustomCLIP.forward`, `GOProLoss` and `forward_backward` run. What it lacks is supplied here:

- Dassl, in which it is meant to lie: names without content for what it imports, `TrainerX` as an empty base class, SGD
  with its recipe as the optimiser, `model_inference` as Dassl has it. pandas and scikit-learn, which it imports and
  does not use: empty modules.
- Weights: `load_clip_to_cpu`, which downloads OpenAI's, gives the released `clip.model` with the weights given here,
  loaded again in fp32 where its builder has gone through fp16.
- Learned parameters: those of our `gopro-release`.
- Views: `mocov3` and `augmixtrans` give the views made here, so that both sides see equal images. This spares the
  released code its own augmentation, on the CPU in a loop.
- On the CPU: "cuda", written into it, is replaced; the image tower's cast to fp16 before its projection, which fp32
  weights do not fit, is left out by projecting outside.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.release_parity import ours


class Released:
    """Its trainer, built over these classes.

    Args:
        path: the checkout.
        state: CLIP's weights in OpenAI's layout, ViT-B/16: its widths and depth are written into the released code.
        learned: what our `gopro-release` has learned, by our names.
        device: cpu (fp32) or cuda (fp16, as its config says).
    """

    def __init__(
        self, path: Path, state: dict[str, Tensor], learned: dict[str, Tensor], classnames: Sequence[str], device: str
    ):
        code = _import(path)
        code.device_cuda = device
        precision = "fp32" if device == "cpu" else "fp16"
        code.load_clip_to_cpu = lambda cfg: _clip(code.clip.build_model, state, precision)
        code.build_optimizer = lambda model, cfg: torch.optim.SGD(
            model.parameters(), lr=2e-3, momentum=0.9, weight_decay=5e-4
        )
        code.build_lr_scheduler = lambda optimizer, cfg: None
        trainer = code.GOPro.__new__(code.GOPro)
        trainer.cfg = _config(precision)
        trainer.device = torch.device(device)
        trainer.dm = SimpleNamespace(dataset=SimpleNamespace(classnames=list(classnames)))
        trainer.register_model = lambda *names: None
        trainer.batch_idx, trainer.num_batches = 0, 2  # not the last of an epoch, after which the rate changes
        with redirect_stdout(io.StringIO()):
            trainer.build_model()
        self.model = trainer.model
        visual = self.model.image_encoder
        if device == "cpu":
            self.model.image_encoder = _Projected(visual)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                key = ours(name) if parameter.requires_grad else None
                if key is not None:
                    parameter.copy_(learned[key].reshape(parameter.shape))
        trainer.criterion.register_forward_hook(self._keep)
        self.trainer = trainer

    def step(self, views: Tensor, labels: Tensor) -> float:
        """Its training step on these views [3, batch, 3, 224, 224]. Returns its loss."""
        self._see(views)
        self.model.train()
        return self.trainer.forward_backward({"img": views[0], "label": labels})["loss"]

    @torch.no_grad()
    def logits(self, views: Tensor, labels: Tensor) -> Tensor:
        """Its test of a batch: as `test` does it, which keeps the logits alone."""
        self._see(views)
        self.model.eval()
        image, label = self.trainer.parse_batch_train({"img": views[0], "label": labels})
        return self.model(image, label)[0]

    def terms(self) -> dict[str, float]:
        """The losses of the last step, from what went into its criterion."""
        logits, text, moco, augmix, image_beside, moco_beside, labels = self._criticised
        mse, criterion = nn.functional.mse_loss, self.trainer.criterion
        return {
            "ce": nn.functional.cross_entropy(logits, labels).item(),
            "sem": (mse(text, moco) + mse(text, augmix)).item(),
            "con": 0.1 * criterion.simloss(image_beside, moco_beside).item(),
        }

    def _keep(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._criticised = [argument.detach() for argument in arguments]

    def _see(self, views: Tensor) -> None:
        self.model.mocov3 = lambda images: views[1].to(images)
        self.model.augmixtrans = lambda images: views[2].to(images)


class _Projected(nn.Module):
    """The released image tower, with its projection outside."""

    def __init__(self, visual: Any):
        super().__init__()
        self.visual, self.projection = visual, visual.proj
        visual.proj = None

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pooled, layers = self.visual(image)
        return pooled @ self.projection, layers


def _clip(build: Any, state: dict[str, Tensor], precision: str) -> nn.Module:
    model = build(dict(state))
    if precision == "fp32":
        model.float()
        model.load_state_dict(state)
    return model


def _config(precision: str) -> SimpleNamespace:
    """What `build_model` and the step read of its config, as its files set it."""
    return SimpleNamespace(
        MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="ViT-B/16"), INIT_WEIGHTS=""),
        TRAINER=SimpleNamespace(GOPRO=SimpleNamespace(N_CTX=4, CTX_INIT="a photo of a", PREC=precision)),
        INPUT=SimpleNamespace(SIZE=(224, 224)),
        OPTIM=None,
        LOSS=SimpleNamespace(NAME="gopro", T=1.0),
    )


def _import(path: Path) -> Any:
    """Its `trainers.gopro`.

    Raises:
        SystemExit: `path` is no checkout of it.
    """
    if not (path / "trainers" / "gopro.py").is_file():
        raise SystemExit(f"{path}: no checkout of the released code, it has no trainers/gopro.py")
    registry = SimpleNamespace(register=lambda: lambda kind: kind)
    supplied: dict[str, dict[str, Any]] = {
        "dassl": {},
        "dassl.engine": {"TRAINER_REGISTRY": registry, "TrainerX": object},
        "dassl.metrics": dict.fromkeys(("compute_accuracy",)),
        "dassl.utils": dict.fromkeys(
            ("MetricMeter", "AverageMeter", "load_pretrained_weights", "load_checkpoint", "save_checkpoint")
        ),
        "dassl.optim": dict.fromkeys(("build_optimizer", "build_lr_scheduler")),
        "pandas": {"DataFrame": dict},
        "sklearn": {},
        "sklearn.model_selection": {"train_test_split": None},
    }
    for name, content in supplied.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    sys.path.insert(0, str(path))
    try:
        return importlib.import_module("trainers.gopro")
    finally:
        sys.path.remove(str(path))
