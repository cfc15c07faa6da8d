"""Arguments that several commands share, each with its help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gopro.data.class_names import NAME_FILES, clean_names, parse_names, read_names
from gopro.errors import InputError

DEFAULTS = Parameter(consume_multiple=True, negative_iterable=())
"""For every command: a flag takes all the values that follow it, and has no `--empty-` form."""

Flat = Parameter(name="*")
"""Makes a flag of each field of a settings dataclass."""

ConfigFile = Annotated[
    Path | None,
    Parameter(
        name="--config",
        help="YAML file of options, one per line, as in shots: 8, or the config.json of a run, to repeat it. The "
        "command line takes precedence.",
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
        help="Class names to choose from, two or more: separated by commas (a name with a comma in double quotes), a "
        'JSON list such as ["red fox", "snowy owl"], or a .txt or .json file as for --classes-file. Any names will do. '
        "Default: the classes the run was trained on."
    ),
]
ClassesFile = Annotated[
    Path | None, Parameter(help="File of class names, one per line or a JSON list, instead of --classes.")
]
ReaderProcesses = Annotated[int, Parameter(help="Processes that read images; with 0 this process does.")]
RunBackbone = Annotated[
    str | None,
    Parameter(
        name="--backbone",
        help="File of the weights of the run's backbone, if they do not lie where the run says, as on another machine "
        "than the one it was trained on. They must be the same weights. Default: the backbone that the run names.",
    ),
]
Temperature = Annotated[
    float | None,
    Parameter(
        help="Divide the logits by this before they become probabilities; 1 leaves them as they are. Default: the "
        "temperature that calibrates the run, which training fits on validation images."
    ),
]
Device = Annotated[Literal["auto", "cpu", "cuda"], Parameter(help="Device to run on; auto uses a GPU if there is one.")]


def class_names(listed: str | None, file: Path | None) -> list[str] | None:
    """Return the names that `--classes` and `--classes-file` give, None if neither is used.

    Raises:
        InputError: both are used, the file cannot be read, or there are fewer than two names.
    """
    if listed is not None and file is not None:
        raise InputError("--classes and --classes-file: give one of them")
    if listed is None and file is None:
        return None
    if listed is not None and listed.strip().lower().endswith(NAME_FILES):
        listed, file = None, Path(listed.strip())
    names = read_names(file) if file is not None else parse_names(str(listed))
    try:
        return clean_names(names)
    except InputError as error:
        raise InputError(f"{'--classes' if file is None else file}: {error}") from error
