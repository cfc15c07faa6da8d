"""First-order heads of a run, kept in its folder under `heads/`, a file for each list of class names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from gopro.clip.feature_store import cache_folder
from gopro.data.dataset import Sample
from gopro.errors import InputError
from gopro.files import save_tensors
from gopro.inference.evaluate import encode_samples
from gopro.inference.taylor_head import Agreement, TaylorHead, Terms, constant, first_order, takes_nothing
from gopro.runs.run import HEADS, LEARNED, Run

Item = TypeVar("Item")

ERROR = 0.01
"""The error that a head is asked for unless told otherwise."""
SEEN, HELD_OUT = 1024, 256
"""Most images that a head is built from, and that its terms are chosen and its agreement measured on."""


def head_path(run: Run, classnames: Sequence[str]) -> Path:
    """Where the head of a run for these class names, in this order, is kept: in its folder; of a run from the Hub, if
    none came with it, in our own cache."""
    names = hashlib.sha256(json.dumps(list(classnames)).encode()).hexdigest()[:12]
    path = run.folder / HEADS / f"first-order-{names}.safetensors"
    if run.hub is None or path.is_file():
        return path
    return (cache_folder() or run.made) / HEADS / _state(run) / path.name


def build_head(
    run: Run,
    classnames: Sequence[str],
    *,
    error: float = ERROR,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """Builds the head of a run for any class names and keeps it, in the place of an older one.

    It is built from the run's training images. What measures it are the run's validation images, or the test
    images of its data where there are none, or every fourth training image.

    Args:
        error: see `gopro.inference.taylor_head.first_order`.
        workers: processes that read images.

    Raises:
        InputError: an error that is not above 0; names that the method cannot take; images that cannot be had.
    """
    if not error > 0:
        raise InputError(f"error is {error}: give a difference of probabilities above 0, such as {ERROR}")
    method, classnames = run.method, tuple(classnames)
    if not classnames:
        raise InputError("no class names: give at least one")
    if takes_nothing(method):
        head = constant(method, classnames)
    else:
        seen, held_out = (encode_samples(method, samples, workers=workers).encoded[:] for samples in head_samples(run))
        device = method.backbone.device
        head = first_order(
            method, classnames, seen.to(device), held_out.to(device), error=error, on_progress=on_progress
        )
    path = head_path(run, classnames)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise InputError(f"{path.parent} cannot be made: {failed.strerror}") from failed
    agreement = None if head.agreement is None else asdict(head.agreement)
    said = {"run": _state(run), "classnames": list(classnames), "error": error, "agreement": agreement}
    save_tensors(path, vars(head.terms), {key: json.dumps(value) for key, value in said.items()})
    return head


def load_head(run: Run, classnames: Sequence[str]) -> TaylorHead:
    """The head that was built of a run for these class names.

    Raises:
        InputError: there is none; it was built of another state of the run, or for other names.
    """
    path = head_path(run, classnames)
    anew = f"build it with gopro head {run.folder}"
    if not path.is_file():
        raise InputError(f"{run.folder} has no first-order head for these {len(classnames)} class names: {anew}")
    try:
        with safe_open(path, framework="pt", device=str(run.method.backbone.device)) as file:
            said = {key: json.loads(value) for key, value in file.metadata().items()}
            terms = Terms(**{key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 (not a dict)
        agreement = None if said["agreement"] is None else Agreement(**said["agreement"])
        state, names = said["run"], said["classnames"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path} does not hold a first-order head ({first}): {anew}") from error
    if state != _state(run):
        raise InputError(f"{path} was built of another state of {run.folder}: {anew}")
    if names != list(classnames) or len(terms.weights) != len(names):
        raise InputError(f"{path} was built for other class names: {anew}")
    exact = run.method if agreement is not None else run.method.for_classes(classnames)
    return TaylorHead(exact, classnames, terms, agreement)


def ready_head(
    run: Run,
    classnames: Sequence[str],
    *,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """The head of a run for these class names, built now if it has not been.

    Raises:
        InputError: as `load_head`, where there is one, or as `build_head`.
    """
    if head_path(run, classnames).is_file():
        return load_head(run, classnames)
    return build_head(run, classnames, workers=workers, on_progress=on_progress)


def head_samples(run: Run) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """What a head is built from, and what is held out."""
    config = run.config
    dataset = run.dataset().half(config.classes)
    few = dataset.few_shot(config.shots, config.seed)
    seen, held_out = few.train, few.val or few.test
    if not held_out:
        seen, held_out = [sample for i, sample in enumerate(few.train) if i % 4], few.train[::4]
    return spread(seen, SEEN), spread(held_out, HELD_OUT)


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most so many of the items, taken at equal distances."""
    if len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


def _state(run: Run) -> str:
    """A hash of the method, the frozen weights and what was learned; where the run lies is no part of it."""
    told = [run.config.method, run.template, run.method.backbone.fingerprint()]
    digest = hashlib.sha256(json.dumps(told).encode())
    digest.update((run.folder / LEARNED).read_bytes())
    return digest.hexdigest()[:16]
