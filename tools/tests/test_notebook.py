"""docs/notebook.ipynb runs from top to bottom and gives outputs of the stored types."""

import re
from pathlib import Path

import nbformat
import pytest

from tools.notebook import NOTEBOOK, execute


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    stored = nbformat.read(NOTEBOOK, as_version=4)
    run = execute(NOTEBOOK, tmp_path)
    for before, after in zip(stored.cells, run.cells, strict=True):
        kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in (before, after)]
        assert kinds[0] == kinds[1], f"out of date: run python -m tools.notebook\n{after.source}"
    printed = "".join(output.get("text", "") for cell in run.cells for output in cell.get("outputs", []))
    zeroshot, gopro = map(int, re.findall(r"(\d+) of \d+ test images right", printed))
    assert gopro > zeroshot
