"""The commands of README and documents run on a small scale, page by page in the order in which they stand.

Pages that run as they are written are in test_pages_as_written.py.
"""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gopro import cli
from tests.support.pages import ROOT, blocks, commands

Options = dict[str, list[str]]
FAST = {"--epochs": ["1"], "--workers": ["0"]}


def options(arguments: list[str]) -> tuple[list[str], Options]:
    """Split arguments into those before the first flag, and each flag with its values."""
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--"):
            parts.append([])
        parts[-1].append(argument)
    return parts[0], {flag: values for flag, *values in parts[1:]}


def scaled_down(command: str) -> list[str]:
    """Return the arguments of a documented command, with less of everything that takes long.

    All backbones become the embedded one of drawings, placeholders the names in the test's folder. A run gets one
    image per class and one epoch, a sweep one seed, two methods and one data set. Caltech101 takes the place of the
    data sets of the suites paper and photo, and folders that of their domains, as domains have the same classes.
    """
    words = shlex.split(re.sub(r"\.{3}", "x", command), comments=True)[1:]
    words = [{"MY_IMAGES": "my-images", "IMAGES": "images", "SORTED": "sorted"}.get(w, w) for w in words]
    words = [re.sub(r"\bMY_DOMAINS\b", "my-domains", word) for word in words]
    words = ["emoji" if re.match(r"(ViT|RN)[\w-]*:", word) else word for word in words]
    head, flags = options(words)
    if head[0] == "train":
        flags |= {**FAST, "--shots": ["1"]}
    elif head[0] == "export":
        flags |= {"--images": ["images"]}
        flags.setdefault("--classes", ["crab,fox"])
    elif head[0] == "benchmark":
        suite = flags.pop("--suite", None)
        paper = suite in (["paper"], ["photo"])
        flags.pop("--jobs", None)
        flags |= {**FAST, "--seeds": ["1"], "--shots": ["1"]}
        flags["--methods"] = flags.get("--methods", ["zeroshot", "coop"])[:2]
        flags["--backbones"] = ["emoji"]
        if head[1] in ("base-to-new", "few-shot"):
            flags["--data"] = [flags.get("--data", ["caltech101" if paper else "emoji-activities"])[-1]]
        else:
            targets = {
                "cross-dataset": ("caltech101", "emoji-travel"),
                "domain-generalization": ("my-drawings", "emoji-activities:openmoji"),
            }
            flags.setdefault("--source", ["my-images" if paper else "emoji-activities"])
            flags.setdefault("--targets", [targets[head[1]][0 if paper else 1]])
    return head + [word for flag, values in flags.items() for word in (flag, *values)]


def run(page: str, include: Callable[[str], bool] = lambda command: True) -> list[list[str]]:
    """Run a page's commands. Returns the arguments of each."""
    ran = [scaled_down(c) for _, block in blocks(ROOT / page, "sh") for c in commands(block) if include(c)]
    assert ran
    for arguments in ran:
        try:
            cli.main(arguments)
        except SystemExit as stop:
            assert not stop.code, f"{page}: gopro {shlex.join(arguments)} ended with {stop.code}"
    return ran


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the images that the pages name."""
    monkeypatch.chdir(tmp_path)
    cli.main(["data", "sample", "my-images"])
    shutil.copytree("my-images/crab", "images")
    shutil.copy("my-images/crab/01.webp", "IMAGE.jpg")
    return tmp_path


@pytest.fixture
def data(folder: Path, shared: Path) -> Path:
    """The folder `DATA`, with Caltech101 and another domain of `my-images`."""
    shutil.copytree("my-images", folder / "DATA" / "my-drawings")
    (folder / "DATA" / "caltech-101").symlink_to(shared / "datasets" / "caltech-101")
    return folder / "DATA"


@pytest.mark.slow
def test_readme(folder: Path) -> None:
    run("README.md")
    assert any(Path("sorted").rglob("*.webp"))


@pytest.mark.slow
def test_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPRO_CACHE", "cached")
    cli.main(["train", "--data", "my-images", "--backbone", "emoji", "--method", "zeroshot", "--output", "runs/cached"])
    cli.main(["eval", "runs/cached"])
    run("docs/cache.md")
    assert not any(Path("cached").rglob("*.safetensors"))  # the last command of the page deletes everything


@pytest.mark.slow
def test_add_a_dataset(folder: Path) -> None:
    run("docs/add-a-dataset.md")
    assert Path("runs/compare/results.jsonl").read_text().count("\n") == 4


@pytest.mark.slow
def test_domains(folder: Path) -> None:
    for domain in ("photo", "drawing", "sketch"):
        shutil.copytree("my-images", Path("my-domains", domain))
    shutil.rmtree("my-domains/sketch/crab")  # a domain may lack a class
    with pytest.warns(UserWarning, match="sketch has no images of crab; it is tested over all 10 classes"):
        ran = run("docs/domains.md")
    assert "my-domains/sketch" in ran[0]
    assert Path("runs/domains/report.html").is_file() and list(Path("runs/photo").glob("eval-drawing-*.json"))


@pytest.mark.slow
def test_benchmark(data: Path) -> None:
    [(_, sweep)] = blocks(ROOT / "docs" / "benchmark.md", "yaml")
    Path("sweep.yaml").write_text(sweep)
    ran = run("docs/benchmark.md", lambda command: "data prepare" not in command)  # the data are here
    assert len(ran) == 21
    for folder in ("emoji", "compare", "photo", "paper", "sweep"):
        assert Path("runs", folder, "report.html").is_file()


@pytest.mark.slow
def test_reproduce(data: Path) -> None:
    elsewhere = ("runs/paper", "data check")  # on the benchmark page, and in tests/cli/test_data.py
    run("docs/reproduce.md", lambda command: not any(words in command for words in elsewhere))
    assert Path("runs/check/report.html").is_file()


@pytest.mark.slow
@pytest.mark.no_cover  # see tests/inference/export/test_export.py
def test_export(folder: Path) -> None:
    run("docs/export.md", lambda command: "runs/activities" not in command)
    assert Path("exact.onnx").is_file() and Path("first-order.onnx").is_file()
