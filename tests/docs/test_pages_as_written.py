"""Pages whose examples run exactly as they are written: README's Python, use.md, export.md and start.md.

Two more pages are run elsewhere: `serve.md` by tests/inference/serve/test_server.py, `add-a-method.md` by
tests/cli/test_methods.py. Commands run in this process, lines with a pipe in a shell.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import gopro
from gopro import cli
from tests.support.pages import ROOT, blocks, commands


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(command: str) -> int:
    """Run a `gopro` command. Returns its exit code."""
    try:
        cli.main(shlex.split(command)[1:])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.slow
def test_readme(capsys) -> None:
    examples = blocks(ROOT / "README.md", "python")
    assert examples
    for _, example in examples:
        exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("%") == 2


@pytest.mark.slow
def test_use(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gopro").write_text(f'#!/bin/sh\nexec {sys.executable} -m gopro.cli "$@"\n')
    (tmp_path / "bin" / "gopro").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    namespace, codes = {}, []
    for language, example in blocks(ROOT / "docs" / "use.md", "python", "sh"):
        if language == "python":
            exec(compile(example, "use.md", "exec"), namespace)
            continue
        for line in example.splitlines():
            if "|" in line:
                piped = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
                print(piped.stdout)
                codes.append(piped.returncode)
            else:
                codes.append(run(line))
    out = capsys.readouterr().out
    assert "images/broken.png: not an image" in out and out.count('"predictions"') == 1
    assert codes == [0, 0, 0, 0, 0, 1, 1, 0, 1]  # 1: the broken image is reported; a pipe returns head's code
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    images = len(list((tmp_path / "images").iterdir())) - 1
    assert answers[0] == "path,rank,name,probability" and len(answers) == 1 + 5 * images
    assert len([path for path in (tmp_path / "sorted").rglob("[!.]*") if path.is_file()]) == images
    assert len(namespace["probabilities"]) == len(namespace["features"]) == images
    assert namespace["most_similar"].is_file()


@pytest.mark.slow
@pytest.mark.no_cover  # see tests/inference/export/test_export.py
def test_export(capsys) -> None:
    text, namespace = (ROOT / "docs" / "export.md").read_text(encoding="utf-8").partition("## Measured")[0], {}
    for language, example in re.findall(r"```(python|sh)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            exec(compile(example, "export.md", "exec"), namespace)
        else:
            assert [run(command) for command in commands(example)] in ([], [0])
    assert "same top class for 100.00 %" in capsys.readouterr().out
    classifier = gopro.load("runs/activities", "cpu").for_classes(namespace["about"]["classnames"])
    expected = classifier.predict_proba("image.png")  # 300 x 200: resized and cropped
    assert abs(namespace["probabilities"][0] - expected).max() < 1e-4


@pytest.mark.slow
def test_start(tmp_path: Path, capsys) -> None:
    """All blocks but the first, which installs."""
    examples = blocks(ROOT / "docs" / "start.md", "python", "sh")
    assert "pip install ." in examples[0][1]
    accuracies = []
    for language, example in examples[1:]:
        if language == "python":
            exec(compile(example, "start.md", "exec"), {})
            continue
        for line in example.splitlines():
            if line.startswith("gopro "):
                assert run(line) == 0, line
            else:
                subprocess.run(["bash", "-c", line], check=True)
            printed = capsys.readouterr()
            accuracies += re.findall(r"accuracy (\d+\.\d\d) %", printed.out)
            assert "skipped" not in printed.err  # the split file next to the images is ours
    ours, reported, zeroshot = map(float, accuracies)
    assert ours == reported > zeroshot
    assert len(list((tmp_path / "sorted").rglob("*.webp"))) == 220
    assert capsys.readouterr().out.count("%") == 2
