"""`gopro push`: a run to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gopro.cli.console import out
from gopro.cli.parameters import ConfigFile


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
    """Upload a trained run to the Hugging Face Hub, with a model card.

    Log in with hf auth login first, or set HF_TOKEN.

    Parameters
    ----------
    run:
        Folder of a trained run.
    repository:
        ORG/NAME on the Hub; it is created if it does not exist.
    license:
        Licence of the learned weights, by the Hub's identifier: mit, cc-by-4.0, ...
    results:
        The results.jsonl of the benchmark that the run is part of. Default: the one next to runs/.
    private:
        Create the repository as private.
    revision:
        Branch to commit to, created if it does not exist. Default: main.
    """
    from gopro.runs.push import push

    address = push(run, repository, license=license, results=results, private=private, revision=revision)
    name = repository if revision is None else f"{repository}@{revision}"
    out.print_line(f"Uploaded {run} to {address}")
    out.print_line(f"Next: gopro predict {name} IMAGES")
