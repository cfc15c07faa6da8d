"""A `--config` file: settings as `key: value` lines, and nothing else that YAML can say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gopro.errors import InputError


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, each a value or a list of values.

    Objects of Python are refused by the safe loader, and what nests by the rule above, so that aliases of aliases, of
    which a short file can make billions, come to nothing.

    Raises:
        InputError: there is no such file, it is no YAML, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"--config {path}: no such file")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:  # ValueError: 2026-99-99, or no UTF-8
        raise InputError(f"--config {path} is not YAML: {' '.join(str(error).split())[:300]}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: expected settings as `key: value` lines")
    for key, value in content.items():
        values = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or not all(isinstance(v, str | int | float | None) for v in values):
            raise InputError(f"--config {path}: {str(key)[:80]}: expected a text, a number, or a list of them")
    return content
