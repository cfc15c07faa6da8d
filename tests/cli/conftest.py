"""Commands run in this process, and runs and images to run them on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gopro import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gopro(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command and return its exit code and the texts it wrote to stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def coop_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "coop"
    settings = "--data emoji-activities --method coop --shots 1 --epochs 1 --batch 32 --workers 0 --classes base"
    cli.main(f"train {settings} --output {folder}".split())
    return folder


@pytest.fixture(scope="session")
def zeroshot_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "zeroshot"
    cli.main(f"train --data emoji-activities --method zeroshot --shots 1 --workers 0 --output {folder}".split())
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 60), (200, 120, 10)).save(tmp_path / "orange.png")
    return tmp_path / "orange.png"


@pytest.fixture
def two_classes(tmp_path: Path) -> Path:
    """A folder with two classes of six images each."""
    for c, name in enumerate(("red_things", "blue_things")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(6):
            colour = (200 - 180 * c, 20 + 5 * i, 20 + 180 * c)
            Image.new("RGB", (40, 40), colour).save(tmp_path / "mine" / name / f"{i}.png")
    return tmp_path / "mine"
