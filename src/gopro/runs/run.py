"""A run and its folder: `config.json` has the settings, `cost.json` the cost of training, `learned.safetensors` the
learned tensors."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from gopro.data.class_names import clean_name
from gopro.data.dataset import Dataset
from gopro.data.load_dataset import is_packaged, load_dataset
from gopro.errors import InputError, one_line
from gopro.files import save_tensors, write_json
from gopro.methods.base import Method
from gopro.runs.calibration import Calibration
from gopro.runs.config import TrainConfig
from gopro.runs.trained_with import TrainedWith

CONFIG, LEARNED, COST, HEADS = "config.json", "learned.safetensors", "cost.json", "heads"

UNKNOWN = "unknown"
"""The data set's name in an imported run whose training data nobody named."""


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training a run.

    Attributes:
        train_seconds: wall-clock seconds, interrupted runs included.
        peak_memory_mib: see `gopro.runs.environment.PeakMemory`; None if the system does not say.
        parameters: number of learned parameters.
        skipped_steps: steps skipped because their loss or gradient was not finite.
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
        config: its settings.
        data: name of the data set it was trained on.
        template: that data set's zero-shot prompt.
        method: the trained method, over the classes it was trained on.
        hub: its name on the Hugging Face Hub if it was downloaded from there. A stranger wrote its config then, and no
            path in it is opened.
        trained_with: None for an imported run, and for one that an earlier version trained, which did not record it.
        calibration: None for an imported run, and for one that an earlier version trained.
    """

    folder: Path
    config: TrainConfig
    data: str
    template: str
    method: Method
    hub: str | None = None
    trained_with: TrainedWith | None = None
    calibration: Calibration | None = None

    @property
    def export_folder(self) -> Path:
        """Where to write exports: the run's folder, or the current one for a run in the Hub's cache."""
        return self.folder if self.hub is None else Path()

    def dataset(self, root: Path | None = None) -> Dataset:
        """Load the data set that the run was trained on, with all its classes.

        Args:
            root: folder that holds the benchmarks' folders, in place of the config's.

        Raises:
            InputError: the data set is not found; the run is from the Hub and its data do not come with this package.
        """
        data = self.config.data
        if self.hub is not None and not is_packaged(data):
            raise InputError(
                f"{self.hub} comes from the Hub: the data that it names, {data!r}, are not looked for on this machine"
            )
        return load_dataset(data, root or self.config.root, levels=self.config.levels)


def write_config(run: Run, **more: Any) -> None:
    """Write the `config.json` of a run.

    Args:
        more: further entries.
    """
    method = run.method
    content = {
        "gopro": version("gopro"),
        "config": run.config.to_json(),
        "data": run.data,
        "template": run.template,
        "classnames": list(method.classnames),
        "unlabeled_names": list(method.unlabeled_names),
        "backbone": {"name": method.backbone.name, "fingerprint": method.backbone.fingerprint()},
        "trained_with": None if run.trained_with is None else run.trained_with.to_json(),
        **more,
    }
    write_json(run.folder / CONFIG, content)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's `config.json`, with `config` as a `TrainConfig` and `trained_with` as a `TrainedWith` or None.

    Raises:
        InputError: the folder is not a run's; an entry is missing or of the wrong type.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a run: it has no {CONFIG}; give the --output of gopro train")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _update(content)
        content["config"] = TrainConfig.from_json(content["config"])
        trained_with = content.get("trained_with")  # missing in runs of earlier versions
        content["trained_with"] = None if trained_with is None else TrainedWith.from_json(trained_with)
        if _is_of_gopro_kernel(content["config"].method, content["trained_with"]):
            method = content["config"].method.replace("gopro", "gopro-kernel", 1)
            content["config"] = replace(content["config"], method=method)
        backbone, names = content["backbone"], content["classnames"]
        content["unlabeled_names"] = tuple(content.get("unlabeled_names", ()))  # missing in runs of earlier versions
        texts = [content["data"], content["template"], backbone["name"], backbone["fingerprint"]]
        texts += content["unlabeled_names"]
        if not isinstance(names, list) or not all(isinstance(text, str) for text in [*texts, *names]):
            raise TypeError("data, template, classnames and backbone must be text")
        content["classnames"] = list(map(clean_name, names))  # earlier versions left NFD as it was
        if content["template"].count("{}") != 1:
            raise ValueError(f"template {content['template'][:80]!r} does not have exactly one {{}} for the class name")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not the config of a run ({type(error).__name__}: {one_line(error)}): put it back, or train "
            "again into another folder"
        ) from error
    return content


def _is_of_gopro_kernel(method: str, trained_with: TrainedWith | None) -> bool:
    """Return whether a run is of what `gopro` was before `gopro-kernel` got this name: it alone had a fade."""
    return method.partition("[")[0] == "gopro" and (trained_with is None or "fade" in trained_with.settings)


def _update(content: dict[str, Any]) -> None:
    """Write what was recorded in other ways as it is recorded now, in place."""
    config, trained_with = content["config"], content.get("trained_with")
    if trained_with is None:
        return
    settings, recipe = trained_with["settings"], trained_with["recipe"]
    if isinstance(gate := settings.get("gate"), bool):  # of gopro, which was either on or off
        settings["gate"] = float(gate)
        config["method"] = re.sub(r"\bgate=\w+", f"gate={int(gate)}", config["method"])
    if recipe is not None:
        recipe.setdefault("bank", config["bank"])  # recipes had none


def write_learned(run: Run, cost: TrainingCost | None = None) -> None:
    """Write what a run has learned, and before that its cost. With this the run is finished."""
    if cost is not None:
        write_json(run.folder / COST, asdict(cost))
    save_tensors(run.folder / LEARNED, run.method.state_dict())


def read_learned(run: Run) -> None:
    """Load `learned.safetensors` into the run's method.

    Raises:
        InputError: the file is damaged or another method's.
    """
    path = run.folder / LEARNED
    try:
        run.method.load_state_dict(load_file(path))
    except (SafetensorError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"{path} does not hold what {run.config.method} learned ({first}): remove it, and "
            f"gopro train --resume {run.folder} makes it again"
        ) from error


def read_cost(folder: Path) -> TrainingCost:
    """Read the `cost.json` of a finished run.

    Raises:
        InputError: the file is missing or holds something else.
    """
    path = folder / COST
    try:
        return TrainingCost(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not the cost of a run ({error}): remove {folder} to train it again") from error
