"""Base-to-new as a sweep: what it writes, what it does not do twice, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gopro import protocols
from gopro.config import BenchmarkConfig
from gopro.errors import InputError
from gopro.protocols import base_to_new
from gopro.results import KEY, Results

CONFIG = BenchmarkConfig(
    data=("emoji-activities", "emoji-activities:noto"),
    output=Path(),
    methods=("zeroshot", "coop"),
    seeds=(1, 2),
    shots=1,
    epochs=1,
    batch=32,
    workers=0,
)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchmarkConfig, list[dict]]:
    config = replace(CONFIG, output=tmp_path_factory.mktemp("sweep"))
    return config, base_to_new(config)


def test_every_evaluation_is_a_row(sweep: tuple[BenchmarkConfig, list[dict]]) -> None:
    config, rows = sweep
    written = [json.loads(line) for line in (config.output / "results.jsonl").read_text().splitlines()]
    assert sorted(map(str, written)) == sorted(map(str, rows)) and len(rows) == 2 * 2 * 2 * 2
    assert len({tuple(row[key] for key in KEY) for row in rows}) == len(rows)
    for row in rows:
        assert {"accuracy", "macro_accuracy", "n", "seconds"} <= set(row) and 0 <= row["accuracy"] <= 100
    zeroshot = [row for row in rows if row["method"] == "zeroshot" and row["seed"] == 1]
    assert {(row["data"], row["classes"]) for row in zeroshot} == {
        (data, half) for data in ("emoji-activities:twemoji", "emoji-activities:noto") for half in ("base", "new")
    }


def test_a_second_sweep_runs_nothing(
    sweep: tuple[BenchmarkConfig, list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, rows = sweep
    content = (config.output / "results.jsonl").read_bytes()
    monkeypatch.setattr(protocols, "train", None)
    monkeypatch.setattr(protocols, "evaluate", None)
    started: list[protocols.Progress] = []
    assert base_to_new(config, on_run=started.append) == rows
    assert started == [] and (config.output / "results.jsonl").read_bytes() == content


def test_a_missing_row_alone_is_made_again_from_the_run(
    sweep: tuple[BenchmarkConfig, list[dict]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(sweep[0], output=tmp_path / "copy")
    shutil.copytree(sweep[0].output, config.output)
    path = config.output / "results.jsonl"
    content = path.read_text()
    lines = content.splitlines(keepends=True)
    lost = json.loads(lines.pop(5))
    path.write_text("".join(lines) + '{"protocol": "base-to-n')  # a line that a cut left unfinished
    monkeypatch.setattr(protocols, "train", None)
    base_to_new(config)
    again = json.loads(path.read_text().splitlines()[-1])
    same = {key: value for key, value in lost.items() if "seconds" not in key}
    assert {key: value for key, value in again.items() if "seconds" not in key} == same
    assert len(path.read_text().splitlines()) == len(lines) + 1


def test_a_run_told_otherwise_is_not_passed_off_as_this_one(sweep: tuple[BenchmarkConfig, list[dict]]) -> None:
    config, _ = sweep
    with pytest.raises(InputError, match="epochs 1, not 2: choose another --output"):
        base_to_new(replace(config, epochs=2))


def test_a_sweep_is_checked_before_its_first_run(tmp_path: Path) -> None:
    for wish in ({"methods": ("zeroshot", "coup")}, {"data": ("emoji-food", "emoji-foo")}, {"shots": 99}):
        with pytest.raises(InputError):
            base_to_new(replace(CONFIG, output=tmp_path / "out", **wish))
        assert not (tmp_path / "out").exists()


def test_a_results_file_with_a_foreign_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match=r"results\.jsonl, line 1"):
        Results(tmp_path / "results.jsonl")
