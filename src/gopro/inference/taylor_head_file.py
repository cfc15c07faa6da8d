"""Taylor heads of a run, saved in its folder under `heads/`, one file per list of class names and template."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open

from gopro.clip.features.store import cache_folder
from gopro.data.dataset import Sample
from gopro.errors import InputError
from gopro.files import save_tensors
from gopro.inference.evaluate import encode_samples
from gopro.inference.taylor_head import Agreement, Expansion, TaylorHead, constant_head, fit_taylor_head
from gopro.runs.run import HEADS, LEARNED, Run

Item = TypeVar("Item")

DEFAULT_ERROR = 0.01
"""Largest 99th percentile of the probability error that a head may have, unless another is requested."""
MAX_FIT_IMAGES, MAX_HELD_OUT_IMAGES = 1024, 256
"""Number of images, at most, to fit a head to, and to choose its terms and measure its agreement with."""

_TENSORS = {"weights": "weights", "centre": "centre", "directions": "directions", "terms": "kept"}
_AGREEMENT = {"images": "pictures", "top1": "top1", "max": "largest", "p99": "most", "mean": "mean"}
"""Names of fields in the file, which are older than those in the code."""


def head_path(run: Run, classnames: Sequence[str], template: str | None = None) -> Path:
    """Return the file of the head for these class names in this order.

    It is in the run's folder. A head of a run from the Hub that did not come with it is in gopro's own cache.

    Args:
        template: the prompt of the data set that the names come from; by default that of the run's data set.
    """
    names = list(classnames)
    key = names if template in (None, run.template) else [template, names]  # heads of earlier versions have no template
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    path = run.folder / HEADS / f"first-order-{digest}.safetensors"
    if run.hub is None or path.is_file():
        return path
    return (cache_folder() or run.export_folder) / HEADS / _fingerprint(run) / path.name


def build_head(
    run: Run,
    classnames: Sequence[str],
    template: str | None = None,
    *,
    error: float = DEFAULT_ERROR,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """Build the head of a run for any class names and save it, replacing an older one.

    Args:
        template: see `head_path`.
        error: see `gopro.inference.taylor_head.fit_taylor_head`.
        workers: processes that read images.

    Raises:
        InputError: an error that is not positive; names that the method cannot take; images that are not available; a
            folder that cannot be written to.
    """
    if not error > 0:
        raise InputError(f"error is {error}: give a difference of probabilities above 0, such as {DEFAULT_ERROR}")
    if not classnames:
        raise InputError("no class names: give at least one")
    method = run.method.for_classes(classnames, template or run.template)
    if method.text_depends_on_image:
        device = method.backbone.device
        images, held_out = (
            encode_samples(method, samples, workers=workers).encoded[:].to(device) for samples in head_samples(run)
        )
        head = fit_taylor_head(method, classnames, images, held_out, error=error, on_progress=on_progress)
    else:
        head = constant_head(method, classnames)
    _save(head, head_path(run, classnames, template), {"run": _fingerprint(run), "error": error})
    return head


def load_head(run: Run, classnames: Sequence[str], template: str | None = None) -> TaylorHead:
    """Load the head of a run for these class names.

    Args:
        template: see `head_path`.

    Raises:
        InputError: there is none; it belongs to another state of the run, to other names or to another template; or it
            is damaged.
    """
    template = template or run.template
    path = head_path(run, classnames, template)
    rebuild = f"build it with gopro head {run.folder}"
    if not path.is_file():
        raise InputError(f"{run.folder} has no first-order head for these {len(classnames)} class names: {rebuild}")
    try:
        with safe_open(path, framework="pt", device=str(run.method.backbone.device)) as file:
            metadata = {key: json.loads(value) for key, value in file.metadata().items()}
            expansion = Expansion(**{field: file.get_tensor(key) for field, key in _TENSORS.items()})
        saved = metadata["agreement"]
        agreement = None if saved is None else Agreement(**{field: saved[key] for field, key in _AGREEMENT.items()})
        fingerprint, saved_names = metadata["run"], metadata["classnames"]
        saved_template = metadata.get("template", run.template)  # missing in heads of earlier versions
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise InputError(f"{path} is not a first-order head ({first_line}): {rebuild}") from error
    if fingerprint != _fingerprint(run):
        raise InputError(f"{path} was built from another state of {run.folder}: {rebuild}")
    if saved_names != list(classnames) or len(expansion.weights) != len(saved_names):
        raise InputError(f"{path} was built for other class names: {rebuild}")
    if saved_template != template:
        raise InputError(f"{path} was built for the template {saved_template!r}, not {template!r}: {rebuild}")
    return TaylorHead(run.method.for_classes(classnames, template), classnames, expansion, agreement)


def load_or_build_head(
    run: Run,
    classnames: Sequence[str],
    template: str | None = None,
    *,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """Load the head of a run for these class names, or build it if there is none.

    Args:
        template: see `head_path`.

    Raises:
        InputError: as `load_head` if there is one, otherwise as `build_head`.
    """
    if head_path(run, classnames, template).is_file():
        return load_head(run, classnames, template)
    return build_head(run, classnames, template, workers=workers, on_progress=on_progress)


def head_samples(run: Run) -> tuple[Sequence[Sample], Sequence[Sample]]:
    """Return the images to fit a head to, and the held-out ones.

    These are the training and the validation images of the run. If it has no validation images, test images are held
    out, and if it has none of these either, every fourth training image.
    """
    config = run.config
    few = run.dataset().half(config.classes).few_shot(config.shots, config.seed)
    train, held_out = few.train, few.val or few.test
    if not held_out:
        train, held_out = [sample for i, sample in enumerate(few.train) if i % 4], few.train[::4]
    return evenly_spaced(train, MAX_FIT_IMAGES), evenly_spaced(held_out, MAX_HELD_OUT_IMAGES)


def evenly_spaced(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


def _save(head: TaylorHead, path: Path, metadata: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be created: {error.strerror}") from error
    agreement = head.agreement
    metadata |= {
        "classnames": list(head.classnames),
        "template": head.template,
        "agreement": agreement and {key: getattr(agreement, field) for field, key in _AGREEMENT.items()},
    }
    tensors = {key: getattr(head.expansion, field) for field, key in _TENSORS.items()}
    save_tensors(path, tensors, {key: json.dumps(value) for key, value in metadata.items()})


def _fingerprint(run: Run) -> str:
    """Hash the method, the frozen weights and the learned ones, but not where the run is on disk."""
    # Heads of older runs have the name that gopro-kernel had.
    names = [run.config.method.replace("gopro-kernel", "gopro", 1), run.template, run.method.backbone.fingerprint()]
    digest = hashlib.sha256(json.dumps(names).encode())
    digest.update((run.folder / LEARNED).read_bytes())
    return digest.hexdigest()[:16]
