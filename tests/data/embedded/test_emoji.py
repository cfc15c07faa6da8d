"""The embedded emoji sets: their content, and scenes that are the same wherever and whenever they are drawn."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gopro.data.embedded.emoji import (
    DEFAULT_STYLE,
    FOLDER,
    SEEN_STYLES,
    SETS,
    STYLES,
    all_emoji,
    drawings,
    emoji_dataset,
)
from gopro.data.embedded.emoji_scenes import SIZE, compose, scene_rng
from gopro.errors import InputError

DIGEST = """
import hashlib
from gopro.data.embedded.emoji import emoji_dataset
data = emoji_dataset("emoji-food:openmoji")
print(hashlib.sha256(b"".join(s.image.open().tobytes() for s in data.test[::130])).hexdigest())
"""


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("emoji-animals", 158),
        ("emoji-food", 130),
        ("emoji-travel", 218),
        ("emoji-objects", 262),
        ("emoji-activities", 85),
    ],
)
def test_a_set_has_its_classes_and_the_same_number_of_scenes_of_each(name, classes):
    data = emoji_dataset(name)
    assert data.name == f"{name}:{DEFAULT_STYLE}"
    assert len(data.classnames) == classes == len(set(data.classnames))
    assert list(data.classnames) == sorted(data.classnames)
    for samples, each in ((data.train, 32), (data.val, 8), (data.test, 10)):
        assert np.bincount([s.label for s in samples]).tolist() == [each] * classes
        assert all(s.image.emoji.name == data.classnames[s.label] for s in samples)


def test_no_class_is_in_two_sets():
    names = [name for which in SETS for name in emoji_dataset(which).classnames]
    assert len(names) == len(set(names))


def test_splits_share_no_scene_and_no_image():
    data = emoji_dataset("emoji-activities")
    chosen = [s.image for s in (*data.train, *data.val, *data.test) if s.label == 7]
    assert len({image.index for image in chosen}) == 50 == len({image.name for image in chosen})
    assert len({image.open().tobytes() for image in chosen}) == 50


@pytest.mark.parametrize("style", STYLES)
def test_every_drawing_shows_something_and_differs_between_styles(style):
    sheet = drawings(style)
    assert sheet.shape == (len(all_emoji()), SIZE, SIZE, 4)
    some = sheet[::13]
    assert (some[..., 3] > 127).sum(axis=(1, 2)).min() > 30
    others = [drawings(other)[::13] for other in STYLES if other != style]
    assert all((some != other).any(axis=(1, 2, 3)).all() for other in others)


def test_an_image_opens_as_rgb_and_is_the_same_each_time():
    data = emoji_dataset("emoji-animals:high-contrast")
    image = data.test[10 * data.classnames.index("polar bear") + 3].image
    assert image.name == "emoji-animals:high-contrast/polar-bear/test-3"
    first, second = image.open(), image.open()
    assert (first.mode, first.size) == ("RGB", (SIZE, SIZE))
    assert first.tobytes() == second.tobytes()


def test_scenes_are_the_same_in_another_process():
    data = emoji_dataset("emoji-food:openmoji")
    here = hashlib.sha256(b"".join(s.image.open().tobytes() for s in data.test[::130])).hexdigest()
    source = str(Path(__file__).parents[3] / "src")
    there = subprocess.run(
        [sys.executable, "-c", DIGEST],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "7"},
    )
    assert there.stdout.strip() == here


@settings(max_examples=30)
@given(st.sampled_from(["1F98A", "1F431"]), st.sampled_from(STYLES), st.integers(0, 49))
def test_each_scene_has_its_own_random_stream(hexcode, style, index):
    def draws(*key):
        return scene_rng(*key).random(4).tolist()

    assert draws(hexcode, style, index) == draws(hexcode, style, index)
    assert draws(hexcode, style, index) != draws(hexcode, style, index + 1)
    assert draws(hexcode, style, index) != draws(hexcode + "-1", style, index)
    assert draws(hexcode, style, index) != draws(hexcode, style + "-1", index)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0, 40, 128, 215, 255]))
def test_a_drawing_stands_out_from_its_background(seed, level):
    """Find a grey square as the difference between its scene and the same scene without it."""
    square = np.zeros((SIZE, SIZE, 4), np.uint8)
    square[16:48, 16:48] = (level, level, level, 255)
    nothing = square.copy()
    nothing[..., 3] = 0
    nothing[31, 31, 3] = 1  # practically transparent, with the same luminance
    scene = np.asarray(compose(square, np.random.default_rng(seed)), dtype=int)
    bare = np.asarray(compose(nothing, np.random.default_rng(seed)), dtype=int)
    apart = np.abs(scene - bare).max(axis=2) > 12
    assert 0.3 * 32 * 32 * 0.49 < apart.sum() < 1.3 * 32 * 32


def test_unknown_styles_and_sets_are_refused():
    with pytest.raises(InputError, match=r"emoji-food:blob.*noto, fluent, openmoji, twemoji, high-contrast"):
        emoji_dataset("emoji-food:blob")
    with pytest.raises(InputError, match="no style ''"):
        emoji_dataset("emoji-food:")
    with pytest.raises(InputError, match=r"'emoji-flags'.*emoji-animals"):
        emoji_dataset("emoji-flags")
    assert set(SEEN_STYLES) < set(STYLES) and DEFAULT_STYLE not in SEEN_STYLES


def test_every_sheet_is_attributed_with_its_licence():
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    licences = sorted(path.name for path in FOLDER.glob("LICENSE-*"))
    assert len(licences) == 5
    for file in (*FOLDER.glob("*.webp"), FOLDER / "emoji.json"):
        assert f"`{file.name}`" in text
    for licence in licences:
        assert f"({licence})" in text and (FOLDER / licence).stat().st_size > 1000


def test_the_assets_are_small_and_record_their_packages():
    record = json.loads((FOLDER / "emoji.json").read_text(encoding="utf-8"))
    assert set(record["packages"]) == {*STYLES, "names"}
    assert all(len(package["sha256"]) == 64 for package in record["packages"].values())
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6
    with Image.open(FOLDER / "noto.webp") as sheet:
        assert sheet.width == record["columns"] * SIZE
