"""Suites: the data, methods and seeds that a protocol runs where the user names none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Default settings of a sweep. In all suites, the recipe of each method is that for the protocol's task.

    Attributes:
        base_to_new, few_shot: data sets; each is trained and tested on its own.
        cross_dataset, domain_generalization: a source data set and its targets.
        shots: training images per class, except in the few-shot protocol.
        backbones: None for `default_backbone` of the data that a run is trained on.
        few_shot_shots: numbers of shots of the few-shot protocol.
        tuning: data sets to choose settings on, which no protocol reports on.
    """

    base_to_new: tuple[str, ...] = ()
    few_shot: tuple[str, ...] = ()
    cross_dataset: tuple[str, tuple[str, ...]] = ("", ())
    domain_generalization: tuple[str, tuple[str, ...]] = ("", ())
    backbones: tuple[str, ...] | None = None
    methods: tuple[str, ...] = ("zeroshot", "coop", "gopro")
    shots: int = 16
    few_shot_shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    tuning: tuple[str, ...] = ()


_EMOJI = ("emoji-animals", "emoji-food", "emoji-travel", "emoji-activities")
_PAPER = (
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "fgvc_aircraft",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
)

SUITES: dict[str, Suite] = {
    # Small enough for two CPU cores. Training cost grows with the square of the number of classes, so the smallest data
    # set is the source and the only few-shot data set. emoji-objects is left out because settings are chosen on it, in
    # the style that is no target of domain generalization. The embedded model was pretrained on the source style of
    # domain generalization; of the target styles it has never seen twemoji and high-contrast.
    "emoji": Suite(
        base_to_new=_EMOJI,
        few_shot=("emoji-activities",),
        cross_dataset=("emoji-activities", _EMOJI[:-1]),
        domain_generalization=(
            "emoji-activities:noto",
            tuple(f"emoji-activities:{style}" for style in ("fluent", "openmoji", "twemoji", "high-contrast")),
        ),
        shots=4,
        tuning=("emoji-objects:noto",),
    ),
    # Photographs, for the embedded backbone of photographs: all methods that it can carry except gopro-paper and
    # gopro-release, which take longest. Those that learn inside a vision transformer are out.
    "photo": Suite(
        base_to_new=("caltech101",),
        few_shot=("caltech101",),
        cross_dataset=("caltech101", ("pacs:photo", "dtd")),
        domain_generalization=("pacs:photo", ("pacs:art_painting", "pacs:cartoon", "pacs:sketch")),
        backbones=("photo",),
        methods=(
            "zeroshot",
            "zeroshot[ensemble=80]",
            "tip-adapter",
            "tip-adapter-f",
            "coop",
            "cocoop",
            "kgcoop",
            "slip",
            "stylip",
            "gopro",
        ),
        shots=4,
        tuning=("photos",),
    ),
    # 16 shots on ViT-B/16, with the five seeds of the scripts released with GOPro.
    "paper": Suite(
        base_to_new=("imagenet", *_PAPER),
        few_shot=("imagenet", *_PAPER),
        cross_dataset=("imagenet", _PAPER),
        domain_generalization=("imagenet", ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")),
        backbones=("ViT-B-16:openai",),
        methods=("zeroshot", "coop", "gopro-paper", "gopro"),
        seeds=(1, 2, 3, 4, 5),
    ),
}
