"""Build src/gopro/assets/photos: some photographs of Caltech101 as small WebP files.

    python -m tools.build_photos FOLDER

FOLDER is Caltech101 with CoOp's split file, as `gopro data prepare caltech101` leaves it. An image keeps its split and
its file name. The same version of libwebp, which comes with Pillow, gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gopro.data.dataset import SplitName
from gopro.data.images.image_file import decode
from gopro.data.splits import Entries, read_entries

ASSETS = Path(__file__).parents[1] / "src" / "gopro" / "assets" / "photos"
IMAGES, SPLIT_FILE = "101_ObjectCategories", "split_zhou_Caltech101.json"
SEED = 1
COUNTS: dict[SplitName, int] = {"train": 8, "val": 4, "test": 10}  # images per class
SHORT_SIDE = 224  # pixels; smaller images are kept as they are
QUALITY = 70
LIBWEBP = "1.6.0"  # of the files in the repository
# Caltech101's name -> class name. Left out: classes of which many images show a person, or were turned by Caltech101;
# names that few people know; weapons, religious symbols and characters of films and comics.
CLASSES = {
    "bonsai": "bonsai",
    "butterfly": "butterfly",
    "camera": "camera",
    "chandelier": "chandelier",
    "crab": "crab",
    "cup": "cup",
    "dalmatian": "dalmatian",
    "dolphin": "dolphin",
    "dragonfly": "dragonfly",
    "elephant": "elephant",
    "ferry": "ferry",
    "flamingo": "flamingo",
    "gramophone": "gramophone",
    "grand_piano": "grand piano",
    "hedgehog": "hedgehog",
    "kangaroo": "kangaroo",
    "lamp": "lamp",
    "laptop": "laptop",
    "llama": "llama",
    "lobster": "lobster",
    "pigeon": "pigeon",
    "pizza": "pizza",
    "rhino": "rhinoceros",
    "rooster": "rooster",
    "scorpion": "scorpion",
    "sea_horse": "seahorse",
    "starfish": "starfish",
    "sunflower": "sunflower",
    "umbrella": "umbrella",
    "water_lilly": "water lily",
}
# Images of people whom somebody could recognise, covers of books and records, and one with a notice of copyright.
EXCLUDED = {
    "bonsai/image_0093.jpg",
    "dalmatian/image_0002.jpg",
    "dalmatian/image_0003.jpg",
    "elephant/image_0022.jpg",
    "elephant/image_0046.jpg",
    "ferry/image_0001.jpg",
    "gramophone/image_0010.jpg",
    "gramophone/image_0041.jpg",
    "lamp/image_0034.jpg",
    "llama/image_0025.jpg",
    "umbrella/image_0075.jpg",
}
ALIKE = 10  # mean difference of two thumbnails, in grey levels of 256, below which they show the same photograph


def choose(images: Path, entries: Entries) -> Iterator[tuple[SplitName, str, Path]]:
    """Yield the split, class name and file of each image to take.

    The draw of a class depends on its own images alone. A photograph that Caltech101 has twice, perhaps mirrored or in
    two splits, is taken once.
    """
    for folder, name in CLASSES.items():
        taken: list[np.ndarray] = []
        for split, count in COUNTS.items():
            paths = sorted(path for path, _, original in entries[split] if original == folder)
            random.Random(f"{SEED}/{split}/{folder}").shuffle(paths)
            chosen = []
            for path in paths:
                grey = thumbnail(images / path)
                if path not in EXCLUDED and not any(same(grey, other) for other in taken):
                    taken.append(grey)
                    chosen.append((split, name, images / path))
                if len(chosen) == count:
                    break
            else:
                raise SystemExit(f"{images / folder}: only {len(chosen)} different images in {split}, not {count}")
            yield from chosen


def thumbnail(file: Path) -> np.ndarray:
    """Return the image in 16 x 16 grey pixels."""
    return np.asarray(decode(file, str(file)).convert("L").resize((16, 16), Image.Resampling.BOX), dtype=np.float32)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two thumbnails show the same photograph, perhaps mirrored."""
    return min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean()) < ALIKE


def compress(file: Path) -> bytes:
    """Return an image as it is packaged."""
    image = decode(file, str(file))
    scale = SHORT_SIDE / min(image.size)
    if scale < 1:
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=QUALITY, method=6)
    return content.getvalue()


def build(source: Path, target: Path) -> int:
    """Write the files to `target`, replacing those of an earlier build. Returns their size in bytes."""
    total = 0
    for split in COUNTS:
        shutil.rmtree(target / split, ignore_errors=True)
    for split, name, file in choose(source / IMAGES, read_entries(source / SPLIT_FILE)):
        folder = target / split / name.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        content = compress(file)
        (folder / f"{file.stem}.webp").write_bytes(content)
        total += len(content)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    size = build(parser.parse_args().folder, ASSETS)
    print(f"{len(CLASSES)} classes, {len(CLASSES) * sum(COUNTS.values())} images, {size / 1e6:.2f} MB")
