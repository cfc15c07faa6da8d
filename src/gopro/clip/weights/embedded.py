"""The models that come with this package: their files, what they were trained on, and which suits which data.

This module imports neither torch nor NumPy, so that the command line can show its help at once.
"""

from __future__ import annotations

from dataclasses import dataclass

STRONGER = "ViT-B-16:openai"
"""The model to suggest where an embedded one is too weak."""
DOWNLOAD = "600 MB"
"""Size of its weights."""


@dataclass(frozen=True)
class EmbeddedModel:
    """A small CLIP that comes with this package.

    Attributes:
        file: its safetensors file in `gopro/assets`. The metadata hold the sizes of the model (`model_cfg`) and the
            preparation of images (`preprocess_cfg`) as JSON.
        trained_on: in one phrase.
    """

    file: str
    trained_on: str


EMBEDDED = {
    "emoji": EmbeddedModel("emoji-clip.safetensors", "emoji drawings"),
    "photo": EmbeddedModel("photo-clip.safetensors", "ImageNet and WordNet"),
}
"""The embedded models by the name of the backbone."""

DEFAULT = "photo"
"""The backbone for all data but the emoji sets."""


def default_backbone(data: str) -> str:
    """Return the backbone for a data set where the user names none: `emoji` for the emoji sets, else `photo`.

    Args:
        data: the data set, as `gopro.load_dataset` takes it.
    """
    return "emoji" if all(name.startswith("emoji-") for name in data.split("+")) else DEFAULT


def describe_backbone(name: str, option: str = "--backbone") -> str:
    """Describe a backbone in a few words: its name, what it was trained on and, if it is embedded, a stronger one.

    Args:
        name: as `gopro.load_backbone` takes it.
        option: how the user chooses another one.

    Example:
        >>> describe_backbone("emoji").split("; ")[0]
        'emoji, a small CLIP trained on emoji drawings'
        >>> describe_backbone("RN50:openai")
        "RN50:openai, open_clip's RN50 with the weights openai"
    """
    if name in EMBEDDED:
        return (
            f"{name}, a small CLIP trained on {EMBEDDED[name].trained_on}; stronger: {option} {STRONGER} ({DOWNLOAD})"
        )
    architecture, _, weights = name.partition(":")
    if weights == "random":
        return f"{name}, an untrained {architecture}"
    model = "a CLIP" if architecture == "openai" else f"open_clip's {architecture}"
    return f"{name}, {model} with the weights {weights}"
