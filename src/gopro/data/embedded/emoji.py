"""The embedded benchmark: five sets of emoji in five drawing styles, drawn into scenes. See docs/emoji.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.embedded.emoji_scenes import SCENE_VERSION, SIZE, compose, scene_rng
from gopro.errors import InputError

FOLDER = Path(__file__).parents[2] / "assets" / "emoji"
SETS = {  # data set -> group of emojibase
    "emoji-animals": "animals-nature",
    "emoji-food": "food-drink",
    "emoji-travel": "travel-places",
    "emoji-objects": "objects",
    "emoji-activities": "activities",
}
STYLES = ("noto", "fluent", "openmoji", "twemoji", "high-contrast")
SEEN_STYLES = ("noto", "fluent", "openmoji")  # those that assets/emoji-clip.safetensors was pretrained on
DEFAULT_STYLE = "twemoji"
SCENE_CROP = 0.5  # a smaller part of so small an image often shows only background
SCENES: dict[SplitName, range] = {"train": range(32), "val": range(32, 40), "test": range(40, 50)}  # scene indices


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji: its place in the sprite sheets, its code points, English name, tags and group."""

    place: int
    hexcode: str
    name: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One image of the benchmark, drawn when it is opened: an `ImageSource`."""

    name: str
    emoji: Emoji
    style: str
    index: int

    def open(self) -> Image.Image:
        """Draw the scene, RGB, 64 x 64."""
        return compose(drawings(self.style)[self.emoji.place], scene_rng(self.emoji.hexcode, self.style, self.index))

    def digest(self) -> str:
        """Hash everything that the scene is drawn from."""
        description = f"{SCENE_VERSION}/{self.emoji.hexcode}/{self.style}/{self.index}".encode()
        drawing = drawings(self.style)[self.emoji.place]
        return hashlib.blake2b(description + drawing.tobytes(), digest_size=16).hexdigest()


@cache
def all_emoji() -> tuple[Emoji, ...]:
    """List every emoji that exists in all styles, in Unicode's order."""
    record = json.loads((FOLDER / "emoji.json").read_text(encoding="utf-8"))
    return tuple(
        Emoji(place, e["hexcode"], e["name"], tuple(e["tags"]), e["group"], e["subgroup"])
        for place, e in enumerate(record["emoji"])
    )


@cache
def drawings(style: str) -> UInt8[np.ndarray, "emoji 64 64 4"]:
    """Read all drawings of a style, RGBA, in the order of `all_emoji`. The array is read-only."""
    with Image.open(FOLDER / f"{style}.webp") as sheet:
        pixels = np.asarray(sheet.convert("RGBA"))
    rows, columns = pixels.shape[0] // SIZE, pixels.shape[1] // SIZE
    tiles = pixels.reshape(rows, SIZE, columns, SIZE, 4).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 4)
    tiles = tiles[: len(all_emoji())]
    tiles.flags.writeable = False
    return tiles


def emoji_dataset(name: str) -> Dataset:
    """Load a set of the embedded benchmark: `emoji-animals`, or `emoji-animals:noto` for a style other than twemoji.

    Classes are the names of emojibase, sorted; each has 32 train, 8 val and 10 test scenes. Random views show at least
    half of a scene.

    Raises:
        InputError: no such set or style.
    """
    which, _, style = name.partition(":")
    if which not in SETS:
        raise InputError(f"data set {name!r}: choose one of {', '.join(SETS)}")
    if ":" not in name:
        style = DEFAULT_STYLE
    if style not in STYLES:
        raise InputError(f"data set {name!r}: no style {style!r}; choose one of {', '.join(STYLES)}")
    full_name = f"{which}:{style}"
    members = sorted((emoji for emoji in all_emoji() if emoji.group == SETS[which]), key=lambda emoji: emoji.name)

    def samples(split: SplitName) -> tuple[Sample, ...]:
        return tuple(
            Sample(Scene(f"{full_name}/{emoji.name.replace(' ', '-')}/{split}-{number}", emoji, style, index), label)
            for label, emoji in enumerate(members)
            for number, index in enumerate(SCENES[split])
        )

    classnames = tuple(emoji.name for emoji in members)
    return Dataset(full_name, classnames, samples("train"), samples("val"), samples("test"), crop=SCENE_CROP)
