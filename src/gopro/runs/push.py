"""Push a run to the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gopro.errors import InputError
from gopro.runs.calibration import CALIBRATION
from gopro.runs.hub import CARD, upload
from gopro.runs.load_run import find_run
from gopro.runs.model_card import model_card
from gopro.runs.results import ResultRow, Results
from gopro.runs.run import CONFIG, COST, HEADS, LEARNED, read_config
from gopro.runs.training_images import TRAINING_IMAGES


def push(
    run: str | Path,
    repository: str,
    *,
    license: str | None = None,
    results: Path | None = None,
    private: bool = False,
    revision: str | None = None,
) -> str:
    """Push a trained run to the Hugging Face Hub, so that `gopro.load(repository)` can load it.

    Pushed are the config without paths of this machine, the training cost, the temperature, hashes of the training
    images, the learned weights, the first-order heads, and a model card with the results of the run.

    Args:
        run: its folder.
        repository: `ORG/NAME`; it is created if it does not exist.
        license: of the learned weights, by the Hub's identifier: `mit`, `cc-by-4.0`, ...
        results: the results.jsonl of the benchmark that the run is part of; by default the one beside the folder
            `runs` that the run is in. Results that `gopro eval` wrote into the run's folder are always used.
        private: create the repository as private.
        revision: the branch to commit to, created if it does not exist; by default main.

    Returns:
        The URL of the commit. It is made with the token saved by `hf auth login`, or in HF_TOKEN.

    Raises:
        InputError: not a finished run, results without this run, an invalid name, no token, or no connection.

    Example:
        >>> gopro.push("runs/activities", "my-name/my-classifier", license="mit")  # doctest: +SKIP
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise InputError(f"{repository}: give the repository as ORG/NAME, such as my-name/my-classifier")
    folder = find_run(run)
    read_config(folder)  # raises if it is not the config of a run
    if not (folder / LEARNED).is_file():
        raise InputError(f"{folder} is not finished: resume it with gopro train --resume {folder}")
    config = without_paths(json.loads((folder / CONFIG).read_bytes()))
    rows = evaluations(folder, results)
    files: dict[str, Path | bytes] = {
        CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode(),
        LEARNED: folder / LEARNED,
        CARD: model_card(folder, config, rows, repository, license, revision).encode(),
    }
    files |= {name: folder / name for name in (COST, CALIBRATION, TRAINING_IMAGES) if (folder / name).is_file()}
    files |= {f"{HEADS}/{head.name}": head for head in sorted((folder / HEADS).glob("*.safetensors"))}
    message = f"{config['config']['method']} trained on {config['data']}"
    return upload(repository, files, replaced=HEADS, private=private, revision=revision, message=message)


def without_paths(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of `config.json` with every path reduced to its last component."""
    config, backbone = content["config"], _without_folders(content["backbone"]["name"])
    return {
        **content,
        "config": {
            **config,
            "root": None,
            "output": Path(config["output"]).name,
            "data": Path(config["data"]).name,
            "unlabeled": Path(unlabeled).name if (unlabeled := config.get("unlabeled")) else None,
            "backbone": backbone,
        },
        "backbone": {**content["backbone"], "name": backbone},
    }


def _without_folders(backbone: str) -> str:
    """Reduce the file of `ARCHITECTURE:FILE` to its name."""
    architecture, colon, weights = backbone.partition(":")
    return architecture + colon + Path(weights).name


def evaluations(folder: Path, results: Path | None = None) -> list[ResultRow]:
    """Collect the results of a run: its rows in a benchmark's results, and what `gopro eval` wrote into its folder.

    Args:
        results: a results.jsonl; by default the one that `gopro benchmark` wrote, if the run is part of a benchmark.

    Returns:
        Rows with `data`, `classes`, `accuracy`, `macro_accuracy` and `n`, the latest for each `data` and `classes`.

    Raises:
        InputError: there is no such file, or it has no row of this run.
    """
    rows: list[ResultRow] = []
    benchmark = folder.resolve().parent.parent / "results.jsonl" if results is None else results
    if results is not None and not results.is_file():
        raise InputError(f"--results {results}: there is no such file; give the results.jsonl of gopro benchmark")
    if benchmark.is_file():
        rows = [row for row in Results(benchmark).rows if _belongs_to(row, folder, benchmark)]
        if results is not None and not rows:
            raise InputError(f"{results} has no results of {folder}: give those of the benchmark that it is part of")
    for path in sorted(folder.glob("eval-*.json")):
        try:
            row = json.loads(path.read_bytes())
            rows.append({key: row[key] for key in ("data", "classes", "accuracy", "macro_accuracy", "n")})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} was not written by gopro eval: remove it, or evaluate again") from error
    unique = {(row["data"], row["classes"]): row for row in rows}
    return [unique[key] for key in sorted(unique)]


def _belongs_to(row: ResultRow, folder: Path, results: Path) -> bool:
    """Return whether a row of a benchmark's results belongs to the run in this folder."""
    name = row.get("run")
    return isinstance(name, str) and (results.resolve().parent / "runs" / Path(name).name) == folder.resolve()
