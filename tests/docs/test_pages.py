"""The commands of README and documents run, on a small scale, page by page in the order in which they stand.

`start.md`, `use.md`, the first part of `export.md` (test_readme.py), `serve.md` (inference/serve/test_server.py) and
`add-a-method.md` (test_methods_command.py) run as they are written.
"""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gopro import cli
from tests.docs.test_readme import ROOT, blocks, commands

Options = dict[str, list[str]]
FAST = {"--epochs": ["1"], "--workers": ["0"]}


def options(arguments: list[str]) -> tuple[list[str], Options]:
    """What stands before the first flag, and each flag with its values."""
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--"):
            parts.append([])
        parts[-1].append(argument)
    return parts[0], {flag: values for flag, *values in parts[1:]}


def small(command: str) -> list[str]:
    """The arguments of a documented command, with less of everything that takes long.

    Large backbones become the embedded one, placeholders the names of what the test's folder has. Training has one
    image a class and one epoch, a sweep one seed, two methods and one data set, and a file is checked on few
    images; in the place of the paper's stands Caltech101.
    """
    words = shlex.split(re.sub(r"\.{3}", "x", command), comments=True)[1:]
    words = [{"MY_IMAGES": "my-images", "IMAGES": "images", "SORTED": "sorted"}.get(w, w) for w in words]
    words = ["emoji" if re.match(r"(ViT|RN)[\w-]*:", word) else word for word in words]
    head, flags = options(words)
    if head[0] == "train":
        flags |= {**FAST, "--shots": ["1"]}
    elif head[0] == "export":
        flags |= {"--images": ["images"]}
    elif head[0] == "benchmark":
        paper = flags.pop("--suite", None) == ["paper"]
        flags.pop("--jobs", None)
        flags |= {**FAST, "--seeds": ["1"], "--shots": ["1"]}
        flags["--methods"] = flags.get("--methods", ["zeroshot", "coop"])[:2]
        if "--backbones" in flags:
            flags["--backbones"] = ["emoji"]
        if head[1] in ("base-to-new", "few-shot"):
            flags["--data"] = [flags.get("--data", ["caltech101" if paper else "emoji-activities"])[-1]]
        else:
            own = {"cross-dataset": "emoji-travel", "domain-generalization": "emoji-activities:openmoji"}[head[1]]
            flags.setdefault("--source", ["my-images" if paper else "emoji-activities"])
            flags["--targets"] = ["caltech101" if paper else own]
    return head + [word for flag, values in flags.items() for word in (flag, *values)]


def run(page: str, where: Callable[[str], bool] = lambda command: True) -> list[list[str]]:
    """Runs a page's commands. Returns what was run."""
    path = ROOT / page
    ran = [small(c) for block in blocks(path, "sh") for c in commands(block) if where(c)]
    assert ran
    for arguments in ran:
        try:
            cli.main(arguments)
        except SystemExit as stop:
            assert not stop.code, f"{page}: gopro {shlex.join(arguments)} ended with {stop.code}"
    return ran


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages name, the current one."""
    monkeypatch.chdir(tmp_path)
    cli.main(["data", "sample", "my-images"])
    shutil.copytree("my-images/fox", "images")
    shutil.copy("my-images/fox/01.png", "IMAGE.jpg")
    return tmp_path


@pytest.fixture
def data(here: Path, shared: Path) -> Path:
    """`DATA`, which has Caltech101."""
    (here / "DATA").mkdir()
    (here / "DATA" / "caltech-101").symlink_to(shared / "datasets" / "caltech-101")
    return here / "DATA"


def test_readme(here: Path) -> None:
    run("README.md")
    assert any(Path("sorted").rglob("*.png"))


def test_cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPRO_CACHE", "kept")
    cli.main(["train", "--data", "my-images", "--method", "zeroshot", "--output", "runs/seen"])
    cli.main(["eval", "runs/seen"])
    run("docs/cache.md")
    assert not any(Path("kept").rglob("*.safetensors"))  # the page ends with pruning all


def test_add_a_dataset(here: Path) -> None:
    run("docs/add-a-dataset.md")
    assert Path("runs/compare/results.jsonl").read_text().count("\n") == 4


def test_benchmark(data: Path) -> None:
    ran = run("docs/benchmark.md", lambda command: not Path("runs/paper").exists())
    assert len(ran) == 13
    for folder in ("emoji", "compare", "paper"):
        assert Path("runs", folder, "report.html").is_file()


def test_reproduce(data: Path) -> None:
    run("docs/reproduce.md", lambda command: "runs/paper" not in command)  # as on the page of the benchmark
    assert Path("runs/check/report.html").is_file()


@pytest.mark.no_cover  # see test_export.py
def test_export(here: Path) -> None:
    run("docs/export.md", lambda command: "runs/activities" not in command)
    assert Path("exact.onnx").is_file() and Path("first-order.onnx").is_file()
