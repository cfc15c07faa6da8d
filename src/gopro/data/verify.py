"""Every image of a data set opened, and its make-up held against the catalog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gopro.data.catalog import Benchmark, fingerprint
from gopro.data.dataset import Dataset, ImageSource
from gopro.data.image_file import ImageFile
from gopro.errors import InputError


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        data: the data set's name.
        classes: how many it has.
        counts: images in train, val and test.
        images: different images that were opened; a data set may use one in two splits.
        bytes: of their files; 0 for those that are drawn.
        seconds: that opening them took.
        problems: one line each, with the path or part of the data set first.
    """

    data: str
    classes: int
    counts: tuple[int, int, int]
    images: int
    bytes: int
    seconds: float
    problems: tuple[str, ...]


def images(dataset: Dataset) -> list[ImageSource]:
    """Every image of the three splits, once, in the order of the splits."""
    return list(dict.fromkeys(s.image for part in (dataset.train, dataset.val, dataset.test) for s in part))


def check(
    dataset: Dataset,
    entry: Benchmark | None = None,
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Check:
    """Opens every image of a data set, fully decoded, and looks at its make-up.

    Args:
        entry: the benchmark that it is said to be, whose numbers of classes and images it must have.
        workers: threads, one for each core if not given. The decoders work outside Python's lock: on Caltech101 two
            threads are as fast as two processes, 1.8 times as fast as one.
        on_progress: called with how many more images are done, in this thread.
    """
    begun = time.perf_counter()
    found = images(dataset)
    chunks = [found[i : i + 64] for i in range(0, len(found), 64)]
    problems = _make_up(dataset, entry)
    size = 0
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        try:
            for chunk, (faults, read) in zip(chunks, pool.map(_open, chunks), strict=True):
                problems += faults
                size += read
                if on_progress is not None:
                    on_progress(len(chunk))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    counts = (len(dataset.train), len(dataset.val), len(dataset.test))
    seconds = time.perf_counter() - begun
    return Check(dataset.name, len(dataset.classnames), counts, len(found), size, seconds, tuple(problems))


def _open(chunk: Sequence[ImageSource]) -> tuple[list[str], int]:
    """Problems and bytes of some images."""
    problems, size = [], 0
    for image in chunk:
        try:
            image.open()
            if isinstance(image, ImageFile):
                size += image.path.stat().st_size
        except InputError as error:
            problems.append(str(error))
        except (OSError, MemoryError) as error:
            problems.append(f"{image.name}: cannot be opened ({error or type(error).__name__})")
    return problems, size


def _make_up(dataset: Dataset, entry: Benchmark | None) -> list[str]:
    problems = [] if entry is None else _against(dataset, entry)
    for part in ("train", "test"):
        there = {sample.label for sample in dataset.split(part)}
        problems += [
            f"{dataset.name}: class {name!r} has no images in {part}"
            for label, name in enumerate(dataset.classnames)
            if there and label not in there
        ]
    return problems


def _against(dataset: Dataset, entry: Benchmark) -> list[str]:
    problems: list[str] = []
    if len(dataset.classnames) != entry.classes:
        problems.append(f"{dataset.name}: {len(dataset.classnames)} classes, the benchmark has {entry.classes}")
    elif entry.names not in (None, fingerprint(dataset.classnames)):
        problems.append(f"{dataset.name}: the class names, or their order, are not CoOp's; restore {entry.split}")
    for part, expected in zip(("train", "val", "test"), entry.counts, strict=True):
        if len(dataset.split(part)) != expected:
            problems.append(
                f"{dataset.name}: {len(dataset.split(part))} images in {part}, the benchmark has {expected}"
            )
    return problems
