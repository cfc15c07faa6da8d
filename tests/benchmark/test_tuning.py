"""The choice of settings: as many for each method, by images that are neither trained nor tested on."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gopro.benchmark import worker as worker_module
from gopro.benchmark.runner import SweepResult, benchmark
from gopro.benchmark.tuning import Trial, Tuned, plan_tuning, settings_to_try, tune
from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.methods.coop import CoOp
from gopro.methods.recipe import Conditions, Recipe
from gopro.methods.registry import METHODS, parse_method
from gopro.runs.config import BenchmarkConfig, TuneConfig

TUNABLE = [name for name in METHODS if name not in ("zeroshot", "linear-probe")]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four classes whose test images cannot be read."""
    folder = tmp_path_factory.mktemp("tuning") / "mine"
    for number, name in enumerate(("apple", "bus", "cat", "dog")):
        for part, count in {"train": 4, "val": 2, "test": 2}.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                path = folder / part / name / f"{part}{index}.png"
                Image.new("RGB", (40, 40), (60 * number, 200 - 40 * number, 40 * index)).save(path)
                if part == "test":
                    path.write_bytes(b"poison")
    return folder


@pytest.fixture(scope="module")
def config(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TuneConfig:
    return TuneConfig(
        data=(str(data),),
        methods=("zeroshot", "tip-adapter", "slip"),
        budget=3,
        shots=(2,),
        bank=2,
        batch=4,
        workers=0,
        device="cpu",
        output=tmp_path_factory.mktemp("tuned"),
    )


@pytest.fixture(autouse=True, scope="module")
def small_backbone(tiny: Backbone) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_module, "load_backbone", lambda *_: tiny)
        yield


@pytest.fixture(scope="module")
def tuned(config: TuneConfig) -> tuple[list[Tuned], SweepResult]:
    return tune(plan_tuning(config), command="gopro tune")


@pytest.mark.parametrize("method", TUNABLE)
def test_each_method_has_as_many_different_settings_with_the_recipe_first(method: str) -> None:
    tried = settings_to_try(method, 12)
    assert tried[0] == method and len(tried) == 12
    resolved = []
    for text in tried:
        trained, recipe = parse_method(text).for_training(Conditions("base-to-new", "mine", 4))
        resolved.append(f"{trained.config} {replace(recipe, **trained.recipe_settings)}")
    assert len(set(resolved)) == 12
    assert settings_to_try(method, 5) == tried[:5]


def test_settings_that_the_user_gave_stay_in_all_trials() -> None:
    tried = settings_to_try("kgcoop[weight=3]", 6)
    assert tried[0] == "kgcoop[weight=3]"
    assert {parse_method(text).config.weight for text in tried} == {3.0}
    with pytest.raises(InputError, match=r"kgcoop\[weight=3\] has 6 settings to try, fewer than the 7 of the budget"):
        settings_to_try("kgcoop[weight=3]", 7)


def test_a_method_without_a_grid_is_named() -> None:
    with pytest.raises(InputError, match="linear-probe has no settings to try"):
        settings_to_try("linear-probe", 12)


def test_no_test_image_is_read(config: TuneConfig, tuned: tuple[list[Tuned], SweepResult], tmp_path: Path) -> None:
    assert not tuned[1].failures
    assert [method.method for method in tuned[0]] == ["tip-adapter", "slip"]
    assert [len(method.trials) for method in tuned[0]] == [3, 3]
    tests = {(row["data"], row["classes"], row["n"]) for row in tuned[1].rows}
    styles = {(f"mine ({style})", "base", 4) for style in ("original", "grayscale", "hue", "inverted", "edges")}
    assert tests == {*styles, ("mine (original)", "new", 12)}  # 2 of each base class's 6 images are left
    shared = {name: getattr(config, name) for name in ("data", "shots", "bank", "batch", "workers", "device")}
    control = BenchmarkConfig(methods=("slip",), seeds=(11,), output=tmp_path / "control", **shared)
    [failure] = benchmark("base-to-new", control).failures  # the test images are poison to what reads them
    assert "test0.png" in failure["error"]


def test_a_second_call_trains_nothing_and_chooses_the_same(
    config: TuneConfig, tuned: tuple[list[Tuned], SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "load_backbone", None)
    before = (config.output / "tuned.json").read_bytes()
    assert tune(plan_tuning(config))[0] == tuned[0]
    assert (config.output / "tuned.json").read_bytes() == before


def test_a_larger_budget_trains_only_what_is_new(
    config: TuneConfig, tuned: tuple[list[Tuned], SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(config.output, tmp_path / "copy")
    trained = []
    real = worker_module.train

    def train(config, **options):
        trained.append(config.method)
        return real(config, **options)

    monkeypatch.setattr(worker_module, "train", train)
    more = replace(config, methods=("tip-adapter",), budget=4, output=tmp_path / "copy")
    [again], _ = tune(plan_tuning(more))
    assert trained == settings_to_try("tip-adapter", 4)[3:] and again.trials[:3] == tuned[0][0].trials
    assert set(json.loads((more.output / "tuned.json").read_text())) == {"tip-adapter", "slip"}


def test_the_figures_are_those_of_the_rows(tuned: tuple[list[Tuned], SweepResult]) -> None:
    for method in tuned[0]:
        for trial in method.trials:
            own = [row for row in tuned[1].rows if row["method"] == trial.method]
            figures = {(row["data"], row["classes"]): row["accuracy"] for row in own}
            base, new = (figures.pop(("mine (original)", half)) for half in ("base", "new"))
            assert trial.hm == pytest.approx(2 * base * new / (base + new), abs=1e-3)
            assert trial.styles == pytest.approx(sum(figures.values()) / 4, abs=1e-3)
            assert trial.score == pytest.approx((trial.hm + trial.styles) / 2, abs=1e-3)


def test_the_best_is_chosen_and_the_first_of_equals() -> None:
    trials = [Trial("coop", 50, 50, 50), Trial("coop[lr=1]", 80, 60, 70), Trial("coop[lr=2]", 60, 80, 70)]
    tuned = Tuned("coop", tuple(trials))
    assert tuned.chosen is trials[1] and tuned.recipe is trials[0]
    assert Tuned("coop", tuple(trials[1:])).recipe is None


def test_settings_that_fail_are_not_chosen(config: TuneConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CoOp, "grid", {"lr": (1e-3, 1e30)})
    monkeypatch.setattr(CoOp, "recipe", Recipe(epochs=3, warmup=0.0))
    monkeypatch.setattr(CoOp, "variants", ())
    own = replace(config, methods=("coop",), output=tmp_path)
    [method], outcome = tune(plan_tuning(own))
    assert [trial.method for trial in method.trials] == ["coop", "coop[lr=0.001]"]
    assert len(outcome.failures) == 1


def test_what_cannot_be_chosen_is_refused_before_anything_is_trained(config: TuneConfig) -> None:
    with pytest.raises(InputError, match="these methods learn nothing"):
        plan_tuning(replace(config, methods=("zeroshot",)))
    with pytest.raises(InputError, match="suite paper has no data set to choose settings on: name one with --data"):
        plan_tuning(replace(config, suite="paper", data=None, methods=("coop",)))
    with pytest.raises(InputError, match="maple learns tokens inside a vision transformer"):
        plan_tuning(replace(config, methods=("coop", "maple"), backbones=("photo",)))


@pytest.mark.parametrize(
    ("given", "data"),
    [({}, "emoji-objects:noto"), ({"suite": "photo"}, "photos"), ({"data": ("photos",)}, "photos")],
)
def test_suites_choose_on_data_that_they_do_not_report(given: dict, data: str, tmp_path: Path) -> None:
    plan = plan_tuning(TuneConfig(**given, methods=("coop",), output=tmp_path))
    assert plan.config.data == (data,) and plan.config.shots == (4,) and plan.config.seeds == (11,)
    assert len(plan.runs) == 12 and {run.train.task for run in plan.runs} == {"base-to-new"}
