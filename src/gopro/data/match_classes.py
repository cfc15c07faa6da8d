"""Test images of one data set over the classes of another, such as those that a run was trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gopro.data.class_names import class_key
from gopro.data.dataset import Dataset


@dataclass(frozen=True)
class Matched:
    """The result of `match_classes`.

    Attributes:
        dataset: with test images only, and the classes that were asked for.
        unknown: test images that are left out, by the class that is not among those.
        absent: classes without a test image.
    """

    dataset: Dataset
    unknown: Mapping[str, int]
    absent: tuple[str, ...]


def match_classes(dataset: Dataset, classnames: Sequence[str]) -> Matched:
    """Label the test images of a data set by other classes of the same names, and leave out those of other names.

    Names match in any case and with `_` for a space, but a class of exactly the same name comes first.

    Example:
        >>> import gopro
        >>> food = gopro.load_dataset("emoji-food")
        >>> matched = match_classes(food, ["hot_dog", "pizza", "owl"])
        >>> sorted({matched.dataset.classnames[sample.label] for sample in matched.dataset.test}), matched.absent
        (['hot_dog', 'pizza'], ('owl',))
    """
    exact = {name: label for label, name in reversed(list(enumerate(classnames)))}
    close = {class_key(name): label for label, name in reversed(list(enumerate(classnames)))}
    labels = [exact.get(name, close.get(class_key(name))) for name in dataset.classnames]
    known, unknown = [], Counter[str]()
    for sample in dataset.test:
        label = labels[sample.label]
        if label is None:
            unknown[dataset.classnames[sample.label]] += 1
        else:
            known.append(replace(sample, label=label))
    known.sort(key=lambda sample: sample.label)
    present = {sample.label for sample in known}
    absent = tuple(name for label, name in enumerate(classnames) if label not in present)
    matched = replace(dataset, classnames=tuple(classnames), train=(), val=(), test=tuple(known))
    return Matched(matched, unknown, absent)
