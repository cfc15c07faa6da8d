"""Load a trained run from its folder or from the Hugging Face Hub."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from gopro.clip.backbone import Backbone, conventions, load_backbone
from gopro.clip.device import find_device
from gopro.clip.weights.embedded import EMBEDDED
from gopro.errors import InputError
from gopro.methods.gopro_kernel import GOProKernel
from gopro.methods.registry import MethodSpec, parse_method
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.runs.calibration import CALIBRATION, read_calibration
from gopro.runs.hub import download
from gopro.runs.run import CONFIG, COST, HEADS, LEARNED, Run, read_config, read_learned
from gopro.runs.training_images import TRAINING_IMAGES

SHARED = (CONFIG, LEARNED, COST, CALIBRATION, TRAINING_IMAGES, f"{HEADS}/*.safetensors")
"""The files of a run that are fetched from the Hub: JSON and safetensors, which cannot run code."""


def find_run(run: str | Path) -> Path:
    """Return the folder of a run; a run on the Hub is downloaded first.

    Args:
        run: a folder, or `ORG/NAME` or `ORG/NAME@REVISION` on the Hub if there is no such folder.

    Raises:
        InputError: there is neither such a folder nor such a run on the Hub.
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


def load_run(run: str | Path, device: str = "cpu", backbone: Backbone | str | None = None) -> Run:
    """Load a trained run.

    Args:
        run: its folder or its name on the Hub; see `find_run`.
        device: device to load the backbone on: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        backbone: where the weights of the run's backbone are on this machine, if not where the run says: a file, or a
            name as `load_backbone` takes it; the activation and how images are prepared stay those of the run. Or a
            loaded backbone, so that runs can share one.

    Raises:
        InputError: there is no such run; it is not finished; its backbone cannot be loaded or has other weights than
            the run was trained on; there is no such device.
    """
    find_device(device)  # before anything is downloaded
    folder = find_run(run)
    content = read_config(folder)
    hub = None
    if not Path(run).expanduser().is_dir():
        hub, content["config"] = str(run), replace(content["config"], root=None, output=folder)
        if backbone is None:
            _check_no_path(content["backbone"]["name"], hub)
    if not (folder / LEARNED).exists():
        raise InputError(f"{folder} is not finished: resume it with gopro train --resume {folder}")
    name, fingerprint, given = content["backbone"]["name"], content["backbone"]["fingerprint"], backbone
    if backbone is None:
        try:
            backbone = load_backbone(name, device)
        except InputError as error:
            raise InputError(
                f"{run}: the backbone it was trained on cannot be loaded: {error}; if its weights lie elsewhere on "
                "this machine, give --backbone FILE, in Python backbone=FILE"
            ) from error
    elif isinstance(backbone, str):
        backbone = _load_from(backbone, name, device)
    if backbone.fingerprint() != fingerprint:
        raise InputError(
            f"{run} was trained on other weights of {name} than {given if isinstance(given, str) else backbone.name} "
            f"has now (fingerprint {fingerprint}, not {backbone.fingerprint()})"
        )
    if isinstance(given, str) and conventions(backbone.name) != conventions(name):  # weights do not tell
        raise InputError(
            f"--backbone {given} has the weights that {run} was trained on, but another activation or other images "
            f"than {name}: give {name}, or the file of the weights alone"
        )
    method = recorded_method(content).build(backbone, content["classnames"], content["template"])
    method.unlabeled_names = content["unlabeled_names"]
    trained = Run(
        folder,
        content["config"],
        content["data"],
        content["template"],
        method,
        hub,
        content["trained_with"],
        read_calibration(folder),
    )
    read_learned(trained)
    if trained.calibration is not None:
        method.temperature = trained.calibration.temperature
    method.to(backbone.device).eval()
    return trained


def _load_from(place: str, name: str, device: str) -> Backbone:
    """Load the backbone `name` with the weights at another place.

    Args:
        place: a file, perhaps after an architecture, or the name of a backbone with the same weights.

    Raises:
        InputError: there is neither.
    """
    for path in (place, place.partition(":")[2]):
        if path and Path(path).expanduser().is_file():
            return load_backbone(name, device, weights=path)
    if place not in EMBEDDED and ":" not in place:
        raise InputError(f"--backbone {place}: no such file; give the weights of {name}, or ARCHITECTURE:TAG")
    return load_backbone(place, device)


def recorded_method(content: dict[str, Any]) -> MethodSpec:
    """Return the method that a run's config names, with the settings that it was trained with.

    Args:
        content: the output of `read_config`.
    """
    spec, trained_with = parse_method(content["config"].method), content["trained_with"]
    if trained_with is not None:
        return spec.with_settings(trained_with.settings)
    if issubclass(spec.kind, GOProKernel) and spec.config.template is None:
        # Versions that recorded no settings started it from "a photo of a {}." and kept it near that prompt on all
        # data sets. As a setting, the template also holds for those that such a run is tested on.
        return replace(spec, config=replace(spec.config, template=DEFAULT_TEMPLATE))
    return spec


def _check_no_path(backbone: str, hub: str) -> None:
    """Raise InputError if a run from the Hub names its weights by a path.

    Otherwise a stranger could choose which file is opened here. A bare file name, which `gopro push` leaves as it is,
    can only name a file of the current folder.
    """
    weights = backbone.partition(":")[2]
    if weights.startswith("~") or {PurePosixPath(weights).name, PureWindowsPath(weights).name} != {weights}:
        raise InputError(
            f"{hub} names the weights of its backbone by a path, {weights[:80]!r}, which is not opened for a run "
            "from the Hub: give your own file of these weights with --backbone FILE"
        )
