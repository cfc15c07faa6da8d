"""Images in other styles."""

import pickle
from typing import get_args

import numpy as np
from PIL import Image

from gopro.data.embedded.emoji import emoji_dataset
from gopro.data.images.image_file import ImageFile
from gopro.data.images.restyle import Restyled, Style


def pixels(colour: tuple[int, int, int], style: Style, tmp_path) -> np.ndarray:
    """Return the image, whose left half is black and right half of the colour, in a style."""
    image = Image.new("RGB", (40, 20), "black")
    image.paste(colour, (20, 0, 40, 20))
    image.save(tmp_path / "image.png")
    return np.asarray(Restyled(ImageFile(tmp_path / "image.png"), style).open()).astype(int)


def test_each_style_does_what_it_says(tmp_path) -> None:
    red = 200, 20, 20
    assert (pixels(red, "original", tmp_path)[5, 30] == red).all()
    assert (pixels(red, "grayscale", tmp_path)[5, 30] == round(0.299 * 200 + 0.587 * 20 + 0.114 * 20)).all()
    np.testing.assert_allclose(pixels(red, "hue", tmp_path)[5, 30], (20, 200, 20), atol=3)
    assert (pixels(red, "inverted", tmp_path)[5, 30] == (55, 235, 235)).all()
    edges = pixels(red, "edges", tmp_path)
    assert (edges[5, [5, 30]] == 255).all() and edges[5, 19:21].min() < 100


def test_a_style_is_another_image_with_another_name() -> None:
    scene = emoji_dataset("emoji-activities").val[0].image
    styled = [Restyled(scene, style) for style in get_args(Style)]
    assert len({image.digest() for image in styled} | {scene.digest()}) == len(styled) + 1
    assert styled[1].name == f"{scene.name} (grayscale)"
    assert {image.open().mode for image in styled} == {"RGB"} and pickle.loads(pickle.dumps(styled[1])) == styled[1]
