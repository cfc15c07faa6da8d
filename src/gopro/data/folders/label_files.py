"""Data sets whose labels stand in a file: a CSV with the columns path and label, or a split file of CoOp.

The images may lie in any folders beside the file.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

from gopro.data.class_names import class_key
from gopro.data.dataset import Dataset, SplitName
from gopro.data.extend_split import deal, draw, in_words
from gopro.data.folders.part_folders import part_of
from gopro.data.splits import Entries, Entry, dataset_from_entries, read_entries, save_entries
from gopro.errors import InputError, first_few

LABEL_SUFFIXES = (".csv", ".tsv", ".json")
"""Endings, in lower case, of the files that are data sets."""

_IN_FOLDER = ("labels.csv", "metadata.csv")  # the latter in Hugging Face's image folders
_COLUMNS = {
    "path": ("path", "file_name", "filename", "file", "filepath", "image_path", "image"),
    "label": ("label", "class", "class_name", "classname", "category"),
    "split": ("split", "part", "subset"),
}
_PARTS = get_args(SplitName)


class _Row(NamedTuple):
    path: str
    label: str
    part: SplitName | None


def find_label_file(folder: Path) -> Path | None:
    """Return the file in a folder that labels its images; None if its class folders do.

    It is a `split_gopro.json` over images that are not in class folders; without such a file `labels.csv`, or a
    `metadata.csv` that has the same columns; else CoOp's `split_zhou_*.json`.

    Raises:
        InputError: several split files of CoOp.
    """
    own = folder / "split_gopro.json"
    if own.is_file():
        return None if _in_class_folders(read_entries(own)) else own
    for name in _IN_FOLDER:
        file = folder / name
        if file.is_file() and set(_columns(_header(file))) >= {"path", "label"}:
            return file
    splits = sorted(folder.glob("split_zhou_*.json"))
    if len(splits) > 1:
        raise InputError(f"{folder}: holds {first_few([file.name for file in splits])}; give one of them as --data")
    return splits[0] if splits else None


def label_file_dataset(file: Path, seed: int = 1, *, save: bool = True) -> Dataset:
    """Load a CSV or a split file.

    The paths start from the file's folder, or from a folder beside it, as in CoOp. The first line of a CSV names its
    columns, in any order: path (or file_name, image), label (or class, category) and perhaps split (train, val or
    test, under any of their usual names). Others are ignored. Columns are separated by commas, semicolons or tabs.
    Labels of a CSV are in the order of the names.

    Without a column split, each class is split 50/20/30. That is written beside the CSV, to `split_gopro_NAME.json`,
    and rows that are added later are dealt without moving any other; see `gopro.data.extend_split`.

    Args:
        save: write the split that was drawn or dealt.

    Raises:
        InputError: the file cannot be read or lacks a column; a row has no path or label, or repeats a path; a path
            leads out of the folder; fewer than two classes; none of the images is there.
    """
    if file.suffix.lower() == ".json":
        entries = read_entries(file)
    else:
        rows = _read_rows(file)
        entries = _given_parts(file, rows) if rows[0].part else _dealt_parts(file, rows, seed, save)
    if len({label for listed in entries.values() for _, label, _ in listed}) < 2:
        raise InputError(f"{file}: only one class; a classifier needs at least two")
    return _dataset(file, entries)


def label_file_target(file: Path) -> Dataset:
    """Load a CSV or a split file for a model that is trained on other data: with test images only.

    They are those of the split test, or of a CSV without splits all images. Nothing is written.

    Raises:
        InputError: as `label_file_dataset`, but there may be a single class.
    """
    if file.suffix.lower() == ".json":
        return replace(_dataset(file, read_entries(file)), train=(), val=())
    rows = _read_rows(file)
    tested = next((part for part in ("test", "val", "train") if any(row.part == part for row in rows)), None)
    labels = _labels(file, rows)
    test = [(row.path, labels[row.label], row.label) for row in rows if row.part == tested]
    others = [(row.path, labels[row.label], row.label) for row in rows if row.part != tested]  # they name classes
    return replace(_dataset(file, {"train": others, "val": [], "test": test}), train=(), val=())


def _dataset(file: Path, entries: Entries) -> Dataset:
    folder = Path(os.path.abspath(file)).parent
    own_name = file.name not in _IN_FOLDER and not file.name.startswith("split_")
    images = _images_folder(file, [path for listed in entries.values() for path, _, _ in listed])
    return dataset_from_entries(file.stem if own_name else folder.name, entries, images)


def _images_folder(file: Path, paths: list[str]) -> Path:
    """Return the folder that the paths start from: the file's own or one beside the file."""
    beside = sorted(path for path in file.parent.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in paths[:20]:  # the first may be missing
        for folder in (file.parent, *beside):
            if (folder / path).exists():
                return folder
    raise InputError(
        f"{file}: {paths[0]} is not there; paths must start from the folder of the file or from a folder beside it"
    )


def _in_class_folders(entries: Entries) -> bool:
    """Tell whether each folder at the top holds images of a single class."""
    class_of: dict[str, int] = {}
    for path, label, _ in (entry for listed in entries.values() for entry in listed):
        top, slash, _ = path.partition("/")
        if not slash or class_of.setdefault(top, label) != label:
            return False
    return True


def _header(file: Path) -> list[str]:
    """Return the cells of a CSV's first line; none if it cannot be read."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            return _cells(lines.readline(1 << 16))
    except (OSError, UnicodeDecodeError):
        return []


def _cells(line: str) -> list[str]:
    return next(csv.reader([line], delimiter=_delimiter(line)), [])


def _delimiter(header: str) -> str:
    """Return the separator of which the first line has most: a comma, or what spreadsheets write instead."""
    return max(",;\t", key=header.count)


def _columns(header: Iterable[str]) -> dict[str, int]:
    """Map path, label and split to the index of their columns, as far as they are there."""
    names = [name.strip().casefold().replace(" ", "_") for name in header]
    return {
        column: names.index(found)
        for column, called in _COLUMNS.items()
        if (found := next((name for name in called if name in names), None))
    }


def _read_rows(file: Path) -> list[_Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: is not UTF-8 text; save it as CSV UTF-8") from error
    header = text.partition("\n")[0].rstrip("\r")
    columns = _columns(_cells(header))
    if missing := [name for name in ("path", "label") if name not in columns]:
        raise InputError(
            f"{file}: has no column {' and no column '.join(missing)}; its first line must name the columns: "
            f"path,label or path,label,split, but is {header[:80]!r}"
        )
    rows: list[_Row] = []
    line_of: dict[str, int] = {}
    folder = Path(os.path.abspath(file)).parent
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(header))
    next(reader)
    try:
        for cells in reader:
            if not any(map(str.strip, cells)):
                continue
            row = _row(cells, columns, folder, f"{file}: line {reader.line_num}")
            if (first := line_of.setdefault(row.path, reader.line_num)) != reader.line_num:
                raise InputError(f"{file}: line {reader.line_num}: {row.path} is in line {first} too; keep one of them")
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num}: not CSV ({error})") from error
    if not rows:
        raise InputError(f"{file}: has no rows below its first line")
    return rows


def _row(cells: list[str], columns: Mapping[str, int], folder: Path, where: str) -> _Row:
    def cell(column: str) -> str:
        index = columns[column]
        if index >= len(cells) or not cells[index].strip():
            raise InputError(f"{where}: has no {column}; fill it in, or remove the line")
        return cells[index].strip()

    path, label = cell("path").replace("\\", "/"), cell("label")
    if os.path.isabs(path) and Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    path = path.removeprefix("./")
    if os.path.isabs(path) or ".." in path.split("/"):
        raise InputError(f"{where}: {path} must lie below {folder}; move the file to a folder above the images")
    if not class_key(label):
        raise InputError(f"{where}: label {label!r} gives an empty class name")
    if "split" not in columns:
        return _Row(path, label, None)
    part = part_of(cell("split"))
    if part is None:
        raise InputError(f"{where}: split is {cell('split')[:40]!r}; write train, val or test")
    return _Row(path, label, part)


def _labels(file: Path, rows: Iterable[_Row], known: Iterable[str] = ()) -> dict[str, int]:
    """Number the labels: those `known` first, then the others in the order of their names."""
    spelled: dict[str, str] = {}
    for row in rows:
        if (other := spelled.setdefault(class_key(row.label), row.label)) != row.label:
            raise InputError(f"{file}: {other!r} and {row.label!r} give the same class name; write them alike")
    order = [key for key in map(class_key, known) if key in spelled]
    order += sorted(spelled.keys() - set(order), key=lambda key: spelled[key])
    return {spelled[key]: number for number, key in enumerate(order)}


def _given_parts(file: Path, rows: list[_Row]) -> Entries:
    """Return the entries of a CSV that has splits; without test, the images of val are the test images."""
    labels = _labels(file, rows)
    entries: Entries = {part: [] for part in _PARTS}
    for row in rows:
        assert row.part is not None
        entries[row.part].append((row.path, labels[row.label], row.label))
    if not entries["train"]:
        found = " and ".join(part for part in _PARTS if entries[part])
        raise InputError(
            f"{file}: has only images of {found}, none to train on. To test a run on it: gopro eval RUN --data {file}"
        )
    if not entries["test"]:
        if not entries["val"]:
            raise InputError(f"{file}: every split is train; add test, or remove the column to have a split drawn")
        _warn(f"{file}: has no split test; the images of val are the test images, and none are left to validate on")
        entries["test"], entries["val"] = entries["val"], []
    return entries


def _dealt_parts(file: Path, rows: list[_Row], seed: int, save: bool) -> Entries:
    """Split the rows as before, deal those that were added since, or draw a split."""
    split_file = file.with_name(f"split_gopro_{file.stem}.json")
    before = read_entries(split_file) if split_file.exists() else {part: [] for part in _PARTS}
    known = {label: name for listed in before.values() for _, label, name in listed}
    labels = _labels(file, rows, [known[label] for label in sorted(known)])
    now: list[Entry] = [(row.path, labels[row.label], row.label) for row in rows]
    part_before = {path: part for part, listed in before.items() for path, _, _ in listed}
    entries: Entries = {part: [entry for entry in now if part_before.get(entry[0]) == part] for part in _PARTS}
    added = [entry for entry in now if entry[0] not in part_before]
    if not part_before:
        entries = draw(now, seed)
    elif added:
        dealt = deal(entries, added, seed)
        entries = {part: entries[part] + dealt[part] for part in _PARTS}
        if save:
            _warn(f"{file}: {len(added)} images are new; dealt {in_words(dealt)}; all others stay where they were")
    if added and save:
        save_entries(split_file, entries)
    return entries


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=1)  # from one line, so that Python shows a message once, however often it loads
