"""The benchmark data sets of CoOp's protocol, laid out as its DATASETS.md says: one entry each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gopro.data.dataset import Dataset
from gopro.data.splits import clean_name, read_split
from gopro.errors import InputError


@dataclass(frozen=True)
class Benchmark:
    """Where a data set's parts lie below the root, and the prompt CoOp's zero-shot baseline uses for it."""

    name: str
    folder: str
    """Its own folder below the root."""
    pictures: str
    """The folder of pictures below that, which the paths of the split file start from."""
    split: str
    """CoOp's split file, beside the folder of pictures."""
    template: str

    def load(self, root: Path) -> Dataset:
        """The data set below `root`, which may also be the data set's own folder.

        Raises:
            InputError: the split file or the folder of pictures is not there, or the split file is faulty.
        """
        root = root.expanduser()
        home = root if (root / self.split).is_file() else root / self.folder
        for needed in (home, home / self.split, home / self.pictures):
            if not needed.exists():
                raise InputError(
                    f"{self.name}: no {needed}; --root must be the directory that holds {self.folder}/ "
                    f"with {self.split} and {self.pictures}/ in it"
                )
        split = read_split(home / self.split, home / self.pictures)
        classnames = tuple(clean_name(name) for name in split.classnames)
        return Dataset(self.name, classnames, split.train, split.val, split.test, self.template)


CATALOG: dict[str, Benchmark] = {
    entry.name: entry
    for entry in (
        Benchmark(
            name="caltech101",
            folder="caltech-101",
            pictures="101_ObjectCategories",
            split="split_zhou_Caltech101.json",
            template="a photo of a {}.",
        ),
    )
}
