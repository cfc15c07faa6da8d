"""What `gopro data check` finds in images: copies, and images that show nothing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gopro.data.checks.check_dataset import load_for_check
from gopro.data.checks.verify import Verification, verify_dataset
from gopro.data.dataset import Dataset
from gopro.data.images import heif
from gopro.data.images.levels import suggest_levels
from gopro.data.load_dataset import load_dataset
from tests.support.images import blotches


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four images, no two alike."""
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(4):
            blotches(seed=4 * number + i).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path / "own"


def check(root: Path, **settings) -> Verification:
    return verify_dataset(load_dataset(str(root), **settings), workers=1)


def test_different_images_give_no_problem(root: Path):
    result = check(root)
    assert result.problems == result.notes == () and result.images == 8


def test_copies_across_parts_and_classes_are_problems(root: Path):
    for name in ("train", "test"):
        (root / name).mkdir()
    (root / "cat").rename(root / "train" / "cat")
    (root / "dog").rename(root / "train" / "dog")
    for path in ("test/cat/a.png", "test/dog/b.png", "train/dog/c.png"):
        (root / path).parent.mkdir(exist_ok=True)
    (root / "test/cat/a.png").write_bytes((root / "train/cat/0.png").read_bytes())
    (root / "train/dog/c.png").write_bytes((root / "train/cat/1.png").read_bytes())
    Image.open(root / "train/dog/2.png").reduce(2).save(root / "test/dog/b.png")
    result = check(root)
    assert sorted(result.problems) == [
        f"{root}/test/cat/a.png: the same image as {root}/train/cat/0.png (train and test)",
        f"{root}/train/dog/c.png: the same image as {root}/train/cat/1.png (classes cat and dog)",
    ]
    assert result.notes == (f"{root}/test/dog/b.png: looks like {root}/train/dog/2.png (train and test)",)
    published = verify_dataset(load_dataset(str(root)), workers=1, published=True)
    assert published.problems == () and sorted(published.notes) == sorted(result.problems)


def test_images_that_show_nothing_are_named(root: Path):
    pixels = np.full((60, 90, 3), (10, 200, 90), np.uint8)
    pixels[::2] += 12
    pixels[:2, :10] = 255  # 20 of 5400 pixels: noise
    Image.fromarray(pixels).save(root / "cat" / "0.png")
    Image.eval(blotches(), lambda value: value // 8).save(root / "cat" / "1.png")
    Image.new("RGB", (9, 9), "white").save(root / "cat" / "2.png")
    assert sorted(check(root).problems) == [
        f"{root}/cat/0.png: nearly uniform: its values lie between 10 and 212 of 255",
        f"{root}/cat/1.png: nearly black: its values lie below 30 of 255",
        f"{root}/cat/2.png: nearly uniform: all values are 255 of 255",
    ]


def test_twelve_bits_in_sixteen_are_noticed_and_stretched(root: Path):
    for path in sorted(root.glob("*/*.png")):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    result = check(root)
    assert len(result.problems) == 8 and all("nearly uniform" in problem for problem in result.problems)
    assert len(result.notes) == 1 and "8 images have more than 8 bits per sample" in result.notes[0]
    assert "gopro train --levels 0 4095" in result.notes[0]
    assert check(root, levels=(0, 4095)).problems == check(root, levels=(0, 4095)).notes == ()


@pytest.mark.parametrize("bits", range(9, 16))
def test_levels_fit_the_bits(bits: int):
    assert suggest_levels(0, 2**bits - 1) == (0, 2**bits - 1)
    assert suggest_levels(3, 2 ** (bits - 1)) == (0, 2**bits - 1)


def test_levels_of_other_ranges():
    assert suggest_levels(0, 65535) is None and suggest_levels(7, 7) is None
    assert suggest_levels(0, 0.5) == (0, 0.5) and suggest_levels(-1000, 3000) == (-1000, 3000)


def test_heic_without_the_plugin_is_one_problem(root: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(5):
        content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes([i] * 100)
        (root / "cat" / f"IMG_{i}.HEIC").write_bytes(content)
    monkeypatch.setattr(heif, "reads_heif", lambda: False)
    [problem] = verify_dataset(load_for_check(str(root)).dataset, workers=1).problems
    assert problem.startswith("5 HEIC images need pillow-heif: pip install '.[heif]'") and "IMG_0.HEIC" in problem
    assert problem.endswith("and 2 more")


def test_a_data_set_without_images_is_checked():
    assert verify_dataset(Dataset("none", (), (), (), ())).images == 0
