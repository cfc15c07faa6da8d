"""`gopro data`: which data sets there are, whether they are whole, and how to get them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gopro.cli.console import bar, err, out
from gopro.cli.parameters import DEFAULTS
from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.data.catalog import Benchmark

data_app = App(
    name="data",
    help="List, check and get data sets.",
    default_parameter=DEFAULTS,
)


@data_app.command(name="list")
def list_command(*, root: Path | None = None, sizes: Annotated[bool, Parameter(negative=())] = False) -> None:
    """The data sets that are known, and which of them are in place.

    Parameters
    ----------
    root:
        Directory that holds the benchmarks' folders.
    sizes:
        Also say how much disk each takes, which looks at every file.
    """
    from rich.markup import escape
    from rich.table import Table

    from gopro.data.catalog import CATALOG
    from gopro.data.emoji import DEFAULT_STYLE, SETS, STYLES, emoji_dataset
    from gopro.data.sources import SOURCES

    if sizes and root is None:
        raise InputError("--sizes: give --root, the directory that holds the benchmarks' folders")
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("classes", "images", "download"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence of the images" if root is None else f"in {escape(str(root))}", overflow="fold")
    incomplete: list[str] = []
    for name, entry in CATALOG.items():
        source = SOURCES[name]
        row = [
            name,
            str(entry.classes),
            str(sum(entry.counts)),
            "?" if source.gigabytes is None else f"{source.gigabytes:.1f} GB",
        ]
        if root is None:
            row.append(source.licence)
        else:
            state, lines = _state(entry, root, sizes)
            row.append(state)
            incomplete += lines
        table.add_row(*row)
    for name in SETS:
        dataset = emoji_dataset(name)
        count = len(dataset.train) + len(dataset.val) + len(dataset.test)
        last = "see docs/emoji.md" if root is None else "in the package"
        table.add_row(name, str(len(dataset.classnames)), str(count), "", last)
    out.print(table)
    for line in incomplete:
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    styles = ", ".join(f":{style}" for style in STYLES if style != DEFAULT_STYLE)
    notes = [f"The emoji sets come with the package; other styles: {styles}."]
    if root is None:
        notes += ["What is in place: gopro data list --root DIR", "To get one: gopro data prepare NAME --root DIR"]
    for note in notes:
        out.print(note, highlight=False, soft_wrap=True)


def _state(entry: Benchmark, root: Path, sizes: bool) -> tuple[str, list[str]]:
    """What the table says of a benchmark below `root`, and a line for each thing that an incomplete one lacks."""
    home = entry.home(root)
    if not home.is_dir():
        return "not there", []
    size = f", {_disk(home) / 1e9:.2f} GB" if sizes else ""
    if missing := entry.missing(root):
        return f"incomplete{size}", [f"{entry.name} lacks {path}" for path in missing]
    return f"complete{size}", []


def _disk(folder: Path) -> int:
    """Bytes of all files below `folder`; links to folders, as CoOp suggests for ImageNet, are followed once."""
    total, seen, waiting = 0, set[str](), [os.fspath(folder)]
    while waiting:
        real = os.path.realpath(waiting.pop())
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(real) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                elif entry.is_file():
                    total += entry.stat().st_size
    return total


@data_app.command(name="check")
def check_command(
    name: str,
    *,
    root: Path | None = None,
    workers: int | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Open every image of a data set, and hold its make-up against the catalog.

    Each problem is a line; the exit code is 1 if there is any.

    Parameters
    ----------
    name:
        Data set, as --data takes it: a benchmark, an embedded set or a folder.
    root:
        Directory that holds the benchmarks' folders.
    workers:
        Threads that open images; one a core if not given.
    json_output:
        One JSON object in place of the lines.
    """
    from rich.markup import escape

    from gopro.data.catalog import CATALOG
    from gopro.data.load_dataset import load_dataset
    from gopro.data.verify import check
    from gopro.data.verify import images as images_of

    if workers is not None and workers < 1:
        raise InputError(f"workers is {workers}: give at least 1")
    dataset = load_dataset(name, root)
    with bar("images", len(images_of(dataset))) as advance:
        found = check(dataset, CATALOG.get(name), workers, advance)
    if json_output:
        print(json.dumps(asdict(found), ensure_ascii=False))
    else:
        for problem in found.problems:
            out.print(problem, highlight=False, markup=False, soft_wrap=True)
        train, val, test = found.counts
        rate = f"{found.images / found.seconds:.0f} images/s, {found.bytes / found.seconds / 1e6:.0f} MB/s"
        out.print(
            f"{escape(found.data)}: {found.classes} classes, {train} train, {val} val, {test} test; "
            f"{found.images} images opened in {found.seconds:.1f} s ({rate}), "
            f"{len(found.problems) or 'no'} problem{'' if len(found.problems) == 1 else 's'}",
            highlight=False,
            soft_wrap=True,
        )
    if found.problems:
        sys.exit(1)


@data_app.command(name="prepare")
def prepare_command(name: str, *, root: Path) -> None:
    """Download a benchmark, unpack it and put it in place. Goes on where an earlier call was cut off.

    Parameters
    ----------
    name:
        Benchmark of the catalog.
    root:
        Directory that is to hold the benchmark's folder.
    """
    from rich.markup import escape

    from gopro.data.catalog import CATALOG
    from gopro.data.emoji import SETS
    from gopro.data.prepare import Preparation
    from gopro.data.sources import SOURCES

    if name not in CATALOG:
        known = ", ".join(CATALOG)
        built_in = "comes with the package" if name.partition(":")[0] in SETS else "is no benchmark"
        raise InputError(f"{name} {built_in}: gopro data prepare gets {known}")
    with _transferring() as progress:
        preparation = Preparation(
            CATALOG[name],
            SOURCES[name],
            root.expanduser(),
            say=lambda line: err.print(line, highlight=False, markup=False, soft_wrap=True),
            progress=progress,
        )
        fresh = preparation.run()
    home = CATALOG[name].home(preparation.root)
    if not fresh:
        out.print(f"{name} is complete in {escape(str(home))}; nothing to do.", highlight=False, soft_wrap=True)
        return
    held = ", ".join(sorted(path.name + ("/" if path.is_dir() else "") for path in home.iterdir()))
    out.print(f"{name} is in {escape(str(home))}: {escape(held)}", highlight=False, soft_wrap=True)
    out.print(f"Next: gopro data check {name} --root {escape(str(root))}", highlight=False, soft_wrap=True)


@data_app.command(name="sample")
def sample_command(folder: Path) -> None:
    """Write a small folder of images to try things on: ten animals, a folder each, out of the embedded benchmark.

    Parameters
    ----------
    folder:
        New folder to write.
    """
    from rich.markup import escape

    from gopro.data.example_folder import CLASSES, write_example_folder

    count = write_example_folder(folder)
    where = escape(str(folder))
    out.print(
        f"{count} images of {len(CLASSES)} classes in {where}; drawings: Twemoji, CC BY 4.0",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"Next: gopro train --data {where} --shots 8 --output runs/mine", highlight=False, soft_wrap=True)


@contextmanager
def _transferring() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """A progress bar for one download or unpacking after the other."""
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:

        def begin(what: str) -> Callable[[int, int | None], None]:
            for task in progress.task_ids:
                progress.remove_task(task)
            if not err.is_terminal:
                err.print(what, highlight=False, markup=False)
            task = progress.add_task(escape(what), total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin
