"""Print the zero-shot accuracy of the CLIP for photographs, top-1 in %, with three kinds of prompts.

    python -m tools.photo_table --root DATA [--sample IMAGENET_SAMPLE]

DATA holds caltech101, pacs and dtd as `gopro data list` describes them; sets that are not there are left out.
"""

from __future__ import annotations

from pathlib import Path

import torch
from cyclopts import App, Parameter
from PIL import Image

from gopro import load_backbone
from gopro.clip.backbone import Backbone
from gopro.data.images.transforms import make_view
from gopro.data.load_dataset import load_dataset, load_target
from gopro.errors import InputError
from gopro.methods.parts.zero_shot_text import zero_shot_text_features

SETS = ("photos", "caltech101", "pacs:photo", "pacs:art_painting", "pacs:cartoon", "pacs:sketch", "dtd")
PROMPTS = {"template": ("a photo of a {}.", "none"), "bare name": ("{}", "none"), "80 templates": ("{}", 80)}
app = App(name="photo_table", help=__doc__, default_parameter=Parameter(consume_multiple=True))


@torch.inference_mode()
def encode(backbone: Backbone, images: list, batch: int = 64) -> torch.Tensor:
    """Return unit features [n, D] of images, each given by a function that opens it."""
    view = make_view("eval", backbone.preprocess)
    parts = []
    for start in range(0, len(images), batch):
        opened = [view(open_().convert("RGB")) for open_ in images[start : start + batch]]
        parts.append(backbone.encode(torch.stack(opened)).embedding)
    return torch.cat(parts)


def accuracies(
    backbone: Backbone, features: torch.Tensor, labels: torch.Tensor, names: list[str]
) -> list[torch.Tensor]:
    """Return whether each image is right, [n], for each kind of prompt."""
    texts = [zero_shot_text_features(backbone.text, names, *prompt) for prompt in PROMPTS.values()]
    return [(features @ text.T).argmax(dim=1) == labels for text in texts]


@app.default
def table(
    *, root: Path, sample: Path | None = None, train: bool = False, sets: list[str] | None = None, below: float = 0
) -> None:
    """Print a row per data set.

    Args:
        root: folder of the data sets.
        sample: folder of ImageNet images named WNID_name.jpg, one per class.
        train: take the training images, to choose settings on, not the test images.
        sets: data sets. Default: all.
        below: list the classes whose accuracy with the template is below this percentage.
    """
    backbone = load_backbone("photo")
    print(f"| data set | classes | images | {' | '.join(PROMPTS)} |\n|---|--:|--:|{'--:|' * len(PROMPTS)}")
    for name in sets or SETS:
        try:
            data = load_dataset(name, root) if train else load_target(name, root)
        except InputError as error:
            print(f"{name} is left out: {error}")
            continue
        images = data.train if train else data.test
        labels = torch.tensor([image.label for image in images])
        row(backbone, name, [image.image.open for image in images], labels, list(data.classnames), below)
    if sample is not None:
        files = sorted(sample.glob("n*.jpg"))
        names = [" ".join(file.stem.split("_")[1:]) for file in files]
        row(
            backbone,
            "ImageNet",
            [lambda file=file: Image.open(file) for file in files],
            torch.arange(len(files)),
            names,
            below,
        )


def row(backbone: Backbone, name: str, images: list, labels: torch.Tensor, classnames: list[str], below: float) -> None:
    """Print the row of a data set."""
    right = accuracies(backbone, encode(backbone, images), labels, classnames)
    cells = " | ".join(f"{100 * float(values.float().mean()):.1f}" for values in right)
    print(f"| {name} | {len(classnames)} | {len(images)} | {cells} |", flush=True)
    for label, classname in enumerate(classnames):
        share = 100 * float(right[0][labels == label].float().mean())
        if share < below:
            print(f"  {classname}: {share:.0f} %")


if __name__ == "__main__":
    app()
