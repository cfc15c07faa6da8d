"""`gopro cache`: what the feature store holds, and making room."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.markup import escape
from rich.table import Table

from gopro.cli.console import DEFAULTS, out
from gopro.clip.feature_store import ENVIRONMENT, cache_folder
from gopro.clip.prune_feature_store import DAY, kept, prune
from gopro.errors import InputError

cache_app = App(name="cache", help="Show and prune what is kept of images.", default_parameter=DEFAULTS)


@cache_app.default
def show_command() -> None:
    """What is kept of images, by backbone: features that runs share, all of which can be made anew."""
    folder = _folder()
    table = Table(box=None, pad_edge=False)
    for heading in ("backbone", "fingerprint"):
        table.add_column(heading, no_wrap=True)
    for heading in ("entries", "size", "last use"):
        table.add_column(heading, justify="right", no_wrap=True)
    there = kept(folder)
    for k in there:
        entries = sum(file.entries for file in k.files)
        used = _ago(max(file.used for file in k.files)) if k.files else ""
        table.add_row(escape(k.backbone), k.folder.name, f"{entries:,}", _size(k.size), used)
    if there:
        out.print(table)
    total = _size(sum(k.size for k in there))
    out.print(f"{total} in {escape(str(folder))}; {ENVIRONMENT} names another folder", highlight=False, soft_wrap=True)


@cache_app.command(name="prune")
def prune_command(
    *,
    older_than: float | None = None,
    backbone: str | None = None,
    keep_gb: float | None = None,
    everything: Annotated[bool, Parameter(name="--all", negative=())] = False,
) -> None:
    """Delete what is kept of images. Runs that are at work go on, and what they miss later is made anew.

    Parameters
    ----------
    older_than:
        What was not used for so many days.
    backbone:
        Only of this backbone, by name or fingerprint.
    keep_gb:
        As much, the longest unused first, as it takes for the rest to fit into so many GB.
    everything:
        All of it.
    """
    folder = _folder()
    files, size = prune(folder, backbone=backbone, older_than=older_than, keep_gb=keep_gb, everything=everything)
    what = f"{files} file{'' if files == 1 else 's'}"
    out.print(f"deleted {what}, {_size(size)}, in {escape(str(folder))}", highlight=False, soft_wrap=True)


def _folder() -> Path:
    folder = cache_folder()
    if folder is None:
        raise InputError(f"{ENVIRONMENT} is off: nothing is kept; unset it to see what was kept before")
    return folder


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _ago(when: float) -> str:
    days = (time.time() - when) / DAY
    if days < 1:
        return "today" if days < 0.5 else "a day ago"
    return f"{days:.0f} days ago"
