"""What the protocols consist of: which runs, on which classes, tested on what; and the suites' settings."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gopro.benchmark.protocols import Job, base_to_new, cross_dataset, domain_generalization, few_shot
from gopro.benchmark.runner import benchmark
from gopro.benchmark.suites import SUITES
from gopro.errors import InputError
from gopro.runs.config import BenchmarkConfig, SweepConfig, TransferConfig

OUT = Path("unused")


def evaluated(job: Job) -> list[tuple[str, str]]:
    return [(test.key.data, test.key.classes) for test in job.tests]


def learned(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if job.train.shots]


def test_base_to_new_trains_on_base_and_tests_both_halves() -> None:
    jobs = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-animals:noto"), seeds=(3, 5)))
    assert {(j.train.data, j.train.method, j.train.seed) for j in learned(jobs)} == {
        (data, method, seed)
        for data in ("emoji-food", "emoji-animals:noto")
        for method in ("coop", "gopro")
        for seed in (3, 5)
    }
    for job in jobs:
        assert job.train.classes == "base"
        assert [half for _, half in evaluated(job)] == ["base", "new"]
        assert {test.key.source for test in job.tests} == {test.key.data for test in job.tests}
        assert job.train.epochs is None and job.train.batch is None  # the method's own recipe
        assert job.train.shots in (0, 16)


def test_what_learns_from_nothing_is_run_once_a_data_set_without_shots_and_seed() -> None:
    jobs = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("zeroshot",), shots=(1, 16)))
    [job] = jobs
    assert (job.train.shots, job.train.seed, job.tests[0].key.shots, job.tests[0].key.seed) == (0, 0, 0, 0)
    # from another data set, too, it takes each target's own prompt: a run for each
    jobs = cross_dataset(TransferConfig(output=OUT, methods=("zeroshot",)))
    assert [job.train.data for job in jobs] == [
        "emoji-activities",
        "emoji-animals",
        "emoji-food",
        "emoji-travel",
    ]
    assert {test.key.source for job in jobs for test in job.tests} == {"emoji-activities:twemoji"}


def test_a_source_is_trained_once_for_all_its_targets() -> None:
    targets = ("emoji-animals", "emoji-travel:fluent")
    jobs = cross_dataset(
        TransferConfig(output=OUT, source="emoji-food", targets=targets, methods=("coop",), seeds=(1,))
    )
    [job] = jobs
    assert job.train.classes == "all" and job.train.data == "emoji-food"
    assert evaluated(job) == [
        ("emoji-food:twemoji", "all"),
        ("emoji-animals:twemoji", "all"),
        ("emoji-travel:fluent", "all"),
    ]


def test_protocols_that_train_the_same_share_the_run() -> None:
    config = TransferConfig(
        output=OUT, source="emoji-food", targets=("emoji-food:noto",), methods=("coop",), shots=(4,)
    )
    across = {job.run: job.train for job in cross_dataset(replace(config, targets=("emoji-animals",)))}
    domains = {job.run: job.train for job in domain_generalization(config)}
    shots = {
        job.run: job.train
        for job in few_shot(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("coop",), shots=(4,)))
    }
    assert across == domains == shots
    halves = base_to_new(BenchmarkConfig(output=OUT, data=("emoji-food",), methods=("coop",), shots=(4,)))
    assert not {job.run for job in halves} & set(shots)


def test_few_shot_runs_every_number_of_shots_on_all_classes() -> None:
    jobs = few_shot(BenchmarkConfig(output=OUT, data=("emoji-food",), seeds=(1, 2), methods=("zeroshot", "coop")))
    assert sorted(job.train.shots for job in jobs) == [0, *sorted(2 * [1, 2, 4, 8, 16])]
    assert all(evaluated(job) == [("emoji-food:twemoji", "all")] and job.train.classes == "all" for job in jobs)


def test_without_data_the_embedded_benchmark_runs() -> None:
    suite = SUITES["emoji"]
    jobs = base_to_new(BenchmarkConfig(output=OUT))
    assert {job.train.data for job in jobs} == set(suite.base_to_new)
    assert {job.train.shots for job in jobs} == {0, suite.shots}
    assert {job.train.shots for job in base_to_new(BenchmarkConfig(output=OUT, shots=(2,)))} == {0, 2}
    domains = learned(domain_generalization(TransferConfig(output=OUT)))
    assert {tuple(data for data, _ in evaluated(job)) for job in domains} == {
        tuple(f"emoji-activities:{style}" for style in ("noto", "fluent", "openmoji", "twemoji", "high-contrast"))
    }


def test_the_paper_s_suite_is_the_paper_s_set_up() -> None:
    paper = SUITES["paper"]
    assert len(paper.base_to_new) == 11 and paper.base_to_new[0] == "imagenet"
    assert paper.cross_dataset[0] == "imagenet" and len(paper.cross_dataset[1]) == 10
    assert set(paper.cross_dataset[1]) == set(paper.base_to_new) - {"imagenet"}
    assert paper.domain_generalization == (
        "imagenet",
        ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"),
    )
    assert (paper.backbones, paper.shots, paper.seeds) == (("ViT-B-16:openai",), 16, (1, 2, 3, 4, 5))


def test_the_paper_s_suite_on_caltech101(shared: Path) -> None:
    config = BenchmarkConfig(output=OUT, suite="paper", data=("caltech101",), root=shared / "datasets")
    jobs = base_to_new(config)
    assert [(job.train.method, job.train.seed) for job in jobs] == [
        ("zeroshot", 0),
        *(("coop", seed) for seed in range(1, 6)),
        *(("gopro", seed) for seed in range(1, 6)),
    ]
    assert {(job.train.backbone, job.train.shots) for job in learned(jobs)} == {("ViT-B-16:openai", 16)}


def test_a_run_can_be_done_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "root" / "mine" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "root" / "mine" / name / "1.png")
    monkeypatch.chdir(tmp_path)
    config = BenchmarkConfig(output=OUT, data=("mine",), root=Path("root"), methods=("coop",), seeds=(1,), shots=(1,))
    [job] = base_to_new(config)
    assert job.train.data == job.tests[0].data == str(tmp_path / "root" / "mine")
    assert job.train.output.is_relative_to(tmp_path / "unused") and job.train.root == tmp_path / "root"


@pytest.mark.parametrize(
    ("protocol", "config", "reason"),
    [
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("coup",)), "did you mean coop"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-foo")), "emoji-foo"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food",), shots=(99,)), "fewer than 99 shots"),
        ("few-shot", BenchmarkConfig(output=OUT, seeds=(1, 1)), "seeds 1 1: .* none twice"),
        ("few-shot", BenchmarkConfig(output=OUT, jobs=0), "jobs is 0"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-food:twemoji")), "are both called"),
        ("base-to-new", BenchmarkConfig(output=OUT, data=("emoji-food", "emoji-food")), "name each data set once"),
        ("cross-dataset", TransferConfig(output=OUT, source="emoji-food"), "targets none"),
        ("cross-dataset", TransferConfig(output=OUT, source="emoji-food", targets=("emoji-food",)), "other targets"),
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("gopro[con=0]", "gopro(con=0)")), "no such method"),
        ("base-to-new", BenchmarkConfig(output=OUT, methods=("gopro[sem=1]", "gopro[sem=1] ")), "would share"),
        ("zero-to-hero", BenchmarkConfig(output=OUT), "choose one of base-to-new"),
    ],
)
def test_a_sweep_is_checked_before_its_first_run(
    protocol: str, config: SweepConfig, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        benchmark(protocol, replace(config, output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
