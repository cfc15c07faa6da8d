"""`gopro cache`: the size of the feature cache, and how to shrink it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gopro.cli.console import out
from gopro.cli.parameters import DEFAULTS
from gopro.errors import InputError

cache_app = App(name="cache", help="Show the size of the image feature cache, or prune it.", default_parameter=DEFAULTS)


@cache_app.default
def show_command() -> None:
    """Show the cached image features by backbone. All runs share them, and all can be computed again."""
    from rich.markup import escape
    from rich.table import Table

    from gopro.clip.features.prune import cached_backbones
    from gopro.clip.features.store import CACHE_VARIABLE

    folder = _folder()
    table = Table(box=None, pad_edge=False)
    for heading in ("backbone", "fingerprint"):
        table.add_column(heading, no_wrap=True)
    for heading in ("entries", "size", "last used"):
        table.add_column(heading, justify="right", no_wrap=True)
    stores = cached_backbones(folder)
    for store in stores:
        entries = sum(file.entries for file in store.files)
        used = _ago(max(file.used for file in store.files)) if store.files else ""
        table.add_row(escape(store.name), store.folder.name, f"{entries:,}", _size(store.size), used)
    if stores:
        out.print(table)
    total = _size(sum(store.size for store in stores))
    out.print_line(f"{total} in {folder}; set {CACHE_VARIABLE} to use another folder")


@cache_app.command(name="prune")
def prune_command(
    *,
    older_than: float | None = None,
    backbone: str | None = None,
    keep_gb: float | None = None,
    everything: Annotated[bool, Parameter(name="--all", negative=())] = False,
) -> None:
    """Delete cached image features. Safe while runs are in progress: they recompute what is missing.

    Parameters
    ----------
    older_than:
        Delete features not used for this many days.
    backbone:
        Delete only features of this backbone, given by its name or fingerprint in gopro cache.
    keep_gb:
        Delete the least recently used features until at most this many GB remain.
    everything:
        Delete all features, or with --backbone all features of that backbone.
    """
    from gopro.clip.features.prune import prune

    folder = _folder()
    files, size = prune(folder, backbone=backbone, older_than=older_than, keep_gb=keep_gb, everything=everything)
    out.print_line(f"deleted {files} {'file' if files == 1 else 'files'}, {_size(size)}, in {folder}")


def _folder() -> Path:
    from gopro.clip.features.store import CACHE_VARIABLE, cache_folder

    folder = cache_folder()
    if folder is None:
        raise InputError(f"{CACHE_VARIABLE} is off, so features are not cached; unset it to see the default cache")
    return folder


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _ago(timestamp: float) -> str:
    days = (time.time() - timestamp) / 86400
    return "today" if days < 0.5 else "a day ago" if days < 1.5 else f"{days:.0f} days ago"
