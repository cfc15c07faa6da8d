"""The examples in docstrings run and print what they say."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import gopro

SOURCE = Path(gopro.__file__).parent
NEED_FILES = {"gopro.inference.classifier", "gopro.inference.export.model_file", "gopro.inference.sort_images"}
"""Modules whose examples use a run or images that exist already; tests of their own run these."""


def modules_with_examples() -> list[str]:
    names = []
    for path in sorted(SOURCE.rglob("*.py")):
        if re.search(r">>> (?!.*\+SKIP)", path.read_text(encoding="utf-8")):
            parts = path.relative_to(SOURCE.parent).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(set(names) - NEED_FILES)


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), extraglobs={"gopro": gopro}, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0 and result.attempted > 0
