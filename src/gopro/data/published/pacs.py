"""PACS: seven classes in four domains (Li et al. 2017, Deeper, Broader and Artier Domain Generalization).

Each domain is a data set of its own, `pacs:photo` and so on, in folders per domain with a folder per class in them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gopro.data.class_names import clean_name
from gopro.data.dataset import Dataset
from gopro.data.published import annotations
from gopro.data.published.catalog import Benchmark
from gopro.data.splits import Entries
from gopro.errors import InputError

CLASSES = ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
PLACES = ("pacs", "pacs/images", "pacs/kfold", "PACS", "PACS/images", "PACS/kfold", "kfold", ".")
"""Where the folders of the domains may lie below the root: Dassl (the toolbox of CoOp) puts them into `pacs/images`,
the archive of DomainBed holds `kfold`, which DomainBed renames to `PACS`."""


@dataclass(frozen=True)
class Domain(Benchmark):
    """One domain of PACS, split by gopro: PACS has no split that is in general use."""

    def home(self, root: Path) -> Path:
        """Find the folder that holds the domain's; if there is none, return where it should be."""
        root = root.expanduser()
        return next((root / place for place in PLACES if (root / place / self.images).is_dir()), root / self.folder)

    def load_target(self, root: Path) -> Dataset:
        """Load all images of the domain as test images, as the field tests on domains."""
        dataset = self.load(root)
        return replace(dataset, train=(), val=(), test=(*dataset.train, *dataset.val, *dataset.test))

    def _entries(self, home: Path) -> Entries:
        entries = super()._entries(home)
        names = sorted({clean_name(name) for listed in entries.values() for _, _, name in listed})
        if tuple(names) != CLASSES:
            raise InputError(
                f"{home / self.images}: has the class folders {', '.join(names)}, but PACS has {', '.join(CLASSES)}"
            )
        return entries


PACS: dict[str, Domain] = {
    f"pacs:{domain}": Domain(
        name=f"pacs:{domain}",
        folder="pacs",
        images=domain,
        template="a photo of a {}.",
        classes=len(CLASSES),
        counts=counts,
        read=annotations.folders,
        in_parts=True,
    )
    # Images in train, val and test when each class of the complete data set is split 50/20/30.
    for domain, counts in (
        ("photo", (835, 333, 502)),
        ("art_painting", (1024, 410, 614)),
        ("cartoon", (1171, 469, 704)),
        ("sketch", (1964, 786, 1179)),
    )
}
"""The domains by name."""
