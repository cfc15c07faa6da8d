"""Weights in several files, as `transformers` saves large models: an index names the file of each tensor."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from gopro.errors import InputError

INDEX_SUFFIX = ".index.json"
"""Ending of an index: `model.safetensors.index.json`, `pytorch_model.bin.index.json`."""
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(\.\w+)")


def read_shards(index: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Read the tensors that an index lists from the files that it names, which lie beside it.

    Args:
        read: reads the tensors of one file.

    Raises:
        InputError: the index is damaged, or names a file in another folder; a file is missing, or lacks one of its
            tensors. And the errors of `read`.
    """
    files = _read_index(index)
    if missing := sorted({file for file in files.values() if not (index.parent / file).is_file()}):
        raise InputError(
            f"{index}: {missing[0]} is not beside it ({len(missing)} of {len(set(files.values()))} files are missing); "
            "download all of them into one folder"
        )
    tensors: dict[str, Any] = {}
    for file in sorted(set(files.values())):
        content = read(index.parent / file)
        for name in (name for name, its_file in files.items() if its_file == file):
            if name not in content:
                raise InputError(
                    f"{index.parent / file}: lacks {name[:80]}, which {index.name} says is in it; download both again"
                )
            tensors[name] = content[name]
    return tensors


def check_no_shard(path: Path) -> None:
    """Raise InputError if a file is one of several that `transformers` saved, by its name and an index beside it."""
    shard = _SHARD.fullmatch(path.name)
    if shard is not None and (index := path.with_name(f"{shard[1]}{shard[2]}{INDEX_SUFFIX}")).is_file():
        raise InputError(f"{path}: holds a part of the weights; give {index}, which names all parts")


def _read_index(index: Path) -> dict[str, str]:
    """Return the file of each tensor."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise InputError(f"{index}: not an index of weights, which has a weight_map; download it again") from error
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise InputError(f"{index}: its weight_map does not name a file for each tensor; download it again")
    for file in files.values():  # an index from a stranger must not choose what is opened elsewhere
        if not file or {PurePosixPath(file).name, PureWindowsPath(file).name} != {file}:
            raise InputError(f"{index}: names {file[:80]!r}, which is not a file beside it; download it again")
    return files
