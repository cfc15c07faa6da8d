"""Losses and gradients that are not finite, and extreme inputs, for which they must be finite."""

import csv
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.similarity import similarity
from gopro.errors import InputError
from gopro.inference.evaluate import EncodedSamples, evaluate
from gopro.methods.base import Method
from gopro.methods.coop import CoOp
from gopro.methods.parts.losses import nt_xent, prompt_consistency
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED, read_cost
from gopro.training.resume_state import LOG, RESUME
from gopro.training.train import resume, train
from tests.support.interrupt import Cut

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="coop", shots=1, epochs=3, batch=16, classes="base", workers=0
)
STEPS = 2  # of an epoch: 43 images in batches of 16, of which CoOp drops the incomplete one
TRAINED = [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by]


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, how: Callable[[Tensor], Tensor]) -> None:
    """Change CoOp's loss in this step, counted from 1."""
    real, count = CoOp.losses, 0

    def losses(self: CoOp, encoded: Any, labels: Tensor) -> dict[str, Tensor]:
        nonlocal count
        count += 1
        terms = real(self, encoded, labels)
        return {"ce": how(terms["ce"])} if count == step else terms

    monkeypatch.setattr(CoOp, "losses", losses)


class InfiniteGradient(torch.autograd.Function):
    """The identity with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * math.inf


SPOILT = {
    "nan loss": lambda loss: loss * math.nan,
    "infinite loss, finite gradient": lambda loss: loss + math.inf,
    "infinite gradient, finite loss": InfiniteGradient.apply,
}


@pytest.mark.parametrize("how", SPOILT)
def test_stop_names_the_step_and_keeps_the_last_state(
    how: str, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    spoil(monkeypatch, STEPS + 2, SPOILT[how])
    with pytest.raises(InputError, match=rf"not finite at step {STEPS + 2} \(.*ce .*gradient .*{RESUME}.*--lr"):
        train(replace(CONFIG, output=folder), backbone=tiny)
    assert not (folder / LEARNED).exists()
    assert all(t.isfinite().all() for t in load_file(folder / RESUME).values())
    assert len((folder / LOG).read_text().splitlines()) == 1 + STEPS

    monkeypatch.undo()  # the cause is gone
    resume(folder, backbone=tiny)
    train(replace(CONFIG, output=tmp_path / "whole"), backbone=tiny)
    learned, whole = load_file(folder / LEARNED), load_file(tmp_path / "whole" / LEARNED)
    assert all(torch.equal(learned[key], whole[key]) for key in whole)


@pytest.mark.parametrize("how", SPOILT)
def test_skip_skips_and_counts_the_step(
    how: str, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, STEPS + 2, SPOILT[how])

    def cut(step: Any) -> None:
        if step.step == 2 * STEPS + 1:
            raise Cut

    folder = tmp_path / "run"
    with pytest.raises(Cut):
        train(replace(CONFIG, output=folder, non_finite="skip"), backbone=tiny, on_step=cut)
    run = resume(folder, backbone=tiny)  # the count survives the interruption
    assert read_cost(folder).skipped_steps == 1
    assert all(t.isfinite().all() for t in run.method.state_dict().values())
    assert len(list(csv.reader((folder / LOG).open()))) == 1 + 3 * STEPS


def test_an_epoch_of_skipped_steps_stops_the_run(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoOp, "losses", lambda self, encoded, labels: {"ce": self.context.sum() * math.nan})
    with pytest.raises(InputError, match=r"all steps of epoch 0 were skipped.*no epoch was finished before"):
        train(replace(CONFIG, output=tmp_path / "run", non_finite="skip"), backbone=tiny)


def test_skip_changes_nothing_if_all_steps_are_finite(tmp_path: Path, tiny: Backbone) -> None:
    one, other = (
        train(replace(CONFIG, output=tmp_path / how, non_finite=how), backbone=tiny).method.state_dict()
        for how in ("stop", "skip")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_predictions_that_are_not_finite_are_refused(tiny: Backbone) -> None:
    method = build_method("coop", tiny, ["cat", "dog"], "a photo of a {}.")
    with torch.no_grad():
        method.context.fill_(math.nan)
    encoded = tiny.encode(torch.rand(3, 3, 32, 32))
    with pytest.raises(InputError, match="not finite"):
        evaluate(method, EncodedSamples(encoded, torch.tensor([0, 1, 0]), 0.0))


# ---- extreme inputs ----

IMAGES: dict[str, Callable[[int], Tensor]] = {
    "black": lambda n: torch.full((n, 3, 32, 32), -2.0),
    "white": lambda n: torch.full((n, 3, 32, 32), 2.0),
    "identical": lambda n: torch.linspace(-2, 2, 3 * 32 * 32).view(1, 3, 32, 32).repeat(n, 1, 1, 1),
    "checkered": lambda n: (torch.arange(n * 3 * 32 * 32) % 2 * 4.0 - 2).view(n, 3, 32, 32),
}
CLASSES = {"one": ["cat"], "some": ["cat", "dog", "an elephant that walks"]}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [*TRAINED, "gopro[con_form=supervised]"])
def test_losses_and_gradients_are_finite_for_extreme_inputs(name: str, precision: str, tiny: Backbone) -> None:
    """Black, white, identical and checkered images; one image per batch; logit scale 100; one class."""
    plugin = MixedPrecision("bf16-mixed", device="cpu") if precision == "bf16" else None
    fabric = Fabric(accelerator="cpu", devices=1, plugins=plugin)
    scale, tiny.logit_scale = tiny.logit_scale, 100.0
    try:
        for names in CLASSES.values():
            torch.manual_seed(0)
            method = build_method(name, tiny, names, "a photo of a {}.")
            for of in IMAGES.values():
                for count in (1, 4):
                    if count == 1 and any(isinstance(m, torch.nn.BatchNorm1d) for m in method.modules()):
                        with pytest.raises(InputError, match="larger --batch"):
                            check(method, fabric, of(count), torch.arange(count))
                        continue
                    check(method, fabric, of(count), torch.arange(count) % len(names))
    finally:
        tiny.logit_scale = scale


def check(method: Method, fabric: Fabric, images: Tensor, labels: Tensor) -> None:
    method.train()
    if Training.CLOSED_FORM in method.trained_by:
        with fabric.autocast():
            encoded = method.encode(images)
        method.solve(lambda count: [encoded] * max(count, 1), labels)
    views = images.expand(len(method.views), *images.shape)
    with fabric.autocast():
        encoded = method.encode(views)
        terms = method(encoded, labels)
        logits = method.eval().logits(method.encode(images))
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values()), terms
    assert logits.isfinite().all()
    for key, parameter in method.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    method.zero_grad()


@pytest.mark.parametrize("name", TRAINED)
def test_bf16_keeps_losses_in_fp32(name: str, tiny: Backbone) -> None:
    """The towers round, but the losses must have more digits than bf16 has."""
    fabric = Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("bf16-mixed", device="cpu"))
    torch.manual_seed(0)
    method = build_method(name, tiny, CLASSES["some"], "a photo of a {}.").train()
    images, labels = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    with fabric.autocast():
        if Training.CLOSED_FORM in method.trained_by:
            method.solve(lambda count: [method.encode(images)] * max(count, 1), labels)
        terms = method(method.encode(images.expand(len(method.views), *images.shape)), labels)
        logits = method.eval().logits(method.encode(images))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert logits.dtype == torch.float32
    assert not torch.equal(logits, logits.bfloat16().float())


def test_similarities_and_losses_ignore_autocast() -> None:
    torch.manual_seed(0)
    x, others = torch.randn(8, 32), torch.randn(5, 32)
    alone = [similarity(x, others), similarity(x, others[None]), nt_xent(x, x + 1), prompt_consistency(x, x + 1)]
    with torch.autocast("cpu", torch.bfloat16):
        within = [similarity(x, others), similarity(x, others[None]), nt_xent(x, x + 1), prompt_consistency(x, x + 1)]
    assert all(torch.equal(a, b) for a, b in zip(alone, within, strict=True))
