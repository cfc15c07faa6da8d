"""Run the released GOPro code from a checkout, without the toolbox it was written for.

A checkout of github.com/mainaksingha01/GOPro is imported unchanged; no part of it is in this repository. Its own
`build_model`, `CustomCLIP.forward`, `GOProLoss` and `forward_backward` run. This module supplies the rest:

- Dassl, the toolbox that the code expects around it: empty stand-ins for the names it imports, `TrainerX` as an empty
  base class, SGD with the released recipe, and `model_inference` as in Dassl. pandas and scikit-learn, which are
  imported but not used, are empty modules.
- Weights: `load_clip_to_cpu`, which downloads OpenAI's, returns the released `clip.model` with the weights passed here,
  loaded again in fp32 because its builder rounds them to fp16.
- Learned parameters: those of our `gopro-release`.
- Views: `mocov3` and `augmixtrans` return the views passed here, so that both sides get the same images. The released
  code's own augmentation, a loop on the CPU, is therefore not timed.
- On the CPU, the hard-coded "cuda" is replaced, and the image tower's projection is done outside, because the code
  casts its input to fp16, which does not fit fp32 weights.
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
    """The released trainer with a model over some classes.

    Args:
        path: the checkout.
        state: CLIP's weights in OpenAI's layout; ViT-B/16, as its widths and depth are hard-coded.
        learned: the learned parameters of our `gopro-release`, by our names.
        device: cpu (in fp32) or cuda (in fp16, as in its config).
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
        trainer.criterion.register_forward_hook(self._record)
        self.trainer = trainer

    def step(self, views: Tensor, labels: Tensor) -> float:
        """Take a training step on these views [3, batch, 3, 224, 224] and return its loss."""
        self._set_views(views)
        self.model.train()
        return self.trainer.forward_backward({"img": views[0], "label": labels})["loss"]

    @torch.no_grad()
    def logits(self, views: Tensor, labels: Tensor) -> Tensor:
        """Return the logits of a batch as its `test` computes them."""
        self._set_views(views)
        self.model.eval()
        image, label = self.trainer.parse_batch_train({"img": views[0], "label": labels})
        return self.model(image, label)[0]

    def terms(self) -> dict[str, float]:
        """Return the losses of the last step, recomputed from the inputs of its criterion."""
        logits, text, moco, augmix, image_beside, moco_beside, labels = self._criterion_inputs
        mse, criterion = nn.functional.mse_loss, self.trainer.criterion
        return {
            "ce": nn.functional.cross_entropy(logits, labels).item(),
            "sem": (mse(text, moco) + mse(text, augmix)).item(),
            "con": 0.1 * criterion.simloss(image_beside, moco_beside).item(),
        }

    def _record(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._criterion_inputs = [argument.detach() for argument in arguments]

    def _set_views(self, views: Tensor) -> None:
        self.model.mocov3 = lambda images: views[1].to(images)
        self.model.augmixtrans = lambda images: views[2].to(images)


class _Projected(nn.Module):
    """The released image tower with its projection done outside."""

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
    """Return the config fields that `build_model` and the step read, with the values of its files."""
    return SimpleNamespace(
        MODEL=SimpleNamespace(BACKBONE=SimpleNamespace(NAME="ViT-B/16"), INIT_WEIGHTS=""),
        TRAINER=SimpleNamespace(GOPRO=SimpleNamespace(N_CTX=4, CTX_INIT="a photo of a", PREC=precision)),
        INPUT=SimpleNamespace(SIZE=(224, 224)),
        OPTIM=None,
        LOSS=SimpleNamespace(NAME="gopro", T=1.0),
    )


def _import(path: Path) -> Any:
    """Import `trainers.gopro` of the checkout.

    Raises:
        SystemExit: `path` is not a checkout of the released code.
    """
    if not (path / "trainers" / "gopro.py").is_file():
        raise SystemExit(f"{path} is not a checkout of the released code: it has no trainers/gopro.py")
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
