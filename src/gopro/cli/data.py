"""`gopro data`: list, check and prepare data sets."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gopro.cli.console import bar, err, out
from gopro.cli.parameters import DEFAULTS, Root
from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.data.checks.verify import Verification
    from gopro.data.published.catalog import Benchmark

data_app = App(
    name="data",
    help="List, check and download data sets.",
    default_parameter=DEFAULTS,
)


@data_app.command(name="list")
def list_command(*, root: Root = None, sizes: Annotated[bool, Parameter(negative=())] = False) -> None:
    """List the known data sets, and with --root which of them are complete.

    Parameters
    ----------
    sizes:
        With --root: also show the disk space that each takes. This reads the size of every file.
    """
    from rich.markup import escape
    from rich.table import Table

    from gopro.data.embedded.emoji import DEFAULT_STYLE, SETS, STYLES, emoji_dataset
    from gopro.data.embedded.photos import PHOTOS, photos_dataset
    from gopro.data.load_dataset import BENCHMARKS
    from gopro.data.published.sources import PACS_SOURCE, SOURCES

    if sizes and root is None:
        raise InputError("--sizes needs --root FOLDER, the folder that contains the benchmark data sets")
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for heading in ("classes", "images", "download"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("licence of the images" if root is None else f"in {escape(str(root))}", overflow="fold")
    missing: list[str] = []
    for name, entry in BENCHMARKS.items():
        source = SOURCES.get(name, PACS_SOURCE)
        last = source.licence
        if root is not None:
            last, lines = _state(entry, root, sizes)
            missing += lines
        size = "?" if source.gigabytes is None else f"{source.gigabytes:.1f} GB"
        table.add_row(name, str(entry.classes), f"{sum(entry.counts):,}", size, last)
    for name in (PHOTOS, *SETS):
        dataset = photos_dataset() if name == PHOTOS else emoji_dataset(name)
        count = len(dataset.train) + len(dataset.val) + len(dataset.test)
        last = "CC BY 4.0" if name == PHOTOS else "see docs/emoji.md"
        if root is not None:
            last = "in the package"
        table.add_row(name, str(len(dataset.classnames)), f"{count:,}", "included", last)
    out.print(table)
    for line in missing:
        out.print_line(line)
    styles = ", ".join(f":{style}" for style in STYLES if style != DEFAULT_STYLE)
    out.print_line(f"The emoji sets are drawn as {DEFAULT_STYLE}. For another style add it to the name: {styles}.")
    if root is None:
        out.print_line("To see which are complete: gopro data list --root FOLDER")
        out.print_line("To download one: gopro data prepare NAME --root FOLDER")


def _state(entry: Benchmark, root: Path, sizes: bool) -> tuple[str, list[str]]:
    """Describe a benchmark below `root`, with a line for each missing path of an incomplete one."""
    home = entry.home(root)
    if not home.is_dir():
        return "absent", []
    size = f", {_disk_usage(home) / 1e9:.2f} GB" if sizes else ""
    if missing := entry.missing(root):
        return f"incomplete{size}", [f"{entry.name} lacks {path}" for path in missing]
    return f"complete{size}", []


def _disk_usage(folder: Path) -> int:
    """Sum the bytes of all files below `folder`; links to folders, as CoOp suggests for ImageNet, count once."""
    total, counted, waiting = 0, set[str](), [os.fspath(folder)]
    while waiting:
        real = os.path.realpath(waiting.pop())
        if real in counted:
            continue
        counted.add(real)
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
    root: Root = None,
    levels: tuple[float, float] | None = None,
    workers: int | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Open every image of a data set and report all problems at once. Nothing is written.

    These are files that are no images, images that cannot be read or show nothing, images that are in two parts or two
    classes, and classes without images. Benchmarks are also compared with the catalog. Prints one line per problem; the
    exit code is 1 if there are any, and 2 if there is no such data set.

    Parameters
    ----------
    name:
        Data set, as gopro train takes it.
    levels:
        Two values that images with more than 8 bits per sample show as black and white, as for gopro train.
    workers:
        Threads that open images. Default: one per core.
    json_output:
        Print one JSON object instead of text, also if there is no such data set.
    """
    from gopro.data.checks.check_dataset import load_for_check
    from gopro.data.checks.verify import Verification, distinct_images, verify_dataset
    from gopro.data.load_dataset import BENCHMARKS, is_packaged, joined_names

    try:
        if workers is not None and workers < 1:
            raise InputError(f"workers is {workers}: give at least 1")
        loaded = load_for_check(name, root, levels)
        entry = BENCHMARKS.get(name)
        with bar("images", len(distinct_images(loaded.dataset))) as advance:
            published = all(each in BENCHMARKS or is_packaged(each) for each in joined_names(name, root))
            result = verify_dataset(loaded.dataset, entry, workers, advance, published=published)
    except InputError as error:
        if not json_output:
            raise
        print(json.dumps(asdict(Verification(name, 0, (0, 0, 0), 0, 0, 0.0, (str(error),))), ensure_ascii=False))
        sys.exit(2)
    problems = (*loaded.problems, *result.problems)
    result = replace(result, problems=problems, notes=(*loaded.notes, *result.notes))
    if json_output:
        print(json.dumps(asdict(result), ensure_ascii=False))
    else:
        _print_verification(result)
    if problems:
        sys.exit(1)


def _print_verification(result: Verification) -> None:
    for problem in result.problems:
        out.print_line(problem)
    for note in result.notes:
        out.print_line(f"note: {note}")
    train, val, test = result.counts
    rate = f"{result.images / result.seconds:.0f} images/s, {result.bytes / result.seconds / 1e6:.0f} MB/s"
    out.print_line(
        f"{result.data}: {result.classes} classes, {train} train, {val} val, {test} test; "
        f"{result.images} images opened in {result.seconds:.1f} s ({rate}), "
        f"{len(result.problems) or 'no'} problem{'' if len(result.problems) == 1 else 's'}"
    )


@data_app.command(name="prepare")
def prepare_command(name: str, *, root: Path) -> None:
    """Download and unpack a benchmark data set. Run it again to resume an interrupted download.

    Parameters
    ----------
    name:
        Benchmark data set that gopro data list names.
    root:
        Folder in which to put the data set's folder.
    """
    from gopro.data.load_dataset import BENCHMARKS, is_packaged
    from gopro.data.published.prepare import Preparation
    from gopro.data.published.sources import PACS_SOURCE, SOURCES

    if name not in BENCHMARKS:
        reason = "comes with the package" if is_packaged(name) else "is not a benchmark data set"
        raise InputError(f"{name} {reason}; gopro data prepare downloads {', '.join(BENCHMARKS)}")
    with _transfer_bars() as progress:
        source = SOURCES.get(name, PACS_SOURCE)
        preparation = Preparation(BENCHMARKS[name], source, root.expanduser(), err.print_line, progress)
        prepared = preparation.run()
    home = BENCHMARKS[name].home(preparation.root)
    if not prepared:
        out.print_line(f"{name} is complete in {home}; nothing to do.")
        return
    content = ", ".join(sorted(path.name + ("/" if path.is_dir() else "") for path in home.iterdir()))
    out.print_line(f"{name} is in {home}: {content}")
    out.print_line(f"Next: gopro data check {name} --root {root}")


@data_app.command(name="sample")
def sample_command(folder: Path) -> None:
    """Write an example folder of photographs: ten animals, one subfolder per animal.

    Parameters
    ----------
    folder:
        New folder to write.
    """
    from gopro.data.embedded.example_folder import CLASSES, write_example_folder

    count = write_example_folder(folder)
    out.print_line(f"{count} images of {len(CLASSES)} classes in {folder}; from Caltech 101 (Li et al.), CC BY 4.0")
    out.print_line(f"Next: gopro train --data {folder} --shots 8 --output runs/mine")


@contextmanager
def _transfer_bars() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """Show a progress bar for one download or unpacking after another."""
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

        def begin(description: str) -> Callable[[int, int | None], None]:
            for task in progress.task_ids:
                progress.remove_task(task)
            if not err.is_terminal:
                err.print_line(description)
            task = progress.add_task(escape(description), total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin
