"""Folders of domains: `photo/dog`, `sketch/dog` and so on, the same classes in several styles.

Each domain is a data set of its own. The folder that holds them is none: it would pass as one whose classes are the
domains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gopro.data.class_names import class_key
from gopro.data.folders.find_images import class_folders
from gopro.data.folders.part_folders import part_of
from gopro.errors import InputError, first_few


def domain_folders(root: Path) -> dict[str, list[str]]:
    """Map each domain in a folder to its classes; empty if the folder does not hold domains.

    A folder holds domains if each folder in it holds no image but more than half of the class folders that occur in
    any, and these are two or more.

    Raises:
        InputError: the folder itself cannot be read.
    """
    found: dict[str, list[str]] = {}
    for name in class_folders(root, on_error=lambda error: None):  # an image beside them is reported with the others
        found[name] = inner_folders(root / name)
        if not found[name]:
            return {}
    classes = {class_key(name) for listed in found.values() for name in listed}
    shared = all(2 * len(listed) > len(classes) for listed in found.values())
    return found if len(found) > 1 and len(classes) > 1 and shared else {}


def check_not_domains(root: Path) -> None:
    """Raise InputError if a folder that should hold classes holds domains, and say how to use them.

    The same holds for folders that look like domains: parts under unknown names, and classes that hold parts.
    """
    if domains := domain_folders(root):
        source, *targets = (str(root / name) for name in domains)
        classes = sorted({name for listed in domains.values() for name in listed})
        if any(name.casefold().startswith(("train", "val", "test")) for name in domains):
            raise InputError(
                f"{root}: its folders {first_few(list(domains))} each hold {first_few(classes)}; if they are parts of "
                "one data set, rename them to train, test and perhaps val, and let nothing else lie beside them"
            )
        if all(map(part_of, classes)) and not any(inner_folders(root / name / classes[0]) for name in domains):
            raise InputError(
                f"{root}: each class folder holds {' and '.join(classes)}; put them the other way round, such as "
                f"{root / classes[0] / next(iter(domains))}"
            )
        raise InputError(
            f"{root}: its folders {first_few(list(domains))} are domains rather than classes, as each holds folders "
            f"such as {first_few(classes)}. To train on one domain: --data {source}. To test on the others too: gopro "
            f"benchmark domain-generalization --source {source} --targets {' '.join(targets)} --output FOLDER (see "
            "docs/domains.md). If they are classes after all, move their images out of the folders in them"
        )


def inner_folders(folder: Path) -> list[str]:
    """List the folders in a folder; none if it holds an image directly or cannot be read."""
    try:
        return list(class_folders(folder))
    except InputError:
        return []


def compare_classes(source: Sequence[str], targets: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the classes of the source domain that each target lacks, for the targets that lack any.

    Args:
        source: class names of the domain that is trained on.
        targets: class names of each domain that is tested on.

    Raises:
        InputError: a target has a class that the source lacks.

    Example:
        >>> compare_classes(["cat", "dog"], {"sketch": ["dog"], "cartoon": ["cat", "dog"]})
        {'sketch': ['cat']}
    """
    known = set(source)
    for target, classes in targets.items():
        if extra := [name for name in classes if name not in known]:
            raise InputError(
                f"{target}: has the class {first_few(extra)}, which the source domain lacks; rename or remove its "
                "folder, or use gopro benchmark cross-dataset"
            )
    lacking = {target: [name for name in source if name not in set(classes)] for target, classes in targets.items()}
    return {target: names for target, names in lacking.items() if names}
