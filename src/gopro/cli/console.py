"""What the commands share: where they print, their progress bars, and how a config becomes flags."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.segment import Segment

from gopro.errors import InputError
from gopro.training.loop import Step

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def shown(text: str) -> str:
    """Text from anywhere (class names, file names, what a server says) as a terminal may have it: what would move its
    cursor, change its colours or its title or turn the direction of writing is shown as a sign."""
    return _CONTROLS.sub(
        lambda found: chr(0x2400 + ord(found[0])) if found[0] < " " else "\N{REPLACEMENT CHARACTER}", text
    )


class Screen(Console):
    """A console that shows text by `shown`, its own colours apart."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)


out, err = Screen(), Screen(stderr=True)

DEFAULTS = Parameter(consume_multiple=True, negative_iterable=())
"""Of every command: a flag takes all the values behind it, and has no --empty- form."""
Flat = Parameter(name="*")
ConfigFile = Annotated[Path | None, Parameter(name="--config", help="YAML file of these settings; flags go over it.")]
"""Read by `main` before the command is parsed; here for the help."""


@contextmanager
def steps(shown: bool = True) -> Iterator[tuple[Callable[[Step], None], Callable[[int, int], None]]]:
    """A progress bar over training steps, with loss terms, learning rate and the time left; and one over the views of
    the bank before them."""
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
    )
    progress = Progress(*columns, console=err, transient=True, disable=not shown or not err.is_terminal)
    tasks: list[TaskID] = []

    def on_step(step: Step) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task("", total=step.steps))
        if step.step % 10 == 1:  # reading a loss waits for the device
            terms = "  ".join(f"{name} {value.item():.3f}" for name, value in step.terms.items())
            progress.update(tasks[0], description=f"epoch {step.epoch + 1}  {terms}  lr {step.lr:.1e}")
        progress.update(tasks[0], completed=step.step)
        if step.step == step.steps:
            end()

    def on_fill(done: int, total: int) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task("views encoded", total=total))
        progress.update(tasks[0], completed=done)
        if done == total:
            end()

    def end() -> None:
        progress.remove_task(tasks.pop())
        progress.stop()

    try:
        yield on_step, on_fill
    finally:
        if tasks:
            progress.stop()


@contextmanager
def bar(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar over `what`, with the time left if the total is known."""
    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    # What is printed meanwhile goes above the bar, but only from a terminal: rich would also take what goes elsewhere.
    progress = Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, redirect_stdout=out.is_terminal
    )
    with progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def plain_output() -> Iterator[None]:
    """For lines that programs read: on stdout each as it comes, in UTF-8, with file names as the bytes they are; and a
    quiet end where the reader has gone (`| head`)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=True)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends
        sys.exit(128 + 13)  # as a shell reports it of any program


def class_names(listed: str | None, file: Path | None) -> list[str] | None:
    """What --classes and --classes-file say, if anything. A --classes that ends with .txt is a file too."""
    if listed is not None and file is not None:
        raise InputError("--classes and --classes-file: choose one")
    if listed is not None and listed.lower().endswith(".txt"):
        listed, file = None, Path(listed)
    if listed is not None:
        names = listed.split(",")
    elif file is not None:
        try:
            names = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(f"class names {file} cannot be read: {reason}") from error
    else:
        return None
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise InputError(f"{'--classes' if file is None else f'class names {file}'}: no class names in it")
    return names
