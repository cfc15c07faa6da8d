"""Whole trainings by the authors' own code, repeated by our training loop: all epochs, at the recipe's learning rates.

tools/golden_training.py recorded them and documents their content.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from gopro.clip.backbone import from_openai
from gopro.data.load_dataset import load_dataset
from gopro.methods.base import Method
from gopro.methods.recipe import Conditions
from gopro.methods.registry import parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import CONFIG
from gopro.training import loop
from gopro.training.devices import Runtime
from gopro.training.progress import Progress
from tests.support.golden import (
    CLASSNAMES,
    deeper_clip,
    deviation,
    drawn_batches,
    drawn_parameters,
    random_clip,
    read_golden,
    under,
)

METHODS = ["cocoop", "maple", "mmrl", "promptsrc", pytest.param("kgcoop", marks=pytest.mark.slow)]


class FixedBatches:
    """The same batches in each epoch, in place of a run's own."""

    def __init__(self, method: Method, batches: list[tuple[Tensor, Tensor]]):
        self.method, self.batches = method, batches

    def __len__(self) -> int:
        return len(self.batches)

    def size(self, batch: int) -> int:
        return len(self.batches[batch][1])

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Tensor]]:
        for images, labels in self.batches:
            yield self.method.encode(images[None]), labels


def deviations(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> dict[str, float]:
    """Repeat a recorded training; return the deviation of the last loss, all losses and what was learned.

    The deviation of a learned tensor is that of its change in training, relative to the largest change.

    Args:
        changes: fields of the recipe to change.
    """
    golden, metadata = read_golden(f"training-{name}")
    spec, recipe = parse_method(metadata["spec"]).for_training(Conditions("base-to-new", "my-images", 16))
    backbone = from_openai(random_clip() if name in ("cocoop", "kgcoop") else deeper_clip())
    method = spec.build(backbone, [name.replace("_", " ") for name in CLASSNAMES], "a photo of a {}.")
    learned = under(golden, "after.")
    init = drawn_parameters({key: tensor.shape for key, tensor in learned.items()})
    assert {key for key, _ in method.named_parameters()} == init.keys()
    method.load_state_dict(init, strict=False)  # not strict: PromptSRC's average starts at 0
    batches = drawn_batches(1 if name == "cocoop" else 4)
    monkeypatch.setattr(loop, "training_batches", lambda *_: FixedBatches(method, batches))
    losses: list[Tensor] = []
    progress = Progress(step=lambda step: losses.append(step.terms["total"]))
    config = TrainConfig(data="my-images", output=folder)
    (folder / CONFIG).write_text("{}")  # the run is identified by its settings and its images
    dataset = replace(load_dataset("emoji-activities"), train=load_dataset("emoji-activities").train[:1])
    runtime = Runtime(Fabric(accelerator="cpu", devices=1))
    loop.fit(method, dataset, replace(recipe, **changes), config, runtime, progress)
    assert len(losses) == golden["losses"].numel(), "the recipe has the authors' epochs"
    result = {"last loss": deviation(losses[-1], golden["losses"][-1, -1])}
    result["losses"] = deviation(torch.stack(losses).view_as(golden["losses"]), golden["losses"])
    state = method.state_dict()
    return result | {key: deviation(state[key] - init[key], tensor - init[key]) for key, tensor in learned.items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_whole_training_is_the_authors(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = deviations(method, tmp_path, monkeypatch)
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        *((method, {"schedule": "step"}) for method in ("cocoop", "maple", "mmrl", "promptsrc")),
        ("cocoop", {"warmup": 0.0}),
        ("cocoop", {"momentum": 0.89}),
        ("cocoop", {"weight_decay": 0.0}),
        ("mmrl", {"weight_decay": 0.01}),
    ],
)
def test_another_recipe_ends_elsewhere(
    method: str, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = deviations(method, tmp_path, monkeypatch, **changes)
    assert max(found.values()) > 1e-3, found
