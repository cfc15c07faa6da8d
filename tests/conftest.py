"""Fixtures and options of all tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from gopro.clip.backbone import Backbone
from gopro.data.embedded.emoji import Scene
from gopro.data.images.transforms import Preprocess

settings.register_profile("gopro", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("gopro")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--trials", type=int, default=1, help="trials of each randomised test (make torture)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeat a test that takes `trial` `--trials` times; the test seeds `Random` with the trial."""
    if "trial" in metafunc.fixturenames:
        metafunc.parametrize("trial", range(metafunc.config.getoption("--trials")))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and reference files beside the repository; skip the test without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: it holds the real data this test runs on")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use an empty feature store, so that no test reads or fills the user's own."""
    # One path, since a session that also runs benchmarks/tests has this fixture twice.
    folder = tmp_path_factory.getbasetemp() / "feature-cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOPRO_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed torch, so that a failing test fails again in any order."""
    torch.manual_seed(0)


def make_tiny(layers: int = 2) -> Backbone:
    """Return a CLIP with random weights, small enough that a training step takes milliseconds."""
    vision = {"layers": layers, "width": 64, "patch_size": 8, "image_size": 32}
    text = {"layers": layers, "width": 64, "heads": 2, "context_length": 40}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(32, vision, text)
    preprocess = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Backbone("tiny", model, open_clip.SimpleTokenizer(), preprocess)


@pytest.fixture(scope="session")
def tiny() -> Backbone:
    return make_tiny()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the scenes that are opened."""
    names: list[str] = []
    plain = Scene.open
    monkeypatch.setattr(Scene, "open", lambda scene: names.append(scene.name) or plain(scene))
    return names


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start the machine's Chromium; skip the test without one.

    It closes after each file, because Playwright's event loop prevents later tests from running their own.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: no page is opened in a browser")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()
