"""Training steps with images without labels: their order, what is recorded, and resuming."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from gopro import benchmark
from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.distributed import Ranks
from gopro.errors import InputError
from gopro.methods.coop import CoOp
from gopro.methods.registry import METHODS
from gopro.runs.config import BenchmarkConfig, TrainConfig
from gopro.runs.run import LEARNED
from gopro.runs.training_images import read_training_images, read_unlabeled_images
from gopro.training.devices import Runtime, make_fabric
from gopro.training.resume_state import LOG
from gopro.training.train import resume, train
from gopro.training.unlabeled_batches import UnlabeledOrder
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities",
    output=Path(),
    method="settled[unlabeled_shots=2]",
    shots=1,
    epochs=3,
    batch=16,
    classes="base",
    workers=0,
)


class Settled(CoOp):
    """CoOp with predictions of low entropy."""

    uses_unlabeled = True

    def unlabeled_losses(self, encoded: Any) -> dict[str, Tensor]:
        log_p = self.logits(encoded[0]).log_softmax(dim=-1)
        return {"entropy": -(log_p.exp() * log_p).sum(dim=-1).mean()}


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(METHODS, "settled", Settled)
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "cache"))


def learned(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / LEARNED)


class Sizes:
    """Labelled batches of 4, 4 and 2 images."""

    def __len__(self) -> int:
        return 3

    def size(self, batch: int) -> int:
        return 2 if batch == 2 else 4


def order(rank: int = 0, count: int = 1) -> UnlabeledOrder:
    runtime = Runtime(make_fabric(CONFIG))
    made = UnlabeledOrder(18, 4, 1, Sizes(), runtime)  # pyright: ignore[reportArgumentType]
    made.ranks = Ranks(rank, count)
    return made


def epochs(made: UnlabeledOrder, *numbers: int) -> list[list[tuple[int, int]]]:
    batches = []
    for made.epoch in numbers:
        batches += list(made)
    return batches


def test_batches_have_the_labelled_sizes_and_a_round_repeats_no_image() -> None:
    batches = epochs(order(), 0, 1, 2, 3)
    assert [len(batch) for batch in batches] == 4 * [4, 4, 2]
    assert [batch[0][0] for batch in batches] == 4 * [0] + 4 * [1] + 4 * [2]  # four full batches of 18 images a round
    for number in range(3):
        indices = [index for batch in batches for key, index in batch if key == number]
        assert len(set(indices)) == len(indices)
    assert order().rounds(4) == 3 and batches[0] != [(0, index) for _, index in batches[4]]


def test_a_later_epoch_does_not_depend_on_earlier_ones_and_processes_share_it() -> None:
    whole = epochs(order(), 0, 1, 2)
    assert epochs(order(), 2) == whole[6:]
    shares = [epochs(order(rank, 2), 0, 1, 2) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == whole


@pytest.mark.parametrize("bank", [0, 2])
def test_training_uses_the_images_and_resumes_with_the_same_bits(bank: int, tmp_path: Path, tiny: Backbone) -> None:
    config = replace(CONFIG, bank=bank)
    run = train(replace(config, output=tmp_path / "whole"), backbone=tiny)
    assert "unlabeled_entropy" in (run.folder / LOG).read_text().splitlines()[0]
    plain = train(replace(config, method="coop", output=tmp_path / "plain"), backbone=tiny)
    assert not torch.equal(learned(run.folder)["context"], learned(plain.folder)["context"])
    with pytest.raises(Cut):
        train(replace(config, output=tmp_path / "cut"), backbone=tiny, on_step=cut_in(2))
    resume(tmp_path / "cut", backbone=tiny)
    assert torch.equal(learned(tmp_path / "cut")["context"], learned(run.folder)["context"])


def test_the_run_lists_its_images_without_labels(tmp_path: Path, tiny: Backbone) -> None:
    """2 images of each of 86 classes, more than the 96 that the steps reach: they are solved for all together."""
    run = train(replace(CONFIG, output=tmp_path / "run"), backbone=tiny)
    unlabeled = read_unlabeled_images(run.folder)
    assert 160 < len(unlabeled) <= 2 * 86  # some are equal, and listed once
    assert not set(unlabeled) & set(read_training_images(run.folder) or [])
    dataset = load_dataset("emoji-activities")
    half = {s.image.digest(): s.label < 43 for s in dataset.train}
    assert set(Counter(half[digest] for digest in unlabeled)) == {True, False}, "of base and of new classes"


def test_too_few_images_for_a_batch_are_refused_before_anything_is_written(tmp_path: Path, tiny: Backbone) -> None:
    (tmp_path / "images").mkdir()
    load_dataset("emoji-food").train[0].image.open().save(tmp_path / "images" / "0.png")
    config = replace(CONFIG, method="settled", unlabeled=str(tmp_path / "images"), output=tmp_path / "run")
    with pytest.raises(InputError, match="1 images without labels are fewer than a batch of 16"):
        train(config, backbone=tiny)
    assert not (tmp_path / "run").exists()


def test_a_changed_image_without_labels_is_named_when_resuming(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, sample in enumerate(load_dataset("emoji-food").train[:160:8]):
        sample.image.open().save(folder / f"{i:02}.png")
    config = replace(CONFIG, method="settled", unlabeled=str(folder), output=tmp_path / "run")
    with pytest.raises(Cut):
        train(config, backbone=tiny, on_step=cut_in(1))
    load_dataset("emoji-food").train[-1].image.open().save(folder / "03.png")
    with pytest.raises(InputError, match=r"03\.png: the run began with another image here"):
        resume(tmp_path / "run", backbone=tiny)


def test_what_cannot_be_used_is_refused_before_a_folder_is_made(tmp_path: Path, tiny: Backbone) -> None:
    (tmp_path / "few").mkdir()
    for i in range(3):
        load_dataset("emoji-food").train[i].image.open().save(tmp_path / "few" / f"{i}.png")
    for changes, message in (
        (
            {"method": "coop", "unlabeled": str(tmp_path)},
            "coop learns nothing .*; leave it out, .* --method .*settled",
        ),
        (
            {"method": "coop[unlabeled_shots=2]"},
            "without labels: leave unlabeled_shots out",
        ),
        ({"method": "settled", "unlabeled": str(tmp_path / "few")}, "3 images without labels .* --batch 3 or fewer"),
    ):
        with pytest.raises(InputError, match=message):
            train(replace(CONFIG, output=tmp_path / "run", **changes), backbone=tiny)
        assert not (tmp_path / "run").exists()


def test_rows_of_a_benchmark_tell_the_numbers_apart(tmp_path: Path) -> None:
    """Methods that learn nothing from such images are trained without them."""
    methods = ("coop", "settled[unlabeled_shots=0]", "settled[unlabeled_shots=1]")
    config = BenchmarkConfig(
        output=tmp_path, data=("emoji-activities",), methods=methods, seeds=(1,), shots=(1,), epochs=1, workers=0,
        unlabeled="emoji-food", backbones=("emoji",),
    )  # fmt: skip
    outcome = benchmark("base-to-new", config)
    assert not outcome.failures
    made = {row["method"]: row["made_with"] for row in outcome.rows}
    assert [made[method]["unlabeled"] for method in methods] == [None, "emoji-food", "emoji-food"]
    assert [len(read_unlabeled_images(tmp_path / "runs" / row["run"])) for row in outcome.rows[::2]] == [0, 0, 130]
    with pytest.raises(InputError, match="was made with unlabeled emoji-food, not None"):
        benchmark("base-to-new", replace(config, unlabeled=None))
