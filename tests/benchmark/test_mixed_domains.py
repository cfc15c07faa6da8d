"""Domain generalization from several domains at once, from planning to the report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gopro.benchmark.missing_data import check_present
from gopro.benchmark.report.page import write_report
from gopro.benchmark.runner import benchmark
from gopro.errors import InputError
from gopro.runs.config import TrainConfig, TransferConfig
from gopro.runs.evaluation_data import evaluation_data
from gopro.runs.labelled_images import labelled_images
from gopro.runs.load_run import load_run
from gopro.runs.training_images import read_training_images
from gopro.training.train import train
from tests.support.folders import make_folders

CLASSES = ("cat", "dog", "fox")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folders(
        tmp_path / "mine", [f"{style}/{name}" for style in ("photo", "art", "sketch") for name in CLASSES]
    )


def config(root: Path, output: Path, *targets: str, source: str = "photo+art") -> TransferConfig:
    return TransferConfig(
        source="+".join(str(root / name) for name in source.split("+")),
        targets=targets or (f"{root}/art/", str(root / "photo"), str(root / "sketch")),  # as a shell writes mine/*
        methods=("zeroshot", "coop"),
        backbones=("emoji",),
        shots=(1,),
        seeds=(1,),
        epochs=1,
        workers=0,
        output=output,
    )


def test_the_domain_left_out_is_tested_whole(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.warns(UserWarning, match=r"not among the targets, because .*: .*/art/, .*/photo; "):
        rows = benchmark("domain-generalization", config(root, output)).rows
    tested = {(row["method"], row["source"], row["data"]): row["n"] for row in rows}
    assert tested == {
        (method, "photo+art", data): n
        for method in ("zeroshot", "coop")
        for data, n in (("photo+art", 6), ("sketch", 12))
    }
    [run] = {row["run"] for row in rows if row["method"] == "coop"}
    digests = read_training_images(output / "runs" / run)
    assert digests is not None and len(digests) == 6  # one of each class and domain
    assert not (root / "sketch" / "split_gopro.json").exists()
    before = (output / "results.jsonl").read_text()
    with pytest.warns(UserWarning, match="not among the targets"):
        assert len(benchmark("domain-generalization", config(root, output)).rows) == 4
    assert (output / "results.jsonl").read_text() == before  # the same rows, reused
    write_report(output)
    page = (output / "report.html").read_text()
    assert page.count("data:image/webp") > 1 and "has changed since" not in page


def test_what_is_trained_on_cannot_be_a_target(root: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="name one source and other targets"),
        pytest.warns(UserWarning, match="not among the targets"),
    ):
        benchmark("domain-generalization", config(root, tmp_path / "out", str(root / "art")))
    with pytest.raises(InputError, match=r"photo\+.*/art and .*/art\+.*/sketch both have the images of art"):
        benchmark("domain-generalization", config(root, tmp_path / "out", f"{root}/art+{root}/sketch"))


def test_other_domains_of_these_names_are_not_the_same_results(root: Path, tmp_path: Path) -> None:
    first = replace(config(root, tmp_path / "out", f"{root}/sketch"), methods=("coop",))
    benchmark("domain-generalization", first)
    folders = [f"{style}/{name}" for name in CLASSES for style in ("photo", "art")]
    other = make_folders(tmp_path / "other", folders)
    with pytest.raises(InputError, match="was trained on other images than"):
        benchmark("domain-generalization", replace(first, source=f"{other}/photo+{other}/art"))


def test_missing_benchmarks_among_those_joined_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pacs:art_painting: there is no .*; pacs:photo: there is no"):
        check_present(tmp_path, "targets", ["pacs:art_painting"], "photos+pacs:photo")
    with pytest.raises(InputError, match=r"^pacs:photo: give --root FOLDER"):
        check_present(None, "targets", ["photos"], "photos+pacs:photo")


def test_a_run_is_tested_on_images_that_it_was_not_trained_on(root: Path, tmp_path: Path) -> None:
    source = f"{root}/photo+{root}/art"
    run = train(
        TrainConfig(data=source, output=tmp_path / "run", method="coop", backbone="emoji", shots=1, epochs=1, workers=0)
    )
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"] == run.data == "photo+art"
    run = load_run(tmp_path / "run")
    own = evaluation_data(run, f"{root}/../mine/photo+{root}/art")
    assert own.is_own and len(own.dataset.test) == len(evaluation_data(run).dataset.test) == 6
    one = evaluation_data(run, str(root / "photo"))
    assert not one.is_own and not one.other_data and one.dataset.classnames == CLASSES
    trained = set(read_training_images(run.folder) or ())
    left = labelled_images(CLASSES, run, str(root / "photo"))
    assert len(left) == 9 and not any(sample.image.digest() in trained for sample in left)
    assert len(labelled_images(CLASSES, run, str(root / "sketch"))) == 12
    other = evaluation_data(run, f"{root}/photo+{root}/sketch")
    assert not other.is_own and not other.other_data and len(other.dataset.test) == 24


def test_the_folder_of_a_run_is_called_after_its_domains(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TrainConfig(data=f"{root}/photo+{root}/art").output == Path("runs/photo_art-gopro")
