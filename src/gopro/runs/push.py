"""A run on the Hugging Face Hub: what of it goes there, and with which card."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gopro.errors import InputError
from gopro.runs.hub import CARD, upload
from gopro.runs.model_card import model_card
from gopro.runs.results import ResultRow, Results
from gopro.runs.run import CONFIG, COST, HEADS, LEARNED, find_run, read_config


def push(
    run: str | Path,
    repository: str,
    *,
    license: str | None = None,
    results: Path | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Puts a trained run on the Hugging Face Hub, from where `gopro.load(repository)` takes it: its config without the
    paths of this machine, its cost, what was learned, its first-order heads, and a model card made of these and of how
    the run was evaluated.

    Args:
        run: its folder.
        repository: `ORG/NAME`; it is made if there is none.
        license: of what was learned, as the Hub calls it: `mit`, `cc-by-4.0`, ...
        results: the results.jsonl of the benchmark that the run belongs to; found by itself where the run lies where
            `gopro benchmark` put it. What `gopro eval` wrote into the folder is taken in any case.
        private: makes the repository one that only those may see whom its owner lets.
        revision: the branch to commit to, made if there is none; main if not given.

    Returns: the address of the commit. The token is the one that `hf auth login` keeps, or that of HF_TOKEN.

    Raises:
        InputError: no finished run, results that say nothing of it, a name that the Hub does not take, no token, no
            connection.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"{repository}: give the repository as ORG/NAME, such as my-name/my-classifier")
    folder = find_run(run)
    read_config(folder)  # which says what is wrong with it, if anything
    if not (folder / LEARNED).is_file():
        raise InputError(f"{folder} is not finished: go on with gopro train --resume {folder}")
    config = without_paths(json.loads((folder / CONFIG).read_text()))
    rows = evaluations(folder, results)
    files: dict[str, Path | bytes] = {
        CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        LEARNED: folder / LEARNED,
        CARD: model_card(folder, config, rows, repository, license, revision).encode(),
    }
    if (folder / COST).is_file():
        files[COST] = folder / COST
    files |= {f"{HEADS}/{head.name}": head for head in sorted((folder / HEADS).glob("*.safetensors"))}
    message = f"{config['config']['method']} trained on {config['data']}"
    return upload(repository, files, replaced=HEADS, private=private, revision=revision, message=message)


def without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """What `config.json` holds, without where things lie on this machine: of a path only its last name stays."""
    config, name = content["config"], content["backbone"]["name"]
    backbone = _last_name(name)
    return {
        **content,
        "config": {
            **config,
            "root": None,
            "output": Path(config["output"]).name,
            "data": Path(config["data"]).name,
            "backbone": backbone,
        },
        "backbone": {**content["backbone"], "name": backbone},
    }


def _last_name(backbone: str) -> str:
    """`ARCHITECTURE:FILE` without the folders of the file."""
    architecture, colon, weights = backbone.partition(":")
    return architecture + colon + Path(weights).name


def evaluations(folder: Path, results: Path | None = None) -> list[ResultRow]:
    """What is known of how well a run does: the rows of a benchmark's results that are its own, and what `gopro eval`
    wrote into its folder, each with `data`, `classes`, `accuracy`, `macro_accuracy` and `n`.

    Args:
        results: a results.jsonl; where not given, the one that `gopro benchmark` wrote if the run is one of its.

    Raises:
        InputError: there is no such file, or none of its rows is of this run.
    """
    rows: list[ResultRow] = []
    found = folder.resolve().parent.parent / "results.jsonl" if results is None else results
    if results is not None and not results.is_file():
        raise InputError(f"--results {results}: there is no such file; give the results.jsonl of gopro benchmark")
    if found.is_file():
        rows = [row for row in Results(found).rows if _is_of(row, folder, found)]
        if results is not None and not rows:
            raise InputError(f"{results} says nothing of {folder}: give those of the benchmark that it is part of")
    for path in sorted(folder.glob("eval-*.json")):
        try:
            row = json.loads(path.read_text())
            rows.append({key: row[key] for key in ("data", "classes", "accuracy", "macro_accuracy", "n")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not what gopro eval writes: remove it, or evaluate again") from error
    unique = {(row["data"], row["classes"]): row for row in rows}
    return [unique[key] for key in sorted(unique)]


def _is_of(row: ResultRow, folder: Path, results: Path) -> bool:
    """Whether a row of a benchmark's results is of the run in this folder."""
    name = row.get("run")
    return isinstance(name, str) and (results.resolve().parent / "runs" / Path(name).name) == folder.resolve()
