"""The benchmark data sets of CoOp's protocols, one entry each, in the layout of its DATASETS.md.

Layout, class names, split sizes and templates are those of https://github.com/KaiyangZhou/CoOp (`datasets/*.py` and
`trainers/zsclip.py`); docs/datasets.md shows every folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gopro.data.dataset import Dataset
from gopro.data.published import annotations, imagenet
from gopro.data.splits import Entries, dataset_from_entries, read_entries, save_entries
from gopro.errors import InputError, first_few

CLASSNAMES = "classnames.txt"
"""File of ImageNet's class names, which its variants use too."""


@dataclass(frozen=True)
class Benchmark:
    """One data set of the catalog: its folders and files below the root, its size and its prompt."""

    name: str
    folder: str
    """Its own folder below the root."""
    images: str
    """The folder of images in it, from which the paths of the split file start."""
    template: str
    """The prompt of CoOp's zero-shot baseline."""
    classes: int
    counts: tuple[int, int, int]
    """Images in train, val and test, as in CoOp, except that ImageNet's test images are not its val too."""
    read: Callable[..., Entries]
    """Reader of the original annotations, of `gopro.data.published.annotations` or `gopro.data.published.imagenet`."""
    reads: tuple[str, ...] = ()
    """The files and folders that `read` takes, in its order; the folder of images if empty."""
    split: str | None = None
    """CoOp's split file, used if it lies in the data set's folder; None if the annotations have official splits."""
    needs: tuple[str, ...] = ()
    """The folders of images, if there are several below `images`."""
    names: str | None = None
    """`fingerprint` of CoOp's class names; None if unknown."""
    in_parts: bool = False
    """Whether some of its classes or images can be used without the others; results then call it `NAME (part)`."""

    @property
    def own_split(self) -> str | None:
        """The file to which a split drawn by gopro is written."""
        return self.split and self.split.replace("_zhou_", "_gopro_")

    def home(self, root: Path) -> Path:
        """Find the data set's folder: below `root`, or `root` itself if it has that name or holds the split file."""
        root = root.expanduser()
        below = root / self.folder
        if self.split and (root / self.split).is_file():
            return root
        return root if Path(os.path.abspath(root)).name == self.folder and not below.is_dir() else below

    def missing(self, root: Path) -> list[Path]:
        """List the files and folders that loading needs and that do not exist."""
        home = self.home(root)
        if not home.is_dir():
            return [home]
        needed = self._image_folders(home)
        if self._split_file(home) is None:
            needed += self._inputs(home)
        return [path for path in dict.fromkeys(needed) if not path.exists()]

    def load(self, root: Path) -> Dataset:
        """Load the data set from `root`, the directory of all benchmarks or the data set's own folder.

        The splits are those of CoOp's split file. Without one, they are made from the original annotations as CoOp
        makes them. Its random draws are made with a fixed seed, the same on every machine, and written once to
        `split_gopro_*.json` beside the images; that file counts from then on. If it cannot be written, the split is
        drawn again each time, with a warning. No image is looked up: a missing one is an InputError when it is opened.
        If the folder holds only a part of the images and `in_parts` allows that, the data set is called `NAME (part)`,
        and its split is not written, as it would stay when the rest arrives.

        Raises:
            InputError: something is missing, a file is invalid, or the annotations have another number of classes or
                images than the data set.
        """
        home = self.home(root)
        if missing := self.missing(root):
            advice = f"put {self.folder}/ into --root, in the layout of docs/datasets.md"
            if self.split and home.is_dir() and not set(missing) & set(self._image_folders(home)):
                advice += f", or add {self.split} instead"
            raise InputError(f"{self.name}: there is no {first_few(list(map(str, missing)))}; {advice}")
        entries = self._entries(home)
        whole = not self.in_parts or sum(map(len, entries.values())) == sum(self.counts)
        name = self.name if whole else f"{self.name} (part)"
        return dataset_from_entries(name, entries, home / self.images, self.template)

    def load_target(self, root: Path) -> Dataset:
        """Load the data set for a model that is trained on another one: with test images only.

        They are those of its split; of a part of the data set they are all images, as no other figures compare with it.
        """
        dataset = self.load(root)
        if dataset.name != self.name:
            dataset = replace(dataset, test=(*dataset.train, *dataset.val, *dataset.test))
        return replace(dataset, train=(), val=())

    def _entries(self, home: Path) -> Entries:
        if file := self._split_file(home):
            return read_entries(file)
        entries = self.read(*self._inputs(home))
        classes = len({label for listed in entries.values() for _, label, _ in listed})
        images = sum(map(len, entries.values()))
        if self.in_parts and classes <= self.classes and images < sum(self.counts):
            return entries
        if classes != self.classes:
            raise InputError(f"{home}: {classes} classes, but {self.name} has {self.classes}; is all of it unpacked?")
        if self.own_split:
            # Checked before saving: the split of an incomplete folder would stay when the rest arrives.
            if images != (expected := sum(self.counts)):
                raise InputError(f"{home}: {images} images, but {self.name} has {expected}; is all of it unpacked?")
            save_entries(home / self.own_split, entries)
        return entries

    def _split_file(self, home: Path) -> Path | None:
        """Find the split file in use: CoOp's, else the one that gopro has drawn."""
        files = [home / split for split in (self.split, self.own_split) if split]
        return next((file for file in files if file.is_file()), None)

    def _image_folders(self, home: Path) -> list[Path]:
        return [home / folder for folder in self.needs or (self.images,)]

    def _inputs(self, home: Path) -> list[Path]:
        paths = [home / file for file in self.reads or (self.images,)]
        shared = Path(os.path.abspath(home)).parent / "imagenet" / CLASSNAMES
        return [shared if path.name == CLASSNAMES and not path.exists() and shared.exists() else path for path in paths]


def fingerprint(classnames: Sequence[str]) -> str:
    """Hash class names, their order and their spelling to 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256("\n".join(classnames).encode()).hexdigest()[:16]


_PHOTO = "a photo of a {}."

CATALOG: dict[str, Benchmark] = {
    entry.name: entry
    for entry in (
        Benchmark(
            name="imagenet",
            folder="imagenet",
            images="images",
            template=_PHOTO,
            classes=1000,
            counts=(1_281_167, 0, 50_000),
            read=imagenet.train_and_test,
            reads=("images/train", "images/val", CLASSNAMES),
        ),
        Benchmark(
            name="caltech101",
            folder="caltech-101",
            images="101_ObjectCategories",
            template=_PHOTO,
            classes=100,
            counts=(4128, 1649, 2465),
            read=partial(
                annotations.folders,
                ignored=("BACKGROUND_Google", "Faces_easy"),
                renamed={"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"},
            ),
            split="split_zhou_Caltech101.json",
            names="32e75ba1ea076239",
        ),
        Benchmark(
            name="oxford_pets",
            folder="oxford_pets",
            images="images",
            template="a photo of a {}, a type of pet.",
            classes=37,
            counts=(2944, 736, 3669),
            read=annotations.pets,
            reads=("annotations/trainval.txt", "annotations/test.txt"),
            split="split_zhou_OxfordPets.json",
            names="325452254a1c260e",
        ),
        Benchmark(
            name="stanford_cars",
            folder="stanford_cars",
            images=".",
            needs=("cars_train", "cars_test"),
            template=_PHOTO,
            classes=196,
            counts=(6509, 1635, 8041),
            read=annotations.cars,
            reads=("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat", "devkit/cars_meta.mat"),
            split="split_zhou_StanfordCars.json",
            names="2caca90b5c02b65f",
        ),
        Benchmark(
            name="oxford_flowers",
            folder="oxford_flowers",
            images="jpg",
            template="a photo of a {}, a type of flower.",
            classes=102,
            counts=(4093, 1633, 2463),
            read=annotations.flowers,
            reads=("imagelabels.mat", "cat_to_name.json"),
            split="split_zhou_OxfordFlowers.json",
            names="0d27092c2140383d",
        ),
        Benchmark(
            name="food101",
            folder="food-101",
            images="images",
            template="a photo of {}, a type of food.",
            classes=101,
            counts=(50_500, 20_200, 30_300),
            read=annotations.folders,
            split="split_zhou_Food101.json",
        ),
        Benchmark(
            name="fgvc_aircraft",
            folder="fgvc_aircraft",
            images="images",
            template="a photo of a {}, a type of aircraft.",
            classes=100,
            counts=(3334, 3333, 3333),
            read=annotations.aircraft,
            reads=("variants.txt", *(f"images_variant_{part}.txt" for part in ("train", "val", "test"))),
        ),
        Benchmark(
            name="sun397",
            folder="sun397",
            images="SUN397",
            template=_PHOTO,
            classes=397,
            counts=(15_880, 3970, 19_850),
            read=annotations.sun,
            reads=("ClassName.txt", "Training_01.txt", "Testing_01.txt"),
            split="split_zhou_SUN397.json",
        ),
        Benchmark(
            name="dtd",
            folder="dtd",
            images="images",
            template="{} texture.",
            in_parts=True,
            classes=47,
            counts=(2820, 1128, 1692),
            read=annotations.folders,
            split="split_zhou_DescribableTextures.json",
            names="681d23b9cd3c2ede",
        ),
        Benchmark(
            name="eurosat",
            folder="eurosat",
            images="2750",
            template="a centered satellite photo of {}.",
            classes=10,
            counts=(13_500, 5400, 8100),
            read=partial(
                annotations.folders,
                renamed={
                    "AnnualCrop": "Annual Crop Land",
                    "HerbaceousVegetation": "Herbaceous Vegetation Land",
                    "Highway": "Highway or Road",
                    "Industrial": "Industrial Buildings",
                    "Pasture": "Pasture Land",
                    "PermanentCrop": "Permanent Crop Land",
                    "Residential": "Residential Buildings",
                    "SeaLake": "Sea or Lake",
                },
            ),
            split="split_zhou_EuroSAT.json",
            names="bcff3a8022b63397",
        ),
        Benchmark(
            name="ucf101",
            folder="ucf101",
            images="UCF-101-midframes",
            template="a photo of a person doing {}.",
            classes=101,
            counts=(7639, 1898, 3783),
            read=annotations.ucf,
            reads=tuple(f"ucfTrainTestlist/{file}.txt" for file in ("classInd", "trainlist01", "testlist01")),
            split="split_zhou_UCF101.json",
            names="911d40df1647f15a",
        ),
        Benchmark(
            name="imagenetv2",
            folder="imagenetv2",
            images="imagenetv2-matched-frequency-format-val",
            template=_PHOTO,
            classes=1000,
            counts=(0, 0, 10_000),
            read=imagenet.numbered_folders,
            reads=("imagenetv2-matched-frequency-format-val", CLASSNAMES),
        ),
        Benchmark(
            name="imagenet_sketch",
            folder="imagenet-sketch",
            images="images",
            template=_PHOTO,
            classes=1000,
            counts=(0, 0, 50_889),
            read=imagenet.wnid_folders,
            reads=("images", CLASSNAMES),
        ),
        Benchmark(
            name="imagenet_a",
            folder="imagenet-adversarial",
            images="imagenet-a",
            template=_PHOTO,
            classes=200,
            counts=(0, 0, 7500),
            read=imagenet.wnid_folders,
            reads=("imagenet-a", CLASSNAMES),
        ),
        Benchmark(
            name="imagenet_r",
            folder="imagenet-rendition",
            images="imagenet-r",
            template=_PHOTO,
            classes=200,
            counts=(0, 0, 30_000),
            read=imagenet.wnid_folders,
            reads=("imagenet-r", CLASSNAMES),
        ),
    )
}
"""The data sets by name: the eleven of the few-shot and base-to-new tables, then the four variants of ImageNet."""
