"""A data set by name: one in the package, a benchmark of the catalog, or a folder of the user's own images."""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from gopro.data.dataset import Dataset
from gopro.data.embedded.emoji import SETS, emoji_dataset
from gopro.data.embedded.photos import PHOTOS, photos_dataset
from gopro.data.folders.class_folders import folder_dataset, folder_target
from gopro.data.folders.find_images import OnError
from gopro.data.folders.label_files import LABEL_SUFFIXES, find_label_file, label_file_dataset, label_file_target
from gopro.data.hf_datasets import PREFIX, hf_dataset, is_saved, saved_dataset
from gopro.data.images.levels import Levels, with_levels
from gopro.data.mixed import JOIN, mix, pieces, split_at_paths
from gopro.data.published.catalog import CATALOG, Benchmark
from gopro.data.published.pacs import PACS
from gopro.errors import InputError

BENCHMARKS: dict[str, Benchmark] = {**CATALOG, **PACS}
"""The data sets below `root`, by name: those of CoOp's protocols, and the domains of PACS."""


def load_dataset(name: str, root: Path | None = None, *, levels: Levels | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: a data set in the package (`photos`, `emoji-animals` or `emoji-animals:STYLE`), a benchmark
            (`caltech101`, `pacs:photo`), a data set of the Hugging Face Hub (`hf:ethz/food101`), or a path, as it is or
            below `root`: a folder of class folders, one that `datasets` saved, a CSV with the columns path and label,
            or a split file of CoOp. The name of a data set always means that data set; write `./photos` for a folder
            of that name. Or several of these with `+` between them, which have the same classes in different styles:
            `pacs:photo+pacs:cartoon` (see `gopro.data.mixed.mix`). A path that exists is not divided at a `+`.
        root: the folder that contains the benchmark data sets, in CoOp's layout.
        levels: two values that images with more than 8 bits per sample show as black and white; see
            `gopro.data.images.image_file.decode`.

    Raises:
        InputError: nothing has that name, a benchmark is missing from `root`, its files are invalid, or the levels are.

    Example:
        >>> import gopro
        >>> animals = gopro.load_dataset("emoji-animals:noto")
        >>> len(animals.classnames), animals.classnames[0]
        (158, 'T-Rex')
    """
    return with_levels(_join(_load, name, root), levels)


def _join(load: Callable[[str, Path | None], Dataset], name: str, root: Path | None) -> Dataset:
    """Load each of the data sets that a name joins, and join them if there are several."""
    datasets = [load(each, root) for each in joined_names(name, root)]
    return datasets[0] if len(datasets) == 1 else mix(datasets)


def _load(name: str, root: Path | None) -> Dataset:
    if name.startswith("emoji-"):
        return emoji_dataset(name)
    if name == PHOTOS:
        if (folder := _existing_folder(name, root)) is not None:
            warnings.warn(
                f"{name} means the photographs that come with gopro; for the folder {folder} write {_as_path(folder)}",
                stacklevel=4,
            )
        return photos_dataset()
    if name in BENCHMARKS:
        if root is None:
            raise InputError(f"{name}: give --root FOLDER, the folder that contains {BENCHMARKS[name].folder}/")
        return BENCHMARKS[name].load(root)
    if name.startswith(PREFIX):
        return hf_dataset(name)
    if own := find_folder(name, root):
        return load_own(own)
    if name.lower().endswith(LABEL_SUFFIXES):
        raise InputError(f"{name}: there is no such file; check the path")
    close = difflib.get_close_matches(name, (PHOTOS, *SETS, *BENCHMARKS), n=1)
    hint = f"did you mean {close[0]}?" if close else "give the path of a folder, or a name that gopro data list shows"
    raise InputError(f"{name}: no such data set or folder; {hint}")


def load_own(path: Path, on_error: OnError | None = None) -> Dataset:
    """Load the user's own folder or file of labels, which `find_folder` found.

    Args:
        on_error: takes the errors of images and class folders, which are left out; and no split is written. By default,
            the first is raised.

    Raises:
        InputError: see `on_error`; and what makes all of it unusable.
    """
    save = on_error is None
    if path.is_file():
        return label_file_dataset(path, save=save)
    if is_saved(path):
        return saved_dataset(path)
    if file := find_label_file(path):
        return label_file_dataset(file, save=save)
    return folder_dataset(path, on_error=on_error)


def load_target(name: str, root: Path | None = None, *, levels: Levels | None = None) -> Dataset:
    """Load a data set for a model that is trained on another one: with test images only.

    They are the data set's own test images where it comes with a split, so that figures compare with those of others,
    and all images of a folder or a domain of PACS, whose split gopro would have to draw.

    The arguments and errors are those of `load_dataset`.
    """
    return with_levels(_join(_load_target, name, root), levels)


def _load_target(name: str, root: Path | None) -> Dataset:
    if name in BENCHMARKS and root is not None:
        return BENCHMARKS[name].load_target(root)
    if name.startswith(PREFIX):
        return hf_dataset(name, as_target=True)
    if own := find_folder(name, root):
        if own.is_dir() and is_saved(own):
            return saved_dataset(own, as_target=True)
        file = own if own.is_file() else find_label_file(own)
        return folder_target(own) if file is None else label_file_target(file)
    return replace(_load(name, root), train=(), val=())


def joined_names(name: str, root: Path | None = None) -> list[str]:
    """Return the names of the data sets that a name joins with `+`; the name alone if it joins none.

    A text with a `+` of which nothing is known or exists is a single name, so that the error quotes all of it.

    Raises:
        InputError: there is nothing before or after a `+`.
    """
    if len(pieces(name)) == 1 or has_own_name(name):
        return pieces(name)

    def is_path(text: str) -> bool:
        return bool(text) and _existing_path(text, root) is not None

    names = split_at_paths(name, is_path)
    if not any(has_own_name(each) or is_path(each) for each in names):
        return [name]
    if not all(names):
        raise InputError(f"{name}: give a data set before and after each +")
    return names


def absolute_name(name: str, root: Path | None = None) -> str:
    """Return a name that loads the same data set from any working folder: its paths are absolute, and links resolved.

    Args:
        root: as in `load_dataset`; benchmarks are still looked for there.
    """
    folders = [(each, find_folder(each, root)) for each in joined_names(name, root)]
    return JOIN.join(each if folder is None else str(folder.resolve()) for each, folder in folders)


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """Find the user's folder or file of labels that `load_dataset` would load; None if the name means another thing."""
    if not name or has_own_name(name):
        return None
    return _existing_path(name, root)


def has_own_name(name: str) -> bool:
    """Tell whether a name means published data sets or some in this package, whatever folders there are."""
    return all(is_packaged(each) or each in BENCHMARKS or each.startswith(PREFIX) for each in pieces(name))


def is_packaged(name: str) -> bool:
    """Tell whether a name means data sets that come with this package, so that their images are nobody's secret."""
    return all(each == PHOTOS or each.startswith("emoji-") for each in pieces(name))


def _existing_folder(name: str, root: Path | None) -> Path | None:
    return next((folder for folder in _candidates(name, root) if folder.is_dir()), None)


def _existing_path(name: str, root: Path | None) -> Path | None:
    """Find a folder of that name, else a file of labels."""
    return _existing_folder(name, root) or next(
        (path for path in _candidates(name, root) if _is_label_file(path)), None
    )


def _candidates(name: str, root: Path | None) -> list[Path]:
    path = Path(os.path.expanduser(name))
    return [path] if root is None else [path, root.expanduser() / path]


def _is_label_file(path: Path) -> bool:
    return path.name.lower().endswith(LABEL_SUFFIXES) and path.is_file()


def _as_path(folder: Path) -> str:
    """Write a path so that it cannot be taken for a name."""
    return folder.as_posix() if len(folder.parts) > 1 else f"./{folder}"
