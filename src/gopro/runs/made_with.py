"""A record of all settings that can change a result, by which a sweep tells whether it would make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig, settings_that_change_results
from gopro.runs.run import CONFIG
from gopro.runs.trained_with import TrainedWith

Record = dict[str, Any]
"""JSON values by name; `made_with` in a row of results.jsonl."""


def made_with(config: TrainConfig, trained_with: TrainedWith) -> Record:
    """Return the record of a training: the resolved recipe and method, and the settings that no recipe resolves.

    Settings with the mark `SAME_RESULTS` are left out, and so is everything in a `RunKey`.
    """
    others = {name: getattr(config, name) for name in _settings_beside_the_recipe()}
    return _with_bank(json.loads(json.dumps({**trained_with.to_json(), **others})), config.bank)


def recorded(folder: Path) -> Record | None:
    """Return the record of the training in a run's folder; None if an earlier version made it, which wrote none.

    Entries that its version did not know are missing, where `read_config` would fill in today's defaults.

    Args:
        folder: with a valid `config.json`; see `read_config`.
    """
    content = json.loads((folder / CONFIG).read_bytes())
    trained_with, config = content.get("trained_with"), content["config"]
    if trained_with is None:
        return None
    others = {name: config[name] for name in _settings_beside_the_recipe() if name in config}
    return _with_bank({**trained_with, **others}, config.get("bank"))


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say what the first difference between two records is; None if they make the same result.

    Example:
        >>> difference({"recipe": {"epochs": 5}}, {"recipe": {"epochs": 10}})
        'was made with epochs 5, not 10'
        >>> difference({}, {"accumulate": 1})
        'was made by an earlier version of gopro, which did not record accumulate'
    """
    for name in {**now, **before}:
        if name not in before:
            if now[name] is None or now[name] is False:  # changes nothing unless it is given or switched on
                continue
            return f"was made by an earlier version of gopro, which did not record {name}"
        if name not in now:
            return f"was made with {name} {before[name]}, which this version of gopro does not have"
        old, new = before[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            if (inner := difference(old, new)) is not None:
                return inner
        elif old != new:
            return f"was made with {name} {old}, not {new}"
    return None


def _with_bank(record: Record, given: int | None) -> Record:
    """Put the view bank beside the recipe, where the rows of versions have it whose recipes had no bank.

    Args:
        given: the setting `bank`, which holds if the record's recipe has none.
    """
    recipe = dict(record["recipe"] or {})
    bank = recipe.pop("bank", given or 0)
    return {**record, "recipe": recipe if record["recipe"] else None, "bank": bank}


def _settings_beside_the_recipe() -> list[str]:
    resolved = {field.name for field in fields(Recipe)}
    return [name for name in settings_that_change_results() if name not in resolved]
