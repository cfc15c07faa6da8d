"""Fit the temperature of a trained method on validation images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from gopro.data.dataset import Sample
from gopro.inference.calibration import fit_temperature
from gopro.inference.evaluate import Evaluation, evaluate_images
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.methods.zeroshot import ZeroShot
from gopro.runs.calibration import Calibration

MAX_IMAGES = 500
"""Validation images, at most, that a temperature is fitted on: with more it hardly changes."""


def calibrate(
    method: Method,
    samples: Sequence[Sample],
    *,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Fit the temperatures of a method and of zero-shot CLIP on validation images, and measure their accuracies.

    Features of a frozen image tower are cached. The method's own temperature does not matter and is not changed.

    Args:
        samples: at most `MAX_IMAGES` of them are used, evenly spaced. There may be none.

    Raises:
        InputError: an image cannot be read, or the logits are not finite.
    """
    if not samples:
        return Calibration(problem="there are no validation images")
    samples = samples[:: math.ceil(len(samples) / MAX_IMAGES)]
    own = evaluate_images(method, samples, workers=workers, on_progress=on_progress)
    zeroshot = own
    if not isinstance(method, ZeroShot):
        plain = build_method("zeroshot", method.backbone, method.classnames, method.template)
        zeroshot = evaluate_images(plain, samples, workers=workers)
    return Calibration(
        temperature=_temperature(own),
        images=own.n,
        accuracy=round(own.accuracy, 4),
        zeroshot_temperature=_temperature(zeroshot),
        zeroshot_accuracy=round(zeroshot.accuracy, 4),
    )


def _temperature(evaluation: Evaluation) -> float:
    return fit_temperature(evaluation.logits, evaluation.labels)
