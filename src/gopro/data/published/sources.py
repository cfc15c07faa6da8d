"""Sources of each benchmark: addresses, checksums, and where each file goes.

Addresses and layouts are those of CoOp's DATASETS.md (https://github.com/KaiyangZhou/CoOp), or the publisher's current
one where that is dead. MD5 sums are those that torchvision and others publish for the same files.
"""

from __future__ import annotations

from dataclasses import dataclass

MIRROR = "zhengli97/prompt_learning_dataset"
"""A model repository of the Hugging Face Hub that has all sets but ImageNet, one zip each in CoOp's layout; by the
authors of PromptKD (https://github.com/zhengli97/PromptKD)."""


def drive(file: str) -> str:
    """Return the download address of a public file on Google Drive."""
    return f"https://drive.usercontent.google.com/download?id={file}&export=download&confirm=t"


@dataclass(frozen=True)
class File:
    """One file to download, an archive or a plain file."""

    url: str
    keep: str = ""
    """For an archive: the folder in it to keep, all of it if empty."""
    into: str = ""
    """Its place below the data set's folder; for a plain file, its path there."""
    checksum: str | None = None
    """`md5:HEX` of the file, if its publisher or a library that uses it states one."""
    inner: str = ""
    """Name of an archive within this archive whose content is used instead."""
    archive: str = "tar.gz"
    """File name ending of the archive; empty for a plain file."""


@dataclass(frozen=True)
class Source:
    """The sources of one benchmark."""

    marker: str
    """A folder of images directly below the data set's, which identifies the latter in an archive."""
    licence: str
    """Licence or terms of the images, in a few words."""
    gigabytes: float | None
    """Approximate size of the download, in 10^9 bytes."""
    official: tuple[File, ...] = ()
    """The publisher's files; empty if they are gone."""
    coop: tuple[File, ...] = ()
    """CoOp's own small files: the split, the class names."""
    mirrored: bool = True
    """True if `MIRROR` has it."""
    by_hand: tuple[str, ...] = ()
    """Steps for a person where no program can or may download it; {home} stands for the data set's folder."""


def _coop(name: str, file: str) -> File:
    return File(drive(file), into=name, archive="")


_CLASSNAMES = _coop("classnames.txt", "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF")
_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
_HUB = "https://huggingface.co/datasets"
_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"

SOURCES: dict[str, Source] = {
    "imagenet": Source(
        marker="images",
        licence="non-commercial research",
        gigabytes=154.6,
        mirrored=False,
        by_hand=(
            "register at https://image-net.org and agree to its terms",
            "download ILSVRC2012_img_train.tar (md5 1d675b47d978889d74fa0da5fadfb00e) and ILSVRC2012_img_val.tar "
            "(md5 29b22e2961454d5413ddabcf34fc5622)",
            "unpack the first, and each of the 1000 tar files in it into a folder of the same name: "
            "{home}/images/train/n01440764/*.JPEG and so on",
            "sort the 50000 images of the second by class in the same way: {home}/images/val/n01440764/*.JPEG "
            "and so on (ILSVRC2012_devkit_t12.tar.gz from the same site has their classes)",
            "if you have these folders already, link {home}/images/train and {home}/images/val to them instead",
            f"download CoOp's class names from {_CLASSNAMES.url} to {{home}}/classnames.txt",
        ),
    ),
    "caltech101": Source(
        marker="101_ObjectCategories",
        licence="CC BY 4.0",
        gigabytes=0.14,
        official=(
            File(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                inner="caltech-101/101_ObjectCategories.tar.gz",
                checksum="md5:3138e1922a9193bfa496528edbbc45d0",
                archive="zip",
            ),
        ),
        coop=(_coop("split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN"),),
    ),
    "oxford_pets": Source(
        marker="images",
        licence="CC BY-SA 4.0",
        gigabytes=0.81,
        official=(
            File(f"{_VGG}/pets/data/images.tar.gz", checksum="md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            File(f"{_VGG}/pets/data/annotations.tar.gz", checksum="md5:95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        coop=(_coop("split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),),
    ),
    "stanford_cars": Source(
        marker="cars_train",
        licence="non-commercial research",
        gigabytes=2.0,
        coop=(_coop("split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),),
        by_hand=(
            "get cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat from somebody who "
            "has them (Stanford no longer serves them)",
            "unpack them into {home}, which then holds cars_train, cars_test, devkit and "
            "cars_test_annos_withlabels.mat",
        ),
    ),
    "oxford_flowers": Source(
        marker="jpg",
        licence="not stated",
        gigabytes=0.35,
        official=(
            File(f"{_VGG}/flowers/102/102flowers.tgz", checksum="md5:52808999861908f626f3c1f4e79d11fa"),
            File(
                f"{_VGG}/flowers/102/imagelabels.mat",
                into="imagelabels.mat",
                checksum="md5:e0620be6f572b9609742df49c70aed4d",
                archive="",
            ),
        ),
        coop=(
            _coop("split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
            _coop("cat_to_name.json", "1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"),
        ),
    ),
    "food101": Source(
        marker="images",
        licence="not stated; scientific use",
        gigabytes=5.0,
        official=(
            File(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                keep="food-101",
                checksum="md5:85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
        coop=(_coop("split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),),
    ),
    "fgvc_aircraft": Source(
        marker="images",
        licence="non-commercial research",
        gigabytes=2.8,
        official=(
            File(
                f"{_VGG}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                keep="fgvc-aircraft-2013b/data",
                checksum="md5:d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    ),
    "sun397": Source(
        marker="SUN397",
        licence="academic research",
        gigabytes=39.0,
        official=(
            File(
                "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                checksum="md5:8ca2778205c41d23104230ba66911c7a",
            ),
            File("https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip", archive="zip"),
        ),
        coop=(_coop("split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),),
    ),
    "dtd": Source(
        marker="images",
        licence="research",
        gigabytes=0.63,
        official=(
            File(
                f"{_VGG}/dtd/download/dtd-r1.0.1.tar.gz",
                keep="dtd",
                checksum="md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
        ),
        coop=(_coop("split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),),
    ),
    "eurosat": Source(
        marker="2750",
        licence="MIT",
        gigabytes=0.09,
        official=(
            File(
                f"{_HUB}/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                checksum="md5:c8fa014336c82ac7804f0398fcb19387",
                archive="zip",
            ),
        ),
        coop=(_coop("split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),),
    ),
    "ucf101": Source(
        marker="UCF-101-midframes",
        licence="not stated",
        gigabytes=None,
        official=(
            File(drive("10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O"), archive="zip"),
            File(
                "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
                archive="zip",
            ),
        ),
        coop=(_coop("split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),),
    ),
    "imagenetv2": Source(
        marker="imagenetv2-matched-frequency-format-val",
        licence="MIT",
        gigabytes=1.26,
        official=(File(f"{_HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz"),),
        coop=(_CLASSNAMES,),
    ),
    "imagenet_sketch": Source(
        marker="images",
        licence="not stated",
        gigabytes=7.6,
        official=(
            File(
                f"{_HUB}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip",
                keep="sketch",
                into="images",
                archive="zip",
            ),
        ),
        coop=(_CLASSNAMES,),
    ),
    "imagenet_a": Source(
        marker="imagenet-a",
        licence="MIT",
        gigabytes=0.69,
        official=(File(f"{_BERKELEY}/imagenet-a.tar", checksum="md5:c3e55429088dc681f30d81f4726b6595", archive="tar"),),
        coop=(_CLASSNAMES,),
    ),
    "imagenet_r": Source(
        marker="imagenet-r",
        licence="MIT",
        gigabytes=2.19,
        official=(File(f"{_BERKELEY}/imagenet-r.tar", checksum="md5:a61312130a589d0ca1a8fca1f2bd3337", archive="tar"),),
        coop=(_CLASSNAMES,),
    ),
}
"""The sources of each benchmark of the catalog, by name."""

PACS_SOURCE = Source(
    marker="photo",
    licence="not stated; research",
    gigabytes=0.17,
    # DomainBed's copy (https://github.com/facebookresearch/DomainBed); the authors' own page is gone.
    official=(File(drive("1JFr8f805nMUelQWWmfnJR3y4_SYoN5Pd"), keep="kfold", archive="zip"),),
    mirrored=False,
)
"""The source of PACS, all domains in one archive."""
