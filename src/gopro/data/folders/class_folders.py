"""A folder of class folders as a data set.

The folder holds either `train` and `test` (and perhaps `val`) folders with the class folders in them, or the class
folders themselves. The latter are split by seed, and the split is written once to `split_gopro.json`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from gopro.data.class_names import class_key, clean_name
from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.extend_split import deal, draw, in_words, unlisted
from gopro.data.folders.domains import check_not_domains, inner_folders
from gopro.data.folders.find_images import OnError, class_folders, images_by_class, raise_error
from gopro.data.folders.part_folders import find_parts, part_of, tested_part, training_parts
from gopro.data.images.image_file import ImageFile
from gopro.data.splits import Entries, dataset_from_entries, read_entries, save_entries
from gopro.errors import InputError, first_few

SPLIT_FILE = "split_gopro.json"


def folder_dataset(root: Path, seed: int = 1, *, on_error: OnError | None = None) -> Dataset:
    """Load a folder of class folders.

    Labels follow the sorted folder names; class names are these names with underscores as spaces. Images may lie in
    folders below their class folder. Hidden files and those that operating systems leave behind (Thumbs.db,
    desktop.ini, __MACOSX) are ignored; any other file in a class folder that is not an image is an error.

    Folders of parts may also be called `valid`, `Training` and so on (see `part_of`). If there are train and val alone,
    the images of val are the test images, with a warning.

    Without train and test folders, each class is split 50/20/30 into train, val and test as in CoOp, with at least one
    image to train and, if there is another, one to test on. The draw of a class depends only on `seed`, its name and
    the names of its images. It is written to `split_gopro.json` in the form of CoOp's split files, and that file counts
    from then on, whatever the seed. If the folder cannot be written to, the split is drawn again each time, with a
    warning.

    Images that were added since are dealt by `deal`, and the file is updated; images that were removed are left out,
    and stay in the file for when they are put back. Both with a warning that names them.

    Args:
        on_error: takes the errors of images and class folders, which are left out, and no split is written. By default,
            the first is raised.

    Raises:
        InputError: no such folder, fewer than two classes, a class of `split_gopro.json` without any image, or folders
            of domains instead of classes. See `on_error`: an empty class, class names that read the same, a file that
            is not an image, or splits with different classes.
    """
    root = root.expanduser()
    name, parts = _read_folder(root, on_error)
    if parts:
        return _load_parts(root, training_parts(root, parts), name, on_error)
    images = _class_images(root, on_error)
    _check_two(root, list(images))
    return dataset_from_entries(name, _entries(root, images, seed, save=on_error is None), root)


def folder_target(root: Path) -> Dataset:
    """Load a folder of class folders for a model that is trained on other data: with test images only.

    These are the images of the test folder, if the folder has parts, and otherwise all images. No split is drawn, and
    nothing is written. There may be a single class.

    Raises:
        InputError: as `folder_dataset`, except for what concerns a split.
    """
    root = root.expanduser()
    name, parts = _read_folder(root)
    if not parts:
        images = _class_images(root)
        if (root / SPLIT_FILE).exists():  # which may name the classes, and not as their folders
            whole = dataset_from_entries(name, _entries(root, images, save=False), root)
            test = sorted((*whole.train, *whole.val, *whole.test), key=lambda s: (s.label, s.image.name))
            return Dataset(name, whole.classnames, (), (), tuple(test))
        return Dataset(name, tuple(map(clean_name, images)), (), (), _samples(root, images, images))
    tested = tested_part(parts)
    if "test" not in parts:
        _warn(f"{root}: has no test folder; the images of {tested} are the test images")
    check_not_domains(root / tested)
    images = images_by_class(root / tested)
    # A class without test images is a class of the data set all the same.
    classes = {class_key(folder): folder for part in parts.values() for folder in class_folders(root / part)}
    classes |= {class_key(folder): folder for folder in images}
    order = sorted(classes.values())
    return Dataset(name, tuple(map(clean_name, order)), (), (), _samples(root / tested, images, order))


def recorded_split(root: Path) -> Dataset | None:
    """Load a folder by its `split_gopro.json` alone, whether its images are there or not; None without that file."""
    root = root.expanduser()
    file = root / SPLIT_FILE
    return dataset_from_entries(root.name, read_entries(file), root) if file.is_file() else None


def _read_folder(root: Path, on_error: OnError | None = None) -> tuple[str, dict[SplitName, str]]:
    """Return the name of a data set's folder, and its folders of parts, if it has any."""
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give one that holds a folder of images per class")
    folders = list(class_folders(root, on_error))
    if not folders:
        raise InputError(f"{root}: no class folders; put the images of each class in a folder named after the class")
    return Path(os.path.abspath(root)).name, find_parts(root, folders)


def _load_parts(root: Path, parts: Mapping[SplitName, str], name: str, on_error: OnError | None) -> Dataset:
    if part_of(parts["test"]) == "val":
        test = parts["test"]
        _warn(
            f"{root}: has no test folder; the images of {test} are the test images, and none are left to validate on; "
            f"rename {test} to test to say so"
        )
    for folder in parts.values():
        check_not_domains(root / folder)
    report = on_error or raise_error
    images = {part: images_by_class(root / folder, on_error=on_error) for part, folder in parts.items()}
    train = parts["train"]
    classes = {class_key(folder): folder for folder in images["train"]}
    for part, folder in parts.items():
        found = {class_key(name): name for name in images[part]}
        if missing := sorted(classes[key] for key in classes.keys() - found.keys()):
            lacked = first_few(missing)
            report(InputError(f"{root / folder}: lacks the class {lacked} of {train}; add or remove it in both"))
        if extra := sorted(found[key] for key in found.keys() - classes.keys()):
            named = first_few(extra)
            report(InputError(f"{root / folder}: has the class {named}, which {train} lacks; make them agree"))
    order = sorted(classes.values())
    _check_two(root / train, order)
    samples = {part: _samples(root / folder, images[part], order) for part, folder in parts.items()}
    classnames = tuple(map(clean_name, order))
    return Dataset(name, classnames, samples["train"], samples.get("val", ()), samples["test"])


def _samples(root: Path, images: Mapping[str, list[str]], order: Iterable[str]) -> tuple[Sample, ...]:
    """Label the images of class folders by the class folders in order, which need not be spelled alike."""
    by_key = {class_key(folder): paths for folder, paths in images.items()}
    return tuple(
        Sample(ImageFile(root / path), label)
        for label, folder in enumerate(order)
        for path in by_key.get(class_key(folder), ())
    )


def _class_images(root: Path, on_error: OnError | None = None) -> dict[str, list[str]]:
    """Map each class folder to its images, after checking that they are no domains."""
    check_not_domains(root)
    images = images_by_class(root, on_error=on_error)
    for folder in images:
        if part_of(folder) and len(images) > 1 and len(inner := inner_folders(root / folder)) > 1:
            _warn(
                f"{root / folder}: is taken for a class, though it holds only the folders {first_few(inner)}; if it is "
                "a part of the data set, let only train, test and perhaps val lie beside it"
            )
    return images


def _entries(root: Path, images: Mapping[str, list[str]], seed: int = 1, *, save: bool = True) -> Entries:
    """Return the split of a folder's images, read from its file and extended, or drawn.

    Args:
        save: write what was drawn or dealt.
    """
    file = root / SPLIT_FILE
    if not file.exists():
        entries = draw([(path, label, name) for label, name in enumerate(images) for path in images[name]], seed)
        if save:
            save_entries(file, entries)
        return entries
    entries = read_entries(file)
    present = {path for paths in images.values() for path in paths}
    if added := unlisted(entries, present, file):
        dealt = deal(entries, added, seed)
        known = {name for listed in entries.values() for _, _, name in listed}
        entries = {part: entries[part] + dealt[part] for part in get_args(SplitName)}
        if save:
            new = first_few(sorted({name for _, _, name in added} - known))
            _warn(
                f"{file}: did not list {first_few([path for path, _, _ in added])}; dealt {in_words(dealt)}"
                f"{f', with the new class {new}' if new else ''}; all other images stay where they were"
            )
            save_entries(file, entries)
    kept: Entries = {part: [entry for entry in listed if entry[0] in present] for part, listed in entries.items()}
    names = {label: name for listed in entries.values() for _, label, name in listed}
    gone = sorted(set(names) - {label for listed in kept.values() for _, label, _ in listed})
    if gone:
        raise InputError(
            f"{file}: no image of the class {first_few([names[label] for label in gone])} is there any more; put them "
            f"back, or remove {file.name} to have a new split drawn"
        )
    if removed := sorted(path for listed in entries.values() for path, _, _ in listed if path not in present):
        _warn(f"{file}: lists {first_few(removed)}, no longer there; left out, until put back")
    return kept


def _check_two(folder: Path, classes: list[str]) -> None:
    if len(classes) == 1:
        inner = inner_folders(folder / classes[0])
        hint = (
            f"give {folder / classes[0]} if its folders {first_few(inner)} are the classes; " if len(inner) > 1 else ""
        )
        raise InputError(f"{folder}: only one class ({classes[0]}); {hint}a classifier needs at least two")
    if not classes:
        raise InputError(f"{folder}: no class folders; a classifier needs at least two")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=1)  # from one line, so that Python shows a message once, however often it loads
