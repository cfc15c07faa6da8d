"""Class names as people write them: in folder names, on the command line, in files, in Python and over HTTP."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gopro.errors import InputError

NAME_FILES = (".txt", ".json")
"""Endings of the files that `--classes` reads instead of taking them for a name."""

_LISTED = re.compile(r'\s*+(?:"((?:[^"]|"")*)"\s*|([^",\n][^,\n]*)?)(?:[,\n]|\Z)')
"""A name up to the next comma or line end: in double quotes, or without one at its beginning."""


def clean_name(name: str) -> str:
    """Write a class name as in a prompt.

    Underscores become spaces, as in CoOp; outer and repeated spaces go. Accented letters become one character each
    (NFC): macOS writes folder names with the accent as a character of its own (NFD).

    Example:
        >>> clean_name(" snowy__owl ")
        'snowy owl'
        >>> clean_name("cafe\\u0301") == "caf\\u00e9"
        True
    """
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split())


def class_key(name: str) -> str:
    """Return what the spellings of one class name have in common.

    Example:
        >>> class_key("Snowy_owl") == class_key("snowy owl")
        True
    """
    return clean_name(name).casefold()


def clean_names(names: Iterable[str]) -> list[str]:
    """Clean the names that a classifier is to choose from.

    Raises:
        InputError: not a list of names, an empty name, or only one, which would get 100 % for every image.

    Example:
        >>> clean_names(["snowy_owl", "red fox"])
        ['snowy owl', 'red fox']
    """
    if isinstance(names, str):
        raise InputError(f"class names {names!r}: give a list of names, such as [{names!r}, 'something else']")
    cleaned = []
    for name in names:
        if not isinstance(name, str) or not clean_name(name):
            raise InputError(f"class name {name!r} is empty or no text: give a name in words")
        cleaned.append(clean_name(name))
    if len(cleaned) == 1:
        several = "; a list in one text counts as one name, so give its names one by one" if "," in cleaned[0] else ""
        raise InputError(
            f"class name {cleaned[0][:80]!r} alone would get 100 % for every image: give at least two names, the "
            f"others being what else the images may show, such as 'something else'{several}"
        )
    if not cleaned:
        raise InputError("no class names: give at least two")
    return cleaned


def parse_names(text: str, source: str = "--classes") -> list[str]:
    """Read names separated by commas or line ends, or a JSON list of names.

    As in CSV, a name with a comma stands in double quotes, and a double quote in such a name is doubled. Blank names
    are left out.

    Args:
        source: where the text comes from, for the error.

    Raises:
        InputError: a double quote at the beginning of a name and none at its end; a text that starts as a JSON list but
            is none of names.

    Example:
        >>> parse_names('red fox, "owl, white", baker\\'s shop')
        ['red fox', 'owl, white', "baker's shop"]
        >>> parse_names('["owl, white", "fox"]')
        ['owl, white', 'fox']
    """
    if text.lstrip().startswith("["):
        return _parse_json(text, source)
    names, start = [], 0
    while start < len(text):
        match = _LISTED.match(text, start)
        if match is None:
            raise InputError(
                f"{source}: {text[start : start + 40].strip()!r} starts with a double quote that does not end the "
                'name: write a name with a comma as "owl, white", and double a double quote in it: """Owl"", a film"'
            )
        quoted, plain = match.groups()
        names.append(plain if quoted is None else quoted.replace('""', '"'))
        start = match.end()
    return [name.strip() for name in names if name and name.strip()]


def read_names(file: Path) -> list[str]:
    """Read class names from a file, one per line, or a JSON list of names.

    A line is a name as it is, commas included; a name may stand in double quotes. Blank lines are left out.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or holds JSON other than a list of names.
    """
    try:
        text = file.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read class names from {file}: {reason}") from error
    if file.suffix.lower() == ".json" or text.lstrip().startswith("["):
        return _parse_json(text, str(file))
    return [_unquote(line) for line in map(str.strip, text.splitlines()) if line]


def _parse_json(text: str, source: str) -> list[str]:
    example = 'write ["red fox", "snowy owl"]'
    try:
        names: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a JSON list of class names ({error}); {example}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{source}: JSON, but not a list of class names; {example}")
    return names


def _unquote(line: str) -> str:
    """Remove double quotes around a whole line, if no single one stands between them."""
    match = re.fullmatch(r'"((?:[^"]|"")*)"', line)
    return line if match is None else match[1].replace('""', '"')
