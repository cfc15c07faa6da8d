"""What the protocols run on where they are not told: the embedded benchmark, or the paper's data and settings."""

from __future__ import annotations

from dataclasses import dataclass

from gopro.clip.backbone import EMBEDDED


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Settings for what a sweep's config leaves open.

    Attributes:
        base_to_new, few_shot: data sets, each trained and tested on its own.
        cross_dataset, domain_generalization: a source, and the targets that its models are tested on.
        curve: shots of the few-shot protocol; the other protocols take `shots`.
    """

    base_to_new: tuple[str, ...]
    few_shot: tuple[str, ...]
    cross_dataset: tuple[str, tuple[str, ...]]
    domain_generalization: tuple[str, tuple[str, ...]]
    backbones: tuple[str, ...] = (EMBEDDED,)
    methods: tuple[str, ...] = ("zeroshot", "coop", "gopro")
    shots: int = 16
    curve: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)


_EMOJI = ("emoji-animals", "emoji-food", "emoji-travel", "emoji-activities")
_SMALL = (
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
    # Small enough for two cores: the cost grows with the square of the number of classes, so the sources are the
    # smallest set, and few-shot is run on it alone. emoji-objects is left out, as settings are tuned on it. The source
    # style of domain generalization is one that the embedded model was pretrained on; of the targets it has never seen
    # twemoji and high-contrast.
    "emoji": Suite(
        base_to_new=_EMOJI,
        few_shot=("emoji-activities",),
        cross_dataset=("emoji-activities", _EMOJI[:-1]),
        domain_generalization=(
            "emoji-activities:noto",
            tuple(f"emoji-activities:{style}" for style in ("fluent", "openmoji", "twemoji", "high-contrast")),
        ),
        shots=4,
    ),
    # 16 shots on ViT-B/16; the five seeds are those of the released GOPro's scripts.
    "paper": Suite(
        base_to_new=("imagenet", *_SMALL),
        few_shot=("imagenet", *_SMALL),
        cross_dataset=("imagenet", _SMALL),
        domain_generalization=("imagenet", ("imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r")),
        backbones=("ViT-B-16:openai",),
        seeds=(1, 2, 3, 4, 5),
    ),
}
