"""Runs and tests that each protocol plans, and the default settings of the suites."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gopro.benchmark.protocols import PlannedRun, base_to_new, cross_dataset, domain_generalization, few_shot
from gopro.benchmark.runner import benchmark
from gopro.benchmark.suites import SUITES
from gopro.data.published.pacs import PACS
from gopro.errors import InputError
from gopro.runs.config import BenchmarkConfig, SweepConfig, TransferConfig

OUT = Path("unused")


def data_and_half(run: PlannedRun) -> list[tuple[str, str]]:
    return [(test.key.data, test.key.classes) for test in run.tests]


def trained(runs: list[PlannedRun]) -> list[PlannedRun]:
    return [run for run in runs if run.train.shots]


def test_base_to_new_trains_on_base_and_tests_both_halves() -> None:
    runs = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-animals:noto"), seeds=(3, 5)))
    assert {(run.train.data, run.train.method, run.train.seed) for run in trained(runs)} == {
        (data, method, seed)
        for data in ("emoji-food", "emoji-animals:noto")
        for method in ("coop", "gopro")
        for seed in (3, 5)
    }
    for run in runs:
        assert run.train.classes == "base"
        assert [half for _, half in data_and_half(run)] == ["base", "new"]
        assert {test.key.source for test in run.tests} == {test.key.data for test in run.tests}
        assert run.train.epochs is None and run.train.batch is None  # the method's own recipe
        assert run.train.shots in (0, 16)


def test_a_method_without_training_is_run_once_per_data_set_with_0_shots_and_seed_0() -> None:
    runs = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("zeroshot",), shots=(1, 16)))
    [run] = runs
    assert (run.train.shots, run.train.seed, run.tests[0].key.shots, run.tests[0].key.seed) == (0, 0, 0, 0)
    # Each target data set has a prompt of its own, so in a transfer protocol each takes a run.
    runs = cross_dataset(TransferConfig(output=OUT, methods=("zeroshot",)))
    assert [run.train.data for run in runs] == [
        "emoji-activities",
        "emoji-animals",
        "emoji-food",
        "emoji-travel",
    ]
    assert {test.key.source for run in runs for test in run.tests} == {"emoji-activities:twemoji"}


def test_a_source_is_trained_once_for_all_targets() -> None:
    targets = ("emoji-animals", "emoji-travel:fluent")
    runs = cross_dataset(
        TransferConfig(output=OUT, source="emoji-food", targets=targets, methods=("coop",), seeds=(1,))
    )
    [run] = runs
    assert run.train.classes == "all" and run.train.data == "emoji-food"
    assert data_and_half(run) == [
        ("emoji-food:twemoji", "all"),
        ("emoji-animals:twemoji", "all"),
        ("emoji-travel:fluent", "all"),
    ]


def test_protocols_that_train_alike_share_the_run() -> None:
    config = TransferConfig(
        output=OUT, source="emoji-food", targets=("emoji-food:noto",), methods=("coop",), shots=(4,)
    )
    across = {run.name: run.train for run in cross_dataset(replace(config, targets=("emoji-animals",)))}
    domains = {run.name: run.train for run in domain_generalization(config)}
    shots = {
        run.name: run.train
        for run in few_shot(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("coop",), shots=(4,)))
    }
    assert across == domains
    halves = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("coop",), shots=(4,)))
    names = [set(across), set(shots), {run.name for run in halves}]
    assert len(set.union(*names)) == sum(map(len, names)), "another task has another recipe, and so another run"
    tasks = [{run.conditions.task for run in runs} for runs in (across.values(), shots.values())]
    assert tasks == [{"transfer"}, {"few-shot"}]
    assert {run.train.conditions.task for run in halves} == {"base-to-new"}


def test_few_shot_trains_on_all_classes_with_each_number_of_shots() -> None:
    runs = few_shot(BenchmarkConfig(output=OUT, data=("emoji-food",), seeds=(1, 2), methods=("zeroshot", "coop")))
    assert sorted(run.train.shots for run in runs) == [0, *sorted(2 * [1, 2, 4, 8, 16])]
    assert all(data_and_half(run) == [("emoji-food:twemoji", "all")] and run.train.classes == "all" for run in runs)


def test_the_embedded_suite_is_the_default() -> None:
    suite = SUITES["emoji"]
    runs = base_to_new(BenchmarkConfig(output=OUT))
    assert {run.train.data for run in runs} == set(suite.base_to_new)
    assert {run.train.shots for run in runs} == {0, suite.shots}
    assert {run.train.shots for run in base_to_new(BenchmarkConfig(output=OUT, shots=(2,)))} == {0, 2}
    domains = trained(domain_generalization(TransferConfig(output=OUT)))
    assert {tuple(data for data, _ in data_and_half(run)) for run in domains} == {
        tuple(f"emoji-activities:{style}" for style in ("noto", "fluent", "openmoji", "twemoji", "high-contrast"))
    }


def test_the_paper_suite_has_the_settings_of_the_paper() -> None:
    paper = SUITES["paper"]
    assert len(paper.base_to_new) == 11 and paper.base_to_new[0] == "imagenet"
    assert paper.cross_dataset[0] == "imagenet" and len(paper.cross_dataset[1]) == 10
    assert set(paper.cross_dataset[1]) == set(paper.base_to_new) - {"imagenet"}
    assert paper.domain_generalization == (
        "imagenet",
        ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
    )
    assert (paper.backbones, paper.shots, paper.seeds) == (("ViT-B-16:openai",), 16, (1, 2, 3, 4, 5))


def test_the_photo_suite_needs_no_vision_transformer() -> None:
    photo = SUITES["photo"]
    assert photo.backbones == ("photo",) and not {"maple", "promptsrc", "mmrl"} & set(photo.methods)
    assert photo.cross_dataset == ("caltech101", ("pacs:photo", "dtd"))
    source, targets = photo.domain_generalization
    assert {source, *targets} == set(PACS)


def test_the_paper_suite_on_caltech101(shared: Path) -> None:
    config = BenchmarkConfig(output=OUT, suite="paper", data=("caltech101",), root=shared / "datasets")
    runs = base_to_new(config)
    assert [(run.train.method, run.train.seed) for run in runs] == [
        ("zeroshot", 0),
        *(("coop", seed) for seed in range(1, 6)),
        *(("gopro-paper", seed) for seed in range(1, 6)),
        *(("gopro", seed) for seed in range(1, 6)),
    ]
    assert {(run.train.backbone, run.train.shots) for run in trained(runs)} == {("ViT-B-16:openai", 16)}


def test_planned_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [f"{part}/{name}" for part in ("train", "test") for name in "abcd"]:
        (tmp_path / "root" / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "root" / "mine" / name / "1.png")
    monkeypatch.chdir(tmp_path)
    config = BenchmarkConfig(output=OUT, data=("mine",), root=Path("root"), methods=("coop",), seeds=(1,), shots=(1,))
    [run] = base_to_new(config)
    assert run.train.data == run.tests[0].data == str(tmp_path / "root" / "mine")
    assert run.train.output.is_relative_to(tmp_path / "unused") and run.train.root == tmp_path / "root"


@pytest.mark.parametrize(
    ("protocol", "config", "reason"),
    [
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("coup",)), "did you mean coop"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-foo")), "emoji-foo"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food",), shots=(99,)), "fewer than 99 shots"),
        ("few-shot", BenchmarkConfig(output=OUT, seeds=(1, 1)), "seeds 1 1: .* each only once"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-food:twemoji")), "are both called"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-food")), "name each data set once"),
        ("cross-dataset", TransferConfig(output=OUT, source="emoji-food"), "targets none"),
        ("cross-dataset", TransferConfig(output=OUT, source="emoji-food", targets=("emoji-food",)), "other targets"),
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("gopro[con=0]", "gopro(con=0)")), "no such method"),
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("gopro[sem=1]", "gopro[sem=1] ")), "would share"),
        ("zero-to-hero", BenchmarkConfig(output=OUT), "choose one of base-to-new"),
    ],
)
def test_a_faulty_config_is_refused_before_the_first_run(
    protocol: str, config: SweepConfig, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        benchmark(protocol, replace(config, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
