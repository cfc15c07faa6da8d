"""Zero-shot accuracy that is little better than guessing: a sign of the wrong backbone or of class names in codes."""

from __future__ import annotations

from collections.abc import Iterable

from scipy.special import bdtrc

from gopro.clip.weights.embedded import describe_backbone
from gopro.inference.evaluate import EncodedSamples, evaluate
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.runs.results import ResultRow

SIGNIFICANCE = 0.01
MARGIN = 0.1
EMOJI = "emoji"


def near_chance(accuracy: float, n: int, classes: int) -> bool:
    """Return whether an accuracy is little better than guessing among the classes.

    It is if either holds:

    - An exact binomial test, one-sided at 1 %, does not tell it from guessing, which is right with probability 1/C.
      This is what decides for few images. It is not asked where all answers are right: of six images of two classes
      it would find even that nothing new.
    - It covers less than a tenth of the way from guessing to 100 %. With as many images of each class this is Cohen's
      kappa; Landis and Koch (1977) call agreement below 0.2 slight. This is what decides for many images, where the
      test tells even 16 % of 7 classes from 14.3 %, with which nobody can do anything.

    Args:
        accuracy: in percent; the mean over classes, as guessing the most frequent class would look good otherwise.
        n: number of images.
        classes: number of classes, C.

    Example:
        >>> near_chance(19.6, 168, 7), near_chance(19.6, 10_000, 7), near_chance(48.8, 84, 7), near_chance(50, 4, 2)
        (True, True, False, True)
    """
    chance = 1 / classes
    correct = round(accuracy / 100 * n)
    if correct == n:
        return False
    probability = bdtrc(correct - 1, n, chance) if correct else 1.0  # of as many right answers, or more, by guessing
    return bool(probability > SIGNIFICANCE or (accuracy / 100 - chance) / (1 - chance) < MARGIN)


def chance_warning(backbone: str, data: str, accuracy: float, classes: int, option: str) -> str:
    """Say that zero-shot accuracy is near chance, what the backbone was trained on, and what to type.

    Args:
        data: the data set, and the part of it.
        accuracy: in percent.
        option: how the user chooses another backbone; see `describe_backbone`.
    """
    photographs = f"; for photographs: {option} photo" if backbone == EMOJI else ""
    return (
        f"zero-shot accuracy on {data} is {accuracy:.1f} %, where guessing among {classes} classes gives "
        f"{100 / classes:.1f} %. The backbone is {describe_backbone(backbone, option)}{photographs}. "
        "Class names must be words that say what the images show, not codes."
    )


def zeroshot_warning(method: Method, samples: EncodedSamples, data: str, option: str) -> str | None:
    """Return a warning if zero-shot CLIP on the backbone and classes of a method is near chance on encoded images."""
    zeroshot = evaluate(build_method("zeroshot", method.backbone, method.classnames, method.template), samples)
    classes = len(method.classnames)
    if not near_chance(zeroshot.macro_accuracy, zeroshot.n, classes):
        return None
    return chance_warning(method.backbone.name, data, zeroshot.macro_accuracy, classes, option)


def chance_warnings(rows: Iterable[ResultRow], option: str) -> list[str]:
    """Return a warning for each backbone and data set in results on which zero-shot CLIP is near chance.

    Rows of earlier versions, which did not record the number of classes, give none.
    """
    warnings: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["method"].partition("[")[0] != "zeroshot" or "class_count" not in row:
            continue
        accuracy, classes = row["macro_accuracy"], row["class_count"]
        if not near_chance(accuracy, row["n"], classes):
            continue
        part = "" if row["classes"] == "all" else f", {row['classes']} classes,"
        warnings.setdefault(
            (row["backbone"], row["data"]),
            chance_warning(row["backbone"], f"{row['data']}{part}", accuracy, classes, option),
        )
    return list(warnings.values())
