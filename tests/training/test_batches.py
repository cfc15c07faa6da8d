"""Training batches from the view bank: the draws it holds, and images that are opened once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gopro import benchmark
from gopro.clip.backbone import Backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.dataset import Dataset, Sample
from gopro.data.images.loader import EpochBatches, ViewSettings
from gopro.data.images.transforms import draw_view, make_view
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe
from gopro.methods.registry import build_method
from gopro.runs.config import BenchmarkConfig, TrainConfig
from gopro.runs.run import LEARNED
from gopro.training import loop
from gopro.training.devices import Runtime, make_fabric
from gopro.training.resume_state import RESUME
from gopro.training.solve import encode_draws
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities",
    output=Path(),
    shots=1,
    epochs=3,
    batch=16,
    lr=0.02,
    optimizer="sgd",
    classes="base",
    workers=0,
    bank=2,
)
"""More epochs than draws. SGD, because Adam amplifies gradients that are only rounding."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A feature cache of its own for each test."""
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Direct:
    """The bank's draws by their definition, without a feature store."""

    def __init__(
        self, method: Method, dataset: Dataset, recipe: Recipe, config: TrainConfig, runtime: Runtime, _: object
    ):
        self.method, self.samples, self.bank, self.crop = method, dataset.train, config.bank, recipe.crop
        self.batches = EpochBatches(len(self.samples), recipe.batch, config.seed, drop_last=recipe.drop_last)

    def __len__(self) -> int:
        return len(self.batches)

    def size(self, batch: int) -> int:
        return self.batches.size(batch)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Tensor]]:
        self.batches.epoch = epoch
        for keys in self.batches:
            samples = [self.samples[index] for _, index in keys]
            views = [torch.stack([self.drawn(sample, epoch, view) for sample in samples]) for view in self.method.views]
            yield self.method.encode(torch.stack(views)), torch.tensor([sample.label for sample in samples])

    def drawn(self, sample: Sample, epoch: int, view: Any) -> Tensor:
        key = (sample.image.digest(), epoch % self.bank, view)
        return draw_view(make_view(view, self.method.backbone.preprocess, self.crop), sample.image.open(), *key)


@pytest.mark.parametrize("method", ["coop", "gopro", "maple"])
def test_training_uses_the_draws_of_the_bank(
    method: str, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for MaPLe, which learns inside the image tower and so receives images."""
    learned = []
    for name, batches in (("bank", loop.training_batches), ("direct", Direct)):
        monkeypatch.setattr(loop, "training_batches", batches)
        train(replace(CONFIG, method=method, output=tmp_path / name), backbone=tiny)
        learned.append(load_file(tmp_path / name / LEARNED))
    start = build_method(method, tiny, ["a", "b"], "a photo of a {}.").state_dict()["context"]
    moved = (learned[1]["context"] - start).abs().mean()
    for key, direct in learned[1].items():
        if direct.numel():
            assert (learned[0][key] - direct).abs().mean() < 1e-2 * moved, key


def test_each_image_is_opened_once_for_all_epochs_methods_and_benchmarks(
    tmp_path: Path, opened: list[str], tiny: Backbone
) -> None:
    config = BenchmarkConfig(
        output=tmp_path / "a", data=("emoji-activities",), methods=("coop", "tip-adapter[augment=2]"), seeds=(1,),
        shots=(1,), epochs=3, batch=32, workers=0, bank=2,
    )  # fmt: skip
    first = benchmark("base-to-new", config)
    assert not first.failures and len(opened) == len(set(opened)) > 0
    opened.clear()
    methods = ("coop", "tip-adapter[augment=2]", "kgcoop")
    again = benchmark("base-to-new", replace(config, output=tmp_path / "b", methods=methods))
    assert not again.failures and not opened
    figures = [{row["method"] + row["classes"]: row["accuracy"] for row in o.rows} for o in (first, again)]
    assert figures[0].items() <= figures[1].items()
    benchmark("base-to-new", replace(config, output=tmp_path / "c", bank=3))
    assert opened, "a third draw was cached already"


def cut(folder: Path, backbone: Backbone) -> None:
    """Interrupt a run in its third epoch."""
    with pytest.raises(Cut):
        train(replace(CONFIG, output=folder), backbone=backbone, on_step=cut_in(2))


def test_resume_gives_the_same_bits(tmp_path: Path, tiny: Backbone, opened: list[str]) -> None:
    train(replace(CONFIG, output=tmp_path / "uncut"), backbone=tiny)
    cut(tmp_path / "cut", tiny)
    opened.clear()
    resume(tmp_path / "cut", backbone=tiny)
    assert not opened
    uncut, resumed = (load_file(tmp_path / name / LEARNED) for name in ("uncut", "cut"))
    assert all(torch.equal(uncut[key], resumed[key]) for key in uncut)


def test_a_changed_image_is_named_before_the_bank_is_filled(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut(tmp_path / "cut", tiny)
    state = tmp_path / "cut" / RESUME
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(state)
    tensors["pictures"][0] += 1
    save_file(tensors, state, metadata)
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "empty"))
    filled: list[int] = []
    with pytest.raises(InputError, match="began with another image here"):
        resume(tmp_path / "cut", backbone=tiny, on_fill=lambda done, _: filled.append(done))
    assert not filled


@pytest.mark.parametrize("workers", [0, 2])
def test_bits_do_not_depend_on_workers_or_on_the_cache(tmp_path: Path, tiny: Backbone, workers: int) -> None:
    config = replace(CONFIG, method="coop", workers=workers)
    runs = [train(replace(config, output=tmp_path / name), backbone=tiny).folder for name in ("cold", "warm")]
    cold, warm = (load_file(folder / LEARNED)["context"] for folder in runs)
    assert torch.equal(cold, warm)
    seed = train(replace(config, output=tmp_path / "seed", seed=2), backbone=tiny)
    assert not torch.equal(load_file(seed.folder / LEARNED)["context"], cold)


def test_closed_form_methods_use_the_draws_of_the_bank(tiny: Backbone) -> None:
    dataset = load_dataset("emoji-activities")
    dataset = replace(dataset, train=dataset.train[:400:40])
    method = build_method("tip-adapter", tiny, ["a", "b"], "a photo of a {}.")
    settings = ViewSettings(tiny.preprocess, crop=0.5, bank=2)
    draws = list(encode_draws(method, 5, dataset.train, settings, 1, Runtime(make_fabric(CONFIG))))
    view = make_view("base", tiny.preprocess, 0.5)
    for number, draw in enumerate(draws):
        images = [draw_view(view, s.image.open(), s.image.digest(), number % 2, "base") for s in dataset.train]
        torch.testing.assert_close(draw.embedding, tiny.encode(torch.stack(images)).embedding, rtol=0, atol=1e-3)
    assert len(draws) == 5 and not torch.equal(draws[0].embedding, draws[1].embedding)


def test_filling_the_bank_reports_progress(tmp_path: Path, tiny: Backbone) -> None:
    def progress() -> tuple[list[tuple[int, int]], Callable[[int, int], None]]:
        calls: list[tuple[int, int]] = []
        return calls, lambda done, total: calls.append((done, total))

    calls, on_fill = progress()
    train(replace(CONFIG, method="coop", output=tmp_path / "a"), backbone=tiny, on_fill=on_fill)
    total = 2 * 43
    assert calls[0] == (0, total) and calls[-1] == (total, total) and calls == sorted(calls)
    calls, on_fill = progress()
    train(replace(CONFIG, method="coop", output=tmp_path / "b"), backbone=tiny, on_fill=on_fill)
    assert calls == [(total, total)]
    calls, on_fill = progress()
    train(replace(CONFIG, method="coop", bank=8, output=tmp_path / "c"), backbone=tiny, on_fill=on_fill)
    assert calls[0] == (total, 3 * 43) and calls[-1] == (3 * 43, 3 * 43), "one draw for each of the three epochs"


def test_the_recipe_of_gopro_has_a_bank_that_a_setting_overrides(tmp_path: Path, tiny: Backbone) -> None:
    def encoded(name: str, **changes: Any) -> list[int]:
        totals: list[int] = []
        config = replace(CONFIG, output=tmp_path / name, epochs=3, **changes)
        train(config, backbone=tiny, on_fill=lambda done, total: totals.append(total))
        return totals

    views = 3 * 43
    assert set(encoded("a", method="gopro", bank=None)) == {2 * views}
    assert set(encoded("b", method="gopro", bank=1)) == {views}
    assert not encoded("c", method="gopro", bank=0)
    assert not encoded("d", method="coop", bank=None), "its authors draw new views in each epoch"


def test_bank_sizes_are_checked_and_distinguish_runs(tmp_path: Path, tiny: Backbone) -> None:
    with pytest.raises(InputError, match="bank is -1: give at least 0"):
        replace(CONFIG, bank=-1)
    config = BenchmarkConfig(
        output=tmp_path, data=("emoji-activities",), methods=("coop",), seeds=(1,), shots=(1,), epochs=1, workers=0
    )
    benchmark("few-shot", config)
    with pytest.raises(InputError, match="was made with bank 0, not 4"):
        benchmark("few-shot", replace(config, bank=4))


def test_cached_views_depend_on_the_crop_except_the_evaluation_view(tiny: Backbone) -> None:
    image = load_dataset("emoji-activities").train[0].image
    store = FeatureStore(tiny, None)
    wanted = [ViewRequest(image, "base"), ViewRequest(image, "eval")]
    small, large = (encode_views(store, wanted, crop=crop)[:].embedding for crop in (0.08, 0.9))
    assert not torch.equal(small[0], large[0])
    assert torch.equal(small[1], large[1])
    assert torch.equal(encode_views(store, wanted, crop=0.08)[:].embedding, small)
