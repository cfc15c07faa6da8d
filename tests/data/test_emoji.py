"""The embedded benchmark: what its sets hold, and that a scene is the same wherever and whenever it is drawn."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gopro.data.emoji import DEFAULT_STYLE, FOLDER, SEEN_STYLES, SETS, STYLES, all_emoji, drawings, emoji_dataset
from gopro.data.emoji_scenes import SIZE, compose, scene_rng
from gopro.errors import InputError
from tools.emoji_batches import Batches, Vocabulary
from tools.emoji_model import TEMPLATE, WEIGHTS, encode_text, normalised, read

DIGEST = """
import hashlib
from gopro.data.emoji import emoji_dataset
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
def test_a_set_has_its_classes_and_as_many_scenes_of_each(name, classes):
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
def test_every_drawing_shows_something_and_none_another_style_s(style):
    sheet = drawings(style)
    assert sheet.shape == (len(all_emoji()), SIZE, SIZE, 4)
    some = sheet[::13]
    assert (some[..., 3] > 127).sum(axis=(1, 2)).min() > 30
    others = [drawings(other)[::13] for other in STYLES if other != style]
    assert all((some != other).any(axis=(1, 2, 3)).all() for other in others)


def test_a_image_opens_as_rgb_and_is_the_same_each_time():
    data = emoji_dataset("emoji-animals:high-contrast")
    image = data.test[10 * data.classnames.index("polar bear") + 3].image
    assert image.name == "emoji-animals:high-contrast/polar-bear/test-3"
    first, second = image.open(), image.open()
    assert (first.mode, first.size) == ("RGB", (SIZE, SIZE))
    assert first.tobytes() == second.tobytes()


def test_scenes_are_the_same_in_another_process():
    data = emoji_dataset("emoji-food:openmoji")
    here = hashlib.sha256(b"".join(s.image.open().tobytes() for s in data.test[::130])).hexdigest()
    source = str(Path(__file__).parents[2] / "src")
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
def test_each_scene_has_a_stream_of_its_own(hexcode, style, index):
    def draws(*key):
        return scene_rng(*key).random(4).tolist()

    assert draws(hexcode, style, index) == draws(hexcode, style, index)
    assert draws(hexcode, style, index) != draws(hexcode, style, index + 1)
    assert draws(hexcode, style, index) != draws(hexcode + "-1", style, index)
    assert draws(hexcode, style, index) != draws(hexcode, style + "-1", index)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0, 40, 128, 215, 255]))
def test_a_drawing_stands_out_from_its_background(seed, level):
    """A square of one grey is found where its scene differs from the same scene without it."""
    square = np.zeros((SIZE, SIZE, 4), np.uint8)
    square[16:48, 16:48] = (level, level, level, 255)
    nothing = square.copy()
    nothing[..., 3] = 0
    nothing[31, 31, 3] = 1  # as good as transparent, of the same luminance
    seen = np.asarray(compose(square, np.random.default_rng(seed)), dtype=int)
    bare = np.asarray(compose(nothing, np.random.default_rng(seed)), dtype=int)
    apart = np.abs(seen - bare).max(axis=2) > 12
    assert 0.3 * 32 * 32 * 0.49 < apart.sum() < 1.3 * 32 * 32


def test_a_style_must_be_one_there_is():
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


def test_what_was_built_is_recorded_and_small():
    record = json.loads((FOLDER / "emoji.json").read_text(encoding="utf-8"))
    assert set(record["packages"]) == {*STYLES, "names"}
    assert all(len(package["sha256"]) == 64 for package in record["packages"].values())
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 8e6
    with Image.open(FOLDER / "noto.webp") as sheet:
        assert sheet.width == record["columns"] * SIZE


def test_a_batch_depends_on_its_number_alone_and_holds_distinct_emoji():
    images, tokens, places = Batches(1, 8, harden=1)[5]
    again = Batches(1, 8, harden=1)[5]
    assert all(torch.equal(a, b) for a, b in zip((images, tokens, places), again, strict=True))
    assert images.shape == (8, SIZE, SIZE, 3) and len(set(places.tolist())) == 8
    assert not torch.equal(images, Batches(1, 8, harden=1)[6][0])
    assert not torch.equal(images, Batches(2, 8, harden=1)[5][0])


def test_renumbered_tokens_keep_the_end_of_text_highest_and_cut_captions_ended():
    vocabulary = Vocabulary()
    texts = ["fox.", "a photo of a " + "fox " * 40]
    rows = vocabulary.encode(texts, longest=16)
    assert rows.shape == (2, 16)
    assert rows.argmax(dim=1).tolist() == [3, 15]
    assert torch.equal(torch.from_numpy(vocabulary.ids)[rows[0, :4]], vocabulary.tokenize(texts)[0, :4].long())


@pytest.mark.skipif(
    not hasattr(torch.optim, "Muon"), reason="the backbone is pretrained with Muon, which torch 2.9 has"
)
def test_pretraining_stops_on_time_goes_on_and_exports_what_it_learned(tmp_path):
    root = Path(__file__).parents[2]

    def command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tools.pretrain_emoji", *words, "--folder", str(tmp_path)],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        return done.stderr

    small = ("--ranks", "1", "--batch", "4", "--layers", "1", "--text-layers", "1", "--text-alone", "0.5")
    command("train", "--minutes", "0.01", *small)
    first = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    command("train", "--minutes", str(first["seconds"] / 60 + 0.01), *small)
    second = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert second["step"] > first["step"] > 0
    assert second["seconds"] > first["seconds"] >= 0.6
    command("export", "--out", str(tmp_path / "clip.safetensors"))
    model, vocabulary = read(tmp_path / "clip.safetensors"), Vocabulary()
    rows = model.token_embedding.weight.detach()
    learned = second["model"]["token_embedding.weight"].half().float()
    assert torch.equal(rows[torch.from_numpy(vocabulary.ids)], learned)
    assert torch.count_nonzero(rows.abs().sum(dim=1)) == len(vocabulary)


@torch.no_grad()
def test_the_shipped_model_reads_short_token_rows_exactly_and_knows_its_classes():
    model, data = read(WEIGHTS), emoji_dataset("emoji-activities:noto")
    tokens = Vocabulary().tokenize([TEMPLATE.format(name) for name in data.classnames])
    text = encode_text(model, tokens[:, :20])
    torch.testing.assert_close(text, model.encode_text(tokens, normalize=True))
    chosen = data.test[::10]
    images = torch.from_numpy(np.stack([np.asarray(s.image.open()) for s in chosen]))
    guess = (F.normalize(model.visual(normalised(images)), dim=-1) @ text.T).argmax(dim=1)
    # chance is 1 in 85
    assert (guess == torch.tensor([s.label for s in chosen])).float().mean() > 0.15
