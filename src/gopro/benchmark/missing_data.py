"""Benchmark data sets that are not on disk, named all at once before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gopro.data.load_dataset import BENCHMARKS, joined_names
from gopro.errors import InputError, first_few


def check_present(root: Path | None, flag: str, names: Sequence[str], source: str | None = None) -> None:
    """Check that the benchmark data sets among `names` and `source` are complete; other names are not checked.

    Args:
        root: the folder that contains them.
        flag: the option that takes `names`, for the message.
        source: the data set to train on, without which none of the others can be run.

    Raises:
        InputError: some are missing. The message says how to get them and how to run without them.
    """
    joined = [each for name in ((*names, source) if source else names) for each in joined_names(name, root)]
    wanted = {name: BENCHMARKS[name] for name in joined if name in BENCHMARKS}
    if root is None and wanted:
        folders = ", ".join(dict.fromkeys(f"{entry.folder}/" for entry in wanted.values()))
        raise InputError(
            f"{', '.join(wanted)}: give --root FOLDER, the folder that contains {folders}; gopro data prepare NAME "
            "--root FOLDER downloads a data set"
        )
    missing = {name: paths for name, entry in wanted.items() if (paths := entry.missing(root or Path()))}
    if not missing:
        return
    listed = "; ".join(f"{name}: there is no {first_few(list(map(str, paths)))}" for name, paths in missing.items())
    rest = [name for name in names if missing.keys().isdisjoint(joined_names(name, root))]
    can_train = source is None or missing.keys().isdisjoint(joined_names(source, root))
    without = f", or run without: --{flag} {' '.join(rest)}" if rest and can_train else ""
    name = next(iter(missing)) if len(missing) == 1 else "NAME"
    raise InputError(f"{listed}. Get it with gopro data prepare {name} --root {root}{without}")
