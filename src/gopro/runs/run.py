"""A run's folder: `config.json` says what was trained on what, `cost.json` what that took, `learned.safetensors` holds
what was learned."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.dataset import Dataset
from gopro.data.emoji import SETS
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.hub import download

CONFIG, LEARNED, COST, HEADS = "config.json", "learned.safetensors", "cost.json", "heads"
SHARED = (CONFIG, LEARNED, COST, f"{HEADS}/*.safetensors")
"""What of a run's folder goes to the Hub and is fetched from there: JSON and safetensors, which run no code."""

UNKNOWN = "unknown"
"""The data of a run of which nobody said on what it was trained: a checkpoint from elsewhere."""


@dataclass(frozen=True)
class TrainingCost:
    """What a run's training took.

    Attributes:
        train_seconds: wall-clock seconds, those before a cut included.
        peak_memory_mib: see `gopro.runs.environment.PeakMemory`; None where the system does not tell.
        parameters: how many numbers are learned.
        skipped_steps: how many were left out since their loss or gradient was not finite.
    """

    train_seconds: float
    peak_memory_mib: float | None
    parameters: int
    skipped_steps: int = 0


@dataclass(frozen=True)
class Run:
    """A trained method and where it came from.

    Attributes:
        folder: the run's folder.
        config: what it was told.
        data: name of the data set it was trained on.
        template: that data set's zero-shot prompt.
        method: the method with its learned state, over the classes it was trained on.
        hub: what it is called on the Hugging Face Hub, if it comes from there; then a stranger wrote its config, which
            is not followed to any file of this machine.
    """

    folder: Path
    config: TrainConfig
    data: str
    template: str
    method: Method
    hub: str | None = None

    @property
    def made(self) -> Path:
        """The folder for what is made of it for people to keep: its own; the current one for a run from the Hub, whose
        cache is not ours to write to."""
        return self.folder if self.hub is None else Path()

    def dataset(self, root: Path | None = None) -> Dataset:
        """The data set that it was trained on, all its classes.

        Args:
            root: directory that holds the benchmarks' folders, in the place of the config's.

        Raises:
            InputError: it is not to be had; the run is from the Hub, and the data do not come with this package.
        """
        data = self.config.data
        if self.hub is not None and data.partition(":")[0] not in SETS:
            raise InputError(
                f"{self.hub} comes from the Hub: the data that it names, {data!r}, are not looked for on this machine"
            )
        return load_dataset(data, root or self.config.root)


def describe(config: TrainConfig, data: str, template: str, method: Method) -> dict[str, Any]:
    """What `config.json` holds."""
    return {
        "gopro": version("gopro"),
        "config": config.to_json(),
        "data": data,
        "template": template,
        "classnames": list(method.classnames),
        "backbone": {"name": method.backbone.name, "fingerprint": method.backbone.fingerprint()},
    }


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's `config.json`.

    Raises:
        InputError: the folder is not that of a run; a value in its config is missing or of another kind.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a run: it has no {CONFIG}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["config"] = TrainConfig.from_json(content["config"])
        backbone, names = content["backbone"], content["classnames"]
        texts = [content["data"], content["template"], backbone["name"], backbone["fingerprint"]]
        if not isinstance(names, list) or not all(isinstance(text, str) for text in [*texts, *names]):
            raise TypeError("data, template, classnames and backbone must be text")
        if content["template"].count("{}") != 1:
            raise ValueError(f"template {content['template'][:80]!r} has no one {{}} for the class name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not the config of a run ({type(error).__name__}: {str(error)[:200]}): put it back, or train "
            "anew into another folder"
        ) from error
    return content


def read_cost(folder: Path) -> TrainingCost:
    """The content of a finished run's `cost.json`.

    Raises:
        InputError: there is none, or it holds something else.
    """
    path = folder / COST
    try:
        return TrainingCost(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} does not say what the run took ({error}): remove {folder} to run it anew") from error


def build(content: dict[str, Any], backbone: Backbone) -> Method:
    """The method that a run's config describes, untrained."""
    return build_method(content["config"].method, backbone, content["classnames"], content["template"])


def find_run(run: str | Path) -> Path:
    """The folder of a run that is given as a folder or by its name on the Hugging Face Hub.

    Args:
        run: a folder, or `ORG/NAME` or `ORG/NAME@REVISION`, which is fetched from the Hub unless a folder is called so.

    Raises:
        InputError: there is no such folder, and no such run on the Hub.
    """
    folder = Path(run).expanduser()
    if folder.is_dir():
        return folder
    name = run.as_posix() if isinstance(run, Path) else run
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@(.+))?", name)
    if match is None or folder.exists():
        raise InputError(f"{run}: there is no such folder; give the --output of gopro train, or ORG/NAME on the Hub")
    folder = download(match[1], match[2], SHARED)
    for file in (CONFIG, LEARNED):
        if not (folder / file).is_file():
            raise InputError(f"{run} on the Hub is no run of gopro: it has no {file}")
    return folder


def load_run(run: str | Path, device: str = "cpu", backbone: Backbone | None = None) -> Run:
    """A trained run.

    Args:
        run: its folder, or what it is called on the Hub, as in `find_run`.
        backbone: to share one between runs; it is loaded by the run's own name if not given.

    Raises:
        InputError: not a run, not finished, or trained on a backbone that is not to be had or has changed.
    """
    folder = find_run(run)
    content = read_config(folder)
    hub = None
    if not Path(run).expanduser().is_dir():
        hub, content["config"] = str(run), replace(content["config"], root=None, output=folder)
        _check_no_path(content["backbone"]["name"], hub)
    path = folder / LEARNED
    if not path.exists():
        raise InputError(f"{folder} is not finished: go on with gopro train --resume {folder}")
    if backbone is None:
        try:
            backbone = load_backbone(content["backbone"]["name"], device)
        except InputError as error:
            raise InputError(f"{run} was trained on a backbone that is not to be had here: {error}") from error
    if backbone.fingerprint() != content["backbone"]["fingerprint"]:
        raise InputError(
            f"{run} was trained on other weights of {content['backbone']['name']} than {backbone.name} has now"
        )
    method = build(content, backbone)
    try:
        method.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} does not hold what {content['config'].method} learned ({first}): remove it, and "
            f"gopro train --resume {folder} makes it again"
        ) from error
    method.to(backbone.device).eval()
    return Run(folder, content["config"], content["data"], content["template"], method, hub)


def _check_no_path(backbone: str, hub: str) -> None:
    """Raises InputError: a run from the Hub names weights by a path. `gopro push` leaves file names alone, which are
    those of the current directory; anything else would let a stranger choose what is opened here."""
    weights = backbone.partition(":")[2]
    if weights.startswith("~") or {PurePosixPath(weights).name, PureWindowsPath(weights).name} != {weights}:
        raise InputError(
            f"{hub} names the weights of its backbone by a path, {weights[:80]!r}, which is not followed for a run "
            "from the Hub: copy its files into a folder of your own, and look at its config.json"
        )
