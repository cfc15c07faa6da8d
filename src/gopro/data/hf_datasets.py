"""Data sets of Hugging Face's `datasets`, by name or saved on disk; the extra `datasets`."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from gopro.data.class_names import class_key, clean_name
from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.folders.part_folders import part_of
from gopro.data.images.image_file import content_hash, decode, digest_at_levels
from gopro.data.images.levels import Levels
from gopro.data.splits import split_in_three
from gopro.errors import InputError, first_few

PREFIX = "hf:"
"""Begins the name of a data set on the Hugging Face Hub: `hf:ethz/food101`."""

_NAME = re.compile(r"hf:([\w./-]+)(?:\[([^\]]*)\])?")
_FORM = "write hf:NAME, or hf:NAME[config=CONFIG,label=COLUMN]"
_PARTS: tuple[SplitName, ...] = ("train", "val", "test")
_TEXT_LABELS = ("label", "class", "class_name", "category")


@dataclass(frozen=True)
class TableImage:
    """An image in a table of `datasets`, which holds the bytes of its file, or its path."""

    name: str
    table: Any = field(repr=False, compare=False)
    index: int = 0
    levels: Levels | None = None

    def at_levels(self, levels: Levels) -> TableImage:
        """Return the same image, opened at these levels."""
        return replace(self, levels=levels)

    def open(self) -> Image.Image:
        """Decode the image; see `gopro.data.images.image_file.decode`."""
        return decode(io.BytesIO(self._content()), self.name, levels=self.levels)

    def digest(self) -> str:
        """Hash the bytes of the image's file, as `ImageFile` does."""
        return digest_at_levels(content_hash(self._content()).hexdigest(), self.levels)

    def _content(self) -> bytes:
        [cell] = self.table[self.index].values()
        try:
            return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
        except (OSError, TypeError) as error:
            reason = getattr(error, "strerror", None) or "the table has none"
            raise InputError(f"{self.name}: the image cannot be read ({reason}); save the data set again") from error


def is_saved(folder: Path) -> bool:
    """Tell whether `datasets` saved a data set to this folder (`save_to_disk`)."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    )


def hf_dataset(name: str, *, as_target: bool = False) -> Dataset:
    """Load a data set of the Hugging Face Hub, or from its cache on this machine.

    Its splits are used as they are, also under the names validation, valid and so on. If there is only one, it is split
    as a folder is; if there are train and validation alone, the images of validation are the test images. Nothing that
    the data set brings is executed.

    Args:
        name: `hf:NAME`, or `hf:NAME[config=CONFIG,label=COLUMN]` for one of several configurations, or of several
            columns of labels.
        as_target: for a model that is trained on other data: with test images only, which are all if there is only one
            split.

    Raises:
        InputError: `datasets` is not installed, the data set cannot be loaded, or it has no images or labels.
    """
    match = _NAME.fullmatch(name)
    options: dict[str, str] = {}
    for option in filter(None, (match[2] or "").split(",") if match else ()):
        key, _, value = option.partition("=")
        options[key.strip()] = value.strip()
    if match is None or set(options) - {"config", "label"}:
        raise InputError(f"{name}: {_FORM}")
    datasets = _import(name)
    try:
        loaded = datasets.load_dataset(match[1], options.get("config"))
    except Exception as error:  # of the network, of the Hub, of any of the formats
        raise InputError(f"{name}: cannot be loaded ({_reason(error)}); {_FORM}") from error
    return _to_dataset(loaded, match[1], name, options.get("label"), as_target)


def saved_dataset(folder: Path, *, as_target: bool = False) -> Dataset:
    """Load a data set that `datasets` saved to a folder; see `hf_dataset`.

    Raises:
        InputError: as `hf_dataset`.
    """
    datasets = _import(str(folder))
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise InputError(f"{folder}: cannot be loaded ({_reason(error)}); save it again") from error
    return _to_dataset(loaded, Path(os.path.abspath(folder)).name, folder.as_posix(), None, as_target)


def _import(name: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{name}: needs the library datasets: pip install '.[datasets]'") from error
    return datasets


def _reason(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:200]


def _to_dataset(loaded: Any, name: str, where: str, column: str | None, as_target: bool) -> Dataset:
    rows: dict[SplitName, list[tuple[TableImage, str]]] = {}
    published: list[str] = []
    for part, table in _parts(loaded if isinstance(loaded, Mapping) else {"train": loaded}, where).items():
        names, labels = _labels(table, where, column)
        published += names
        images = _images(table, f"{where}/{part}")
        rows[part] = [(image, label) for image, label in zip(images, labels, strict=True) if label is not None]
        if len(rows[part]) < len(labels):
            _warn(f"{where}: {len(labels) - len(rows[part])} images of {part} have no label; left out")
    found = {label for listed in rows.values() for _, label in listed}
    order = [label for label in dict.fromkeys(published) if label in found]
    _check_names(order, where)
    number = {label: i for i, label in enumerate(order)}
    samples = {part: [Sample(image, number[label]) for image, label in listed] for part, listed in rows.items()}
    if list(samples) == ["train"]:
        samples = {"test": samples["train"]} if as_target else _draw(samples["train"], order)
    elif "test" not in samples and "val" in samples:
        if "train" in samples and not as_target:
            _warn(f"{where}: has no split test; its validation images are the test images, and none validate")
        samples["test"] = samples.pop("val")
    train, val, test = (() if as_target and part != "test" else tuple(samples.get(part, ())) for part in _PARTS)
    return Dataset(name, tuple(map(clean_name, order)), train, val, test)


def _draw(samples: list[Sample], order: list[str]) -> dict[SplitName, list[Sample]]:
    """Split each class 50/20/30, as a folder's."""
    by_name = {sample.image.name: sample for sample in samples}
    entries = split_in_three((name, sample.label, order[sample.label]) for name, sample in by_name.items())
    return {part: [by_name[name] for name, _, _ in listed] for part, listed in entries.items()}


def _parts(tables: Mapping[str, Any], where: str) -> dict[SplitName, Any]:
    """Map train, val and test to their tables; other splits are left out with a warning."""
    parts: dict[SplitName, Any] = {}
    for split, table in tables.items():
        part = part_of(split)
        if part is None and len(tables) == 1:
            part = "train"
        if part is None:
            _warn(f"{where}: the split {split} is neither train, validation nor test; left out")
        elif part in parts:
            raise InputError(f"{where}: has two splits that mean {part}; save it with train, validation and test")
        else:
            parts[part] = table
    if not parts:
        raise InputError(f"{where}: has no split train, validation or test, only {first_few(list(tables))}")
    return parts


def _images(table: Any, where: str) -> list[TableImage]:
    datasets = _import(where)
    columns = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if len(columns) != 1:
        found = f"the columns {first_few(columns)} of images" if columns else "no column of images"
        raise InputError(f"{where}: has {found}; save it with one, of the feature Image()")
    undecoded = table.select_columns(columns).cast_column(columns[0], datasets.Image(decode=False))
    return [TableImage(f"{where}/{i}", undecoded, i) for i in range(len(table))]


def _labels(table: Any, where: str, column: str | None) -> tuple[list[str], list[str | None]]:
    """Return the class names in the order of the labels, and the class name of each row, None without a label."""
    datasets, features = _import(where), table.features
    numbered = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    if column is None:
        named = [name for name in _TEXT_LABELS if getattr(features.get(name), "dtype", None) == "string"]
        column = "label" if "label" in numbered else next(iter(numbered or named), None)
        if len(numbered) > 1 and column != "label":
            raise InputError(
                f"{where}: the columns {first_few(numbered)} hold labels; call one of them label, or write "
                f"hf:NAME[label={numbered[0]}]"
            )
    if column is None or column not in features:
        raise InputError(f"{where}: has no column {column or 'of labels'}, only {first_few(list(features))}; {_FORM}")
    values = table[column][:]
    if column in numbered:
        names = list(features[column].names)
        return names, [names[value] if value is not None and value >= 0 else None for value in values]
    if getattr(features[column], "dtype", None) != "string":
        raise InputError(f"{where}: the column {column} has no class names; cast it to ClassLabel(names=[...])")
    return sorted({value for value in values if value}), [value or None for value in values]


def _check_names(names: list[str], where: str) -> None:
    spelled: dict[str, str] = {}
    for name in names:
        if not class_key(name):
            raise InputError(f"{where}: the class name {name!r} is empty")
        if (other := spelled.setdefault(class_key(name), name)) != name:
            raise InputError(f"{where}: {other!r} and {name!r} give the same class name; make them alike")


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=1)  # from one line, so that Python shows a message once, however often it loads
