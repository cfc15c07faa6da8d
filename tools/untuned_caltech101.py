"""Write a split file of Caltech101 without the classes of `photos`, on which settings are chosen.

    python -m tools.untuned_caltech101 FOLDER

FOLDER is Caltech101 with CoOp's split file, as `gopro data prepare caltech101` leaves it. The split file
`caltech101-untuned.json` in it is a data set of its own: `--data FOLDER/caltech101-untuned.json`. The other 70 classes
and their images stay in CoOp's order and splits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gopro.data.splits import Entries, read_entries, save_entries
from tools.build_photos import CLASSES, SPLIT_FILE

UNTUNED = "caltech101-untuned.json"


def without_photos(entries: Entries) -> Entries:
    """Leave out the classes of `photos`, and number the others from 0."""
    left = sorted({(label, name) for listed in entries.values() for _, label, name in listed if name not in CLASSES})
    labels = {name: number for number, (_, name) in enumerate(left)}
    return {
        split: [(path, labels[name], name) for path, _, name in listed if name in labels]
        for split, listed in entries.items()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    save_entries(folder / UNTUNED, without_photos(read_entries(folder / SPLIT_FILE)))
    print(f"--data {folder / UNTUNED}")
