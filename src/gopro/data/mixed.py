"""Data sets of the same classes joined into one, such as domains in several styles: `pacs:photo+pacs:cartoon`."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

from gopro.data.class_names import class_key
from gopro.data.dataset import Dataset, Sample
from gopro.data.folders.domains import compare_classes
from gopro.errors import InputError, first_few

JOIN = "+"
"""Joins the names of data sets."""

_JOIN_OUTSIDE_BRACKETS = re.compile(r"\+(?![^\[]*\])")  # hf:NAME[label=a+b] is one name


def pieces(name: str) -> list[str]:
    """Split a name at every `+` outside brackets, whether or not the pieces mean anything.

    Example:
        >>> pieces("pacs:photo+pacs:cartoon")
        ['pacs:photo', 'pacs:cartoon']
    """
    return _JOIN_OUTSIDE_BRACKETS.split(name)


def split_at_paths(name: str, is_path: Callable[[str], bool]) -> list[str]:
    """Split a name at the `+` that join data sets, not at those in paths.

    From the left, the longest text that is a path is one name, else the text up to the next `+`.

    Args:
        is_path: tells whether a path exists.

    Example:
        >>> split_at_paths("c++/a+c++/b", {"c++/a", "c++/b"}.__contains__)
        ['c++/a', 'c++/b']
    """
    names, rest = [], pieces(name)
    while rest:
        lengths = range(len(rest), 0, -1)
        count = next((length for length in lengths if is_path(JOIN.join(rest[:length]))), 1)
        names.append(JOIN.join(rest[:count]))
        rest = rest[count:]
    return names


def mix(domains: Sequence[Dataset]) -> Dataset:
    """Join data sets of the same classes into one, whose samples remember their domain.

    The classes are those of the first domain, then those that only others have. Names match in any case and with `_`
    for a space. A few-shot draw takes its images of each class from each domain.

    Args:
        domains: two or more, with different names.

    Raises:
        InputError: two have the same name; one has no class in common with the others, or alone has no training images.

    Example:
        >>> from gopro import load_dataset
        >>> food = mix([load_dataset("emoji-food:noto"), load_dataset("emoji-food:fluent")])
        >>> food.name, len(food.classnames), len(food.few_shot(shots=4, seed=1).train)
        ('emoji-food:noto+emoji-food:fluent', 130, 1040)
    """
    names = [domain.name for domain in domains]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{JOIN.join(names)}: {repeated[0]} is there twice; name each data set once, or rename one")
    if any(domain.train for domain in domains):
        for domain in domains:
            if not domain.train:
                raise InputError(f"{domain.name} has no training images: it can only be tested on")
    classnames, labels = _join_classes(domains)
    _check_classes(names, classnames, labels)
    templates = list(dict.fromkeys(domain.template for domain in domains))
    if len(templates) > 1:
        _warn(f"{JOIN.join(names)}: their prompts differ; that of {names[0]} is used, {templates[0]!r}")
    return Dataset(
        name=JOIN.join(names),
        classnames=tuple(classnames),
        train=_join_samples([(domain.name, domain.train) for domain in domains], labels),
        val=_join_samples([(domain.name, domain.val) for domain in domains], labels),
        test=_join_samples([(domain.name, domain.test) for domain in domains], labels),
        template=templates[0],
        crop=max((domain.crop for domain in domains if domain.crop is not None), default=None),
    )


def _join_classes(domains: Sequence[Dataset]) -> tuple[list[str], list[list[int]]]:
    """Return all class names, and for each domain the label among them of each of its classes."""
    classnames: list[str] = []
    labels: list[list[int]] = []
    for domain in domains:
        exact = {name: label for label, name in enumerate(classnames)}
        close = {class_key(name): label for label, name in reversed(list(enumerate(classnames)))}
        own: list[int] = []
        for name in domain.classnames:
            label = exact.get(name, close.get(class_key(name)))
            if label is None:
                label = len(classnames)
                classnames.append(name)
            own.append(label)
        labels.append(own)
    return classnames, labels


def _check_classes(names: Sequence[str], classnames: Sequence[str], labels: Sequence[Sequence[int]]) -> None:
    """Warn of the classes that a domain lacks, and raise InputError if it has none of those of the others."""
    for name, own in reversed(list(zip(names, labels, strict=True))):
        others = {label for other in labels if other is not own for label in other}
        if others.isdisjoint(own):
            raise InputError(
                f"{name}: none of its classes ({first_few([classnames[label] for label in own])}) is one of the data "
                f"sets that it is joined with ({first_few([classnames[label] for label in sorted(others)])}); + joins "
                "images of the same classes in several styles"
            )
    known = {name: [classnames[label] for label in own] for name, own in zip(names, labels, strict=True)}
    for name, lacking in compare_classes(classnames, known).items():
        _warn(
            f"{name} lacks {first_few(lacking)} of the {len(classnames)} classes of {JOIN.join(names)}, so images of "
            "these classes are those of the others alone"
        )


def _join_samples(
    domains: Sequence[tuple[str, Sequence[Sample]]], labels: Sequence[Sequence[int]]
) -> tuple[Sample, ...]:
    return tuple(
        Sample(sample.image, own[sample.label], name)
        for (name, samples), own in zip(domains, labels, strict=True)
        for sample in samples
    )


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=1)  # from one line, so that Python shows a message once, however often it loads
