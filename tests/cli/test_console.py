"""The progress of a training, with and without a terminal."""

import io
import re
from collections.abc import Iterator

import pytest
import torch

from gopro.cli import console
from gopro.cli.console import Screen, print_epoch, steps
from gopro.training.progress import Epoch, Step

LOSSES = ("ce", "sem", "con", "kg", "image", "anchor")


def step(number: int, total: int) -> Step:
    terms = {"total": torch.tensor(4.3211), **dict.fromkeys(LOSSES, torch.tensor(0.7202))}
    return Step(number, total, 11, 1e-3, terms)


def screen(monkeypatch: pytest.MonkeyPatch, width: int, terminal: bool) -> io.StringIO:
    """Let the commands write to a terminal of this width, or to a file."""
    written = io.StringIO()
    monkeypatch.setattr(console, "err", Screen(file=written, width=width, force_terminal=terminal))
    return written


def lines(written: io.StringIO) -> Iterator[str]:
    yield from filter(str.strip, re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())))


@pytest.mark.parametrize(("width", "shown"), [(80, ["epoch 12"]), (200, ["epoch 12", "anchor 0.720", "lr 1.0e-03"])])
def test_a_bar_shows_count_time_left_and_total_loss_whole(
    width: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = screen(monkeypatch, width, terminal=True)
    with steps() as (on_step, _):
        for number in range(12341, 12352):
            on_step(step(number, 22000))
    bars = [line for line in lines(written) if "22000" in line]
    assert bars and all(len(line.rstrip()) <= width and "…" not in line for line in bars)
    assert re.search(r"━ +12351/22000 +[\d:-]+ +loss 4\.321", bars[-1])
    assert all(part in bars[-1] for part in shown)


def test_without_a_terminal_there_is_a_line_for_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    epochs = [
        Epoch(number, 3, [{"lr": 1e-3, "total": 2.0}, {"lr": 5e-4, "total": 1.0}], 60.0, 70.0) for number in (1, 2)
    ]
    written = screen(monkeypatch, 80, terminal=False)
    with steps() as (on_step, _):
        for number in (1, 2):
            on_step(step(number, 2))
        for epoch in epochs:
            print_epoch(epoch)
    assert list(lines(written)) == [
        "epoch 2 of 3: loss 1.5000, validation 70.00 %, lr 0.0005, about 30 s left",
        "epoch 3 of 3: loss 1.5000, validation 70.00 %, lr 0.0005",
    ]
    written = screen(monkeypatch, 80, terminal=True)
    print_epoch(epochs[0])
    assert not written.getvalue()


def test_lines_are_wrapped_between_words_in_a_terminal_alone() -> None:
    text = "my-images: 2 classes, no problems\n  on 168 images of /a/path/that/is/longer/than/a/line, --shots 4"
    assert Screen(file=io.StringIO(), width=24, force_terminal=False).wrapped(text) == text
    written = io.StringIO()
    Screen(file=written, width=24, force_terminal=True).print_line(text)
    assert written.getvalue().splitlines() == [
        "my-images: 2 classes, no",
        "problems",
        "  on 168 images of",
        "  /a/path/that/is/longer/than/a/line,",
        "  --shots 4",
    ]
