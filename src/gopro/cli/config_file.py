"""A `--config` file: `key: value` lines and nothing else that YAML can express, or the `config.json` of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gopro.errors import InputError, one_line


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the settings of a YAML file, each a value or a list of values, or those that a run was trained with.

    Of a run's `config.json` the output is left out, so that the run is repeated in a folder of its own.

    The safe loader refuses Python objects. Nested values are refused here, which also disarms aliases of aliases: a
    few lines of those can expand to billions of values.

    Raises:
        InputError: the file does not exist, is not YAML, or holds something else.
    """
    import yaml

    if not path.is_file():
        raise InputError(f"--config {path}: no such file")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:  # ValueError: 2026-99-99, or not UTF-8
        raise InputError(f"--config {path} is not YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: expected settings as `key: value` lines")
    if isinstance(content.get("config"), dict) and "trained_with" in content:
        content = {name: value for name, value in content["config"].items() if name != "output" and value is not None}
    for key, value in content.items():
        values = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or not all(isinstance(v, str | int | float | None) for v in values):
            raise InputError(f"--config {path}: {str(key)[:80]}: expected a text, a number, or a list of them")
    return content
