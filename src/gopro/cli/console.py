"""Output of the commands: the two consoles, progress bars, and lines for other programs."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

if TYPE_CHECKING:
    from rich.progress import TaskID

    from gopro.training.progress import Epoch, Step

BAR_WIDTH = 24
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Replace the control characters in `text` by visible signs.

    Class names, file names and server messages come from strangers: they must not move the terminal's cursor, change
    its colours or title, or reverse the direction of writing.
    """
    return _CONTROLS.sub(
        lambda match: chr(0x2400 + ord(match[0])) if match[0] < " " else "\N{REPLACEMENT CHARACTER}", text
    )


class Screen(Console):
    """A console that prints text by `printable`, apart from the colours it adds itself."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def print_line(self, text: str, style: str | None = None) -> None:
        """Print `text` as it is: brackets are no markup. In a terminal, long lines are wrapped between words."""
        self.print(self.wrapped(text), style=style, markup=False, highlight=False, soft_wrap=True)

    def wrapped(self, text: str) -> str:
        """Wrap `text` between words if this is a terminal. A word that is too long, such as a path, stays whole."""
        if not self.is_terminal:
            return text
        lines = []
        for line in text.split("\n"):
            indent = " " * (len(line) - len(line.lstrip(" ")))
            wrapped = textwrap.wrap(
                line, self.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
            )
            lines += wrapped or [""]
        return "\n".join(lines)


out, err = Screen(), Screen(stderr=True)


@contextmanager
def steps(visible: bool = True) -> Iterator[tuple[Callable[[Step], None], Callable[[int, int], None]]]:
    """Show training steps as a progress bar with time left and losses, as many as the terminal has room for.

    Yields `on_step` and `on_fill`; the latter shows how many views are encoded before the first step.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(bar_width=BAR_WIDTH),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
    )
    progress = Progress(*columns, console=err, transient=True, disable=not visible or not err.is_terminal)
    tasks: list[TaskID] = []

    def on_step(step: Step) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task("", total=step.steps))
        if step.step % 10 == 1:  # reading a loss waits for the device
            room = err.width - BAR_WIDTH - len(f" {step.steps}/{step.steps} 0:00:00 ")
            progress.update(tasks[0], description=step_in_words(step, room))
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


def step_in_words(step: Step, room: int) -> str:
    """Return total loss, epoch, the single losses and learning rate of a step, as many of them as fit into `room`."""
    losses = {name: value.item() for name, value in step.terms.items()}
    parts = [f"loss {losses.pop('total'):.3f}", f"epoch {step.epoch + 1}"]
    parts += [*(f"{name} {value:.3f}" for name, value in losses.items()), f"lr {step.lr:.1e}"]
    while len(parts) > 1 and len("  ".join(parts)) > room:
        parts.pop()
    return "  ".join(parts)


def print_epoch(epoch: Epoch) -> None:
    """Print a line for an epoch where there is no terminal that shows a progress bar."""
    if not err.is_terminal:
        val = "" if epoch.val is None else f", validation {epoch.val:.2f} %"
        lr = epoch.batches[-1]["lr"]
        left = f", {duration(epoch.seconds_left)} left" if epoch.epoch + 1 < epoch.epochs else ""
        err.print_line(f"epoch {epoch.epoch + 1} of {epoch.epochs}: loss {epoch.loss:.4f}{val}, lr {lr:.2g}{left}")


def duration(seconds: float) -> str:
    """Round a duration for a reader: `about 5 min`."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"about {max(1, round(seconds / size))} {unit}"
    return f"about {seconds / 86400:.0f} days"


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar, with the time left if `total` is known. Yields a function that advances it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    # Lines printed meanwhile go above the bar if stdout is a terminal; redirected output must not pass through rich.
    progress = Progress(
        *columns, console=err, transient=True, disable=not err.is_terminal, redirect_stdout=out.is_terminal
    )
    with progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print lines that other programs read: each at once, in UTF-8, file names as the bytes they are.

    Exits quietly when the reader has closed the pipe, as in `gopro predict ... | head`.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape", line_buffering=True)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it exits
        sys.exit(128 + 13)  # the exit code that a shell reports for any program killed by SIGPIPE
