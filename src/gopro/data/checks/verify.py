"""Verification of a data set: every image is opened and compared with the others, and counts with the catalog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

from PIL import Image

from gopro.data.checks.duplicates import ListedImage, perceptual_hash, same_images, similar_images
from gopro.data.dataset import Dataset, ImageSource, SplitName
from gopro.data.images.heif import INSTALL_HEIF, HeifNotInstalled
from gopro.data.images.image_file import DEEP_SUFFIXES, ImageFile, grey_range
from gopro.data.images.levels import suggest_levels
from gopro.data.published.catalog import Benchmark, fingerprint
from gopro.errors import InputError, first_few

UNIFORM = 16
"""Largest difference between the values of an image, of 255, that counts as nearly uniform."""
BLACK = 32
"""An image whose values are all below this, of 255, counts as nearly black."""
_IGNORED_SHARE = 0.005
"""Share of the darkest and of the brightest values that may be noise, or a date printed on the image."""


@dataclass(frozen=True)
class Verification:
    """The result of `verify_dataset`.

    Attributes:
        data: name of the data set.
        classes: number of classes.
        counts: images in train, val and test.
        images: distinct images opened; a data set may use one in two splits.
        bytes: size of their files; 0 for images that are drawn.
        seconds: time that opening them took.
        problems: one line each, which begins with the path or the part of the data set.
        notes: what is worth a look but may be as it should; one line each.
    """

    data: str
    classes: int
    counts: tuple[int, int, int]
    images: int
    bytes: int
    seconds: float
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass
class _Opened:
    """Findings about one image."""

    digest: str | None = None
    phash: int | None = None
    bytes: int = 0
    problem: str | None = None
    needs_heif: bool = False
    flat: str | None = None
    grey_range: tuple[float, float] | None = None


def distinct_images(dataset: Dataset) -> list[ImageSource]:
    """List every image of the three splits once, in the order of the splits."""
    return list(dict.fromkeys(s.image for split in (dataset.train, dataset.val, dataset.test) for s in split))


def verify_dataset(
    dataset: Dataset,
    entry: Benchmark | None = None,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    *,
    published: bool = False,
) -> Verification:
    """Decode every image of a data set, look for copies and for images that show nothing, and check the counts.

    Args:
        entry: the benchmark that it should be, whose numbers of classes and images it must have.
        workers: threads, one per core by default. The decoders release Python's lock: on Caltech101 two threads are as
            fast as two processes, 1.8 times as fast as one.
        on_progress: called in this thread with the number of further images opened.
        published: the images are as others know them, so that copies and nearly uniform images are no problems but
            notes, and images that look alike are not looked for.
    """
    started = time.perf_counter()
    images = distinct_images(dataset)
    chunks = [images[i : i + 64] for i in range(0, len(images), 64)]
    problems = _benchmark_problems(dataset, entry) if entry else []
    problems += _empty_classes(dataset)
    opened: dict[ImageSource, _Opened] = {}
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            results = pool.map(lambda chunk: [_open(image, with_hash=not published) for image in chunk], chunks)
            for chunk, result in zip(chunks, results, strict=True):
                opened |= zip(chunk, result, strict=True)
                on_progress(len(chunk))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    problems += _heif_problems(opened)
    problems += [facts.problem for facts in opened.values() if facts.problem]
    doubtful = [f"{image.name}: {facts.flat}" for image, facts in opened.items() if facts.flat]
    listed = _listed(dataset, opened)
    doubtful += same_images(listed)
    notes = similar_images(listed) + _grey_notes(opened)
    problems, notes = (problems, doubtful + notes) if published else (problems + doubtful, notes)
    return Verification(
        data=dataset.name,
        classes=len(dataset.classnames),
        counts=(len(dataset.train), len(dataset.val), len(dataset.test)),
        images=len(images),
        bytes=sum(facts.bytes for facts in opened.values()),
        seconds=time.perf_counter() - started,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _open(image: ImageSource, *, with_hash: bool) -> _Opened:
    facts = _Opened()
    try:
        pixels = image.open()
        facts.digest, facts.flat = image.digest(), _flatness(pixels)
        if with_hash and not facts.flat:
            facts.phash = perceptual_hash(pixels)
    except HeifNotInstalled:
        facts.needs_heif = True
    except InputError as error:
        facts.problem = str(error)
    except (OSError, MemoryError) as error:
        facts.problem = f"{image.name}: cannot be opened ({error or type(error).__name__})"
    if isinstance(image, ImageFile):
        try:
            facts.bytes = image.path.stat().st_size
            if image.levels is None and image.path.name.lower().endswith(DEEP_SUFFIXES):
                facts.grey_range = grey_range(image.path)
        except (InputError, OSError, MemoryError):
            pass  # it is a problem already
    return facts


def _flatness(image: Image.Image) -> str | None:
    """Say that an RGB image is nearly uniform or nearly black; None for any other."""
    ranges = [_value_range(image.histogram()[256 * channel : 256 * channel + 256]) for channel in range(3)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    if max(high - low for low, high in ranges) <= UNIFORM:
        values = f"all values are {low}" if low == high else f"its values lie between {low} and {high}"
        return f"nearly uniform: {values} of 255"
    return f"nearly black: its values lie below {high + 1} of 255" if high < BLACK else None


def _value_range(histogram: Sequence[int]) -> tuple[int, int]:
    """Return the smallest and the largest of 256 values, without the ignored shares."""
    ignored, below = _IGNORED_SHARE * sum(histogram), 0
    low = high = None
    for value, count in enumerate(histogram):
        below += count
        if low is None and below > ignored:
            low = value
        if high is None and below >= sum(histogram) - ignored:
            high = value
    return low or 0, 255 if high is None else high


def _listed(dataset: Dataset, opened: dict[ImageSource, _Opened]) -> list[ListedImage]:
    listed: list[ListedImage] = []
    for part in get_args(SplitName):
        for sample in dataset.split(part):
            facts = opened[sample.image]
            if facts.digest is not None:
                name = dataset.classnames[sample.label] if dataset.classnames else ""
                listed.append(ListedImage(sample.image.name, part, name, facts.digest, facts.phash))
    return listed


def _heif_problems(opened: dict[ImageSource, _Opened]) -> list[str]:
    names = [image.name for image, facts in opened.items() if facts.needs_heif]
    return [f"{len(names)} HEIC images need pillow-heif: {INSTALL_HEIF}: {first_few(names)}"] if names else []


def _grey_notes(opened: dict[ImageSource, _Opened]) -> list[str]:
    """Suggest levels if images with more than 8 bits use a small part of their values."""
    ranges = [facts.grey_range for facts in opened.values() if facts.grey_range]
    if not ranges:
        return []
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    levels = suggest_levels(low, high)
    if levels is None:
        return []
    return [
        f"{len(ranges)} images have more than 8 bits per sample, with values from {low:g} to {high:g}; stretch them "
        f"with gopro train --levels {levels[0]:g} {levels[1]:g} (gopro data check takes --levels too)"
    ]


def _empty_classes(dataset: Dataset) -> list[str]:
    problems: list[str] = []
    for split in ("train", "test"):
        labels = {sample.label for sample in dataset.split(split)}
        problems += [
            f"{dataset.name}: class {name!r} has no images in {split}"
            for label, name in enumerate(dataset.classnames)
            if labels and label not in labels
        ]
    return problems


def _benchmark_problems(dataset: Dataset, entry: Benchmark) -> list[str]:
    problems: list[str] = []
    if len(dataset.classnames) != entry.classes:
        problems.append(f"{dataset.name}: {len(dataset.classnames)} classes, the benchmark has {entry.classes}")
    elif entry.names not in (None, fingerprint(dataset.classnames)):
        problems.append(f"{dataset.name}: the class names or their order are not CoOp's; restore {entry.split}")
    for split, expected in zip(("train", "val", "test"), entry.counts, strict=True):
        if len(dataset.split(split)) != expected:
            problems.append(
                f"{dataset.name}: {len(dataset.split(split))} images in {split}, the benchmark has {expected}"
            )
    return problems
