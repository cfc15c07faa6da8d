"""The frame of the torture: what it writes where, and that it fails where something did not hold."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.torture import __main__ as torture
from tools.torture.rows import Row, table, written


def test_rows_are_written_between_their_markers_and_nothing_else_changes() -> None:
    page = "a\n<!-- torture: x -->\nold\n<!-- end: x -->\nb\n<!-- torture: y -->\nkept\n<!-- end: y -->\n"
    new = written(page, "x", table([Row("kill | it", 3, 2, "one\nlost")]))
    assert "| kill \\| it | 3 | 2 | one lost |" in new
    assert new.startswith("a\n") and "old" not in new and new.endswith(page[page.index("\nb\n") :])
    assert written(new, "x", "again").count("torture: x") == 1
    with pytest.raises(ValueError, match="no place for z"):
        written(page, "z", "")


def test_every_module_has_its_place_on_the_page() -> None:
    page = torture.PAGE.read_text(encoding="utf-8")
    for name in torture.modules():
        written(page, name, "")


@pytest.mark.parametrize(("held", "code"), [(2, 0), (1, 1)])
def test_what_did_not_hold_fails_the_command(held: int, code: int, tmp_path: Path, monkeypatch, capsys) -> None:
    def run(work: Path, times: int | None) -> Iterator[Row]:
        assert work.is_dir() and times == 2
        yield Row("something", 2, held)

    page = tmp_path / "page.md"
    page.write_text("<!-- torture: fake -->\n<!-- end: fake -->\n")
    monkeypatch.setattr(torture, "modules", lambda: {"fake": SimpleNamespace(run=run, SEED=5)})
    monkeypatch.setattr(torture, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["torture", "--times", "2", "--write"])
    with pytest.raises(SystemExit) as stop:
        torture.main()
    assert stop.value.code == code
    assert f"| something | 2 | {held} |" in page.read_text() and "torture fake --times 2" in page.read_text()
    assert "seed 5" in capsys.readouterr().out
