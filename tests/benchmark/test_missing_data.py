"""Data sets that are not on disk are named before anything is trained."""

from dataclasses import replace
from pathlib import Path

import pytest

from gopro.benchmark.protocols import cross_dataset, domain_generalization, few_shot
from gopro.data.published.pacs import CLASSES
from gopro.errors import InputError
from gopro.runs.config import BenchmarkConfig, TransferConfig
from tests.support.folders import make_folders

OUT = Path("unused")


def refusal(protocol, config) -> str:
    with pytest.raises(InputError) as caught:
        protocol(config)
    return str(caught.value)


def test_all_missing_data_sets_are_named_and_what_is_there_can_be_run(tmp_path: Path) -> None:
    for domain in ("photo", "cartoon"):
        make_folders(tmp_path / "pacs" / domain, CLASSES)
    config = TransferConfig(output=OUT, suite="photo", root=tmp_path, methods=("zeroshot",))
    message = refusal(domain_generalization, config)
    assert f"pacs:art_painting: there is no {tmp_path}/pacs/art_painting; pacs:sketch: there is no" in message
    assert f"gopro data prepare NAME --root {tmp_path}, or run without: --targets pacs:cartoon" in message
    with pytest.warns(UserWarning, match=r"only 28 of the \d,\d+ images of pacs:\w+ are there"):
        runs = domain_generalization(replace(config, methods=("coop",), shots=(1,), targets=("pacs:cartoon",)))
    assert [[test.key.data for test in run.tests] for run in runs] == 3 * [["pacs:photo (part)", "pacs:cartoon (part)"]]


def test_without_the_source_nothing_is_offered_to_run(tmp_path: Path) -> None:
    make_folders(tmp_path / "pacs" / "photo", CLASSES)
    message = refusal(cross_dataset, TransferConfig(output=OUT, suite="photo", root=tmp_path))
    assert "dtd: there is no" in message and "caltech101: there is no" in message and "run without" not in message
    message = refusal(few_shot, BenchmarkConfig(output=OUT, suite="photo", root=tmp_path))
    assert message.endswith(f"Get it with gopro data prepare caltech101 --root {tmp_path}")


def test_without_a_root_its_folders_are_listed() -> None:
    message = refusal(cross_dataset, TransferConfig(output=OUT, suite="photo"))
    assert (
        "pacs:photo, dtd, caltech101: give --root FOLDER, the folder that contains pacs/, dtd/, caltech-101/" in message
    )
