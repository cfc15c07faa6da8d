"""`gopro push`: a run to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.markup import escape

from gopro.cli.console import ConfigFile, out
from gopro.runs.push import push


def push_command(
    run: str,
    repository: str,
    *,
    license: str | None = None,
    results: Path | None = None,
    private: Annotated[bool, Parameter(negative=())] = False,
    revision: str | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Put a trained run on the Hugging Face Hub, with a model card made of it.

    The token is the one that hf auth login keeps, or HF_TOKEN.

    Parameters
    ----------
    run:
        Folder of a trained run.
    repository:
        ORG/NAME on the Hub, made if there is none.
    license:
        Licence of what was learned, as the Hub calls it: mit, cc-by-4.0, ...
    results:
        The results.jsonl of the benchmark that the run is part of; found by itself where the run lies beside it.
    private:
        Make the repository one that only those may see whom you let.
    revision:
        Branch to commit to, made if there is none; main if not given.
    """
    address = push(run, repository, license=license, results=results, private=private, revision=revision)
    name = repository if revision is None else f"{repository}@{revision}"
    out.print(f"{escape(run)} is on the Hub: {escape(address)}", highlight=False, soft_wrap=True)
    out.print(f"Next: gopro predict {escape(name)} IMAGES", highlight=False, soft_wrap=True)
