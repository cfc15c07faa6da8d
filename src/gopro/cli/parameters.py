"""Arguments that several commands share, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gopro.errors import InputError

DEFAULTS = Parameter(consume_multiple=True, negative_iterable=())
"""For every command: a flag takes all the values that follow it, and has no `--empty-` form."""

Flat = Parameter(name="*")
"""Makes a flag of each field of a settings dataclass."""

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config", help="YAML file of options, one per line, as in shots: 8. The command line takes precedence."
    ),
]
"""Declared for the help; `gopro.cli.main` reads the file before it parses the command."""

RunName = Annotated[str, Parameter(help="Folder of a trained run, or its ORG/NAME[@REVISION] on the Hugging Face Hub.")]
Root = Annotated[
    Path | None, Parameter(help="Folder that contains the benchmark data sets, in CoOp's layout (docs/datasets.md).")
]
Classes = Annotated[
    str | None,
    Parameter(
        help="Class names to choose from, separated by commas, or a .txt file with one per line. Any names will do. "
        "Default: the classes the run was trained on."
    ),
]
ClassesFile = Annotated[Path | None, Parameter(help="File of class names, one per line, instead of --classes.")]
ReaderProcesses = Annotated[int, Parameter(help="Processes that read images; with 0 this process does.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Device to run on; auto uses a GPU if there is one.")]


def class_names(listed: str | None, file: Path | None) -> list[str] | None:
    """Return the names that `--classes` and `--classes-file` give, None if neither is used.

    Raises:
        InputError: both are used, the file cannot be read, or there is no name.
    """
    if listed is not None and file is not None:
        raise InputError("--classes and --classes-file: give one of them")
    if listed is not None and listed.lower().endswith(".txt"):
        listed, file = None, Path(listed)
    if listed is not None:
        names = listed.split(",")
    elif file is not None:
        try:
            names = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InputError(f"cannot read class names from {file}: {reason}") from error
    else:
        return None
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise InputError(f"{'--classes' if file is None else file}: no class names; give at least two")
    return names
