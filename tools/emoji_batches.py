"""Training batches for the small CLIP: restyled drawings in scenes, with captions of names and tags."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from open_clip import get_tokenizer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from gopro.data.embedded.emoji import SEEN_STYLES, SETS, Emoji, all_emoji, drawings
from gopro.data.embedded.emoji_scenes import LUMA, SIZE, compose

MAIN_TEMPLATE = "a photo of a {}."
# Prompts may only use words of these templates and of the names; the embeddings of all other tokens are zero.
TEMPLATES = (
    "{}.", "{}", "a {}.", "the {}.", "an emoji of a {}.", "a photo of the {}.", "a photo of one {}.", "this is a {}.",
    "a picture of a {}.", "an image of a {}.", "a drawing of a {}.", "a drawing of the {}.", "a sketch of a {}.",
    "a sketch of the {}.", "a cartoon {}.", "a cartoon of a {}.", "a doodle of a {}.", "a doodle of the {}.",
    "an icon of a {}.", "a symbol of a {}.", "a painting of a {}.", "a painting of the {}.", "a rendering of a {}.",
    "a rendition of the {}.", "the origami {}.", "art of the {}.", "a toy {}.", "the toy {}.", "a plastic {}.",
    "a sculpture of a {}.", "a tattoo of a {}.", "graffiti of a {}.", "an embroidered {}.", "a plushie {}.",
    "a {} in a video game.", "the {} in a video game.", "itap of a {}.", "itap of my {}.", "a bad photo of a {}.",
    "a good photo of a {}.", "a bright photo of a {}.", "a dark photo of the {}.", "a blurry photo of a {}.",
    "a black and white photo of the {}.", "a low resolution photo of a {}.", "a pixelated photo of a {}.",
    "a jpeg corrupted photo of a {}.", "a cropped photo of the {}.", "a close-up photo of a {}.",
    "a photo of a large {}.", "a photo of a small {}.", "a photo of a clean {}.", "a photo of a dirty {}.",
    "a photo of a cool {}.", "a photo of a nice {}.", "a photo of a weird {}.", "a photo of many {}.",
    "a photo of my {}.", "a photo of the hard to see {}.", "there is a {} in the scene.", "a line drawing of a {}.",
    "a photo of {}, a type of animal.", "a photo of {}, a type of food.", "a photo of {}, a type of object.",
    "a colorful {}.", "a gray {}.", "a flat drawing of a {}.", "a black line drawing of a {}.",
)  # fmt: skip
OTHER_GROUPS_WEIGHT = 0.15  # for people, faces, symbols and flags, which no data set of the benchmark contains


class Vocabulary:
    """The tokens that captions use, renumbered in the order of CLIP's ids, so that end-of-text keeps the highest id."""

    def __init__(self) -> None:
        self.tokenize = get_tokenizer("ViT-B-32")
        texts = [word for emoji in all_emoji() for word in (f"{emoji.name}, .:", *emoji.tags)]
        texts += [template.format("a") for template in (MAIN_TEMPLATE, *TEMPLATES)]
        self.ids = np.unique(self.tokenize(texts).numpy())

    def __len__(self) -> int:
        return len(self.ids)

    def encode(self, texts: list[str], longest: int = 32) -> Tensor:
        """Tokenize texts and cut the rows after the longest text, or after `longest` tokens."""
        tokens = self.tokenize(texts).numpy()
        rows = np.searchsorted(self.ids, tokens)
        ends = (tokens == self.ids[-1]).argmax(axis=1)
        length = min(int(ends.max()) + 1, longest)
        rows[ends >= length, length - 1] = len(self.ids) - 1
        return torch.from_numpy(rows[:, :length])


class Batches:
    """Batches of distinct emoji by number: (images uint8 [n, 64, 64, 3], tokens [n, t], places [n]).

    A batch depends on the seed and its number alone. Its generator is independent of those of the benchmark's scenes.
    """

    def __init__(self, seed: int, size: int, harden: int) -> None:
        self.seed, self.size, self.harden = seed, size, harden
        self.vocabulary = Vocabulary()
        weights = np.array([1.0 if e.group in SETS.values() else OTHER_GROUPS_WEIGHT for e in all_emoji()])
        self.weights = weights / weights.sum()

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, number])
        _, tokens, places = self._captions(rng, self.size)
        changed = 0.5 * min(1.0, number / self.harden)
        images = np.empty((self.size, SIZE, SIZE, 3), np.uint8)
        for row, place in enumerate(places.tolist()):
            style = SEEN_STYLES[int(rng.integers(len(SEEN_STYLES)))]
            drawing = drawings(style)[place]
            if rng.random() < changed:
                drawing = restyle(drawing, rng)
            images[row] = np.asarray(compose(drawing, rng))
        return torch.from_numpy(images), tokens, places

    def captions(self, number: int, times: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch without images and `times` as large."""
        return self._captions(np.random.default_rng([self.seed, number]), self.size * times)

    def _captions(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor, Tensor]:
        emoji = all_emoji()
        places = rng.choice(len(emoji), size, replace=False, p=self.weights)
        long = rng.random() < 0.3  # captions with tags are long; batches without any stay short
        texts = [caption(emoji[place], rng, long) for place in places]
        return torch.empty(0), self.vocabulary.encode(texts, 32 if long else 18), torch.from_numpy(places)

    def stream(self, start: int, stride: int, uses: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield batches start, start + stride, ..., drawn in another process, each `uses` times some steps apart.

        Drawing the scenes takes a third of the time of a step, so each is used again, with other patches dropped.
        """
        numbers = range(start, start + 10**9, stride)
        fresh = iter(DataLoader(self, batch_size=None, sampler=numbers, num_workers=1, prefetch_factor=6))
        recent: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in fresh:
            recent.append(batch)
            yield batch
            if len(recent) > 4:
                yield from [recent.pop(0)] * (uses - 1)


def caption(emoji: Emoji, rng: np.random.Generator, long: bool) -> str:
    """Write a caption from the emoji's name; in a long batch often with some of its tags, or from tags only."""
    u = rng.random()
    tags = [tag for tag in emoji.tags if tag != emoji.name]
    if long and u < 0.6 and tags:
        some = ", ".join(rng.permutation(tags)[: int(rng.integers(1, 6))].tolist())
        form = int(rng.integers(4))
        return (f"{emoji.name}, {some}", f"a photo of a {emoji.name}, {some}.", f"{emoji.name}: {some}", some)[form]
    if u < 0.6:
        return MAIN_TEMPLATE.format(emoji.name)
    return TEMPLATES[int(rng.integers(len(TEMPLATES)))].format(emoji.name)


def restyle(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distort a drawing (uint8 RGBA), and recolour it or reduce it to lines or two tones."""
    if rng.random() < 0.7:
        drawing = _bend(drawing, rng)
    kind = rng.random()
    if kind < 0.2:
        return _lines(drawing, rng)
    if kind < 0.32:
        return _two_tone(drawing, rng)
    if kind < 0.75:
        return _recolour(drawing, rng)
    return drawing


def _bend(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move the corners by up to an eighth of the side, and mirror one drawing in four."""
    shift = (rng.random((4, 2)) - 0.5) * 0.25 * SIZE
    corners = np.array([(0, 0), (0, SIZE), (SIZE, SIZE), (SIZE, 0)]) + shift
    if rng.random() < 0.25:
        corners = corners[[3, 2, 1, 0]]
    image = Image.fromarray(drawing).transform(
        (SIZE, SIZE), Image.Transform.QUAD, corners.ravel().tolist(), Image.Resampling.BILINEAR
    )
    return np.asarray(image)


def _grey(drawing: np.ndarray, ground: float) -> np.ndarray:
    """Return the luminance, 0 to 1, on a uniform background."""
    alpha = drawing[..., 3] / 255
    return (drawing[..., :3] @ LUMA) / 255 * alpha + ground * (1 - alpha)


def _slope(values: np.ndarray) -> np.ndarray:
    """Return the magnitude of the Sobel gradient, roughly 0 to 1."""
    v = np.pad(values, 1, mode="edge")
    columns, rows = v[:, :-2] + 2 * v[:, 1:-1] + v[:, 2:], v[:-2] + 2 * v[1:-1] + v[2:]
    return np.hypot(columns[2:] - columns[:-2], rows[:, 2:] - rows[:, :-2]) / 4


def _in_ink(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a drawing in one colour of ink, mostly black."""
    out = np.zeros((SIZE, SIZE, 4), np.uint8)
    if rng.random() < 0.3:
        out[..., :3] = (rng.random(3) * 255).astype(np.uint8)
    out[..., 3] = (np.clip(ink, 0, 1) * 255).astype(np.uint8)
    return out


def _lines(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the Sobel edges of outline and colour as lines of one to three pixels, and sometimes fill dark parts."""
    grey = _grey(drawing, 0.5)
    ink = np.maximum(_slope(drawing[..., 3] / 255), (1.5 + 4 * rng.random()) * _slope(grey))
    for _ in range(int(rng.integers(3))):
        wide = np.pad(ink, 1)
        ink = np.max([wide[1:-1, 1:-1], wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]], axis=0)
    if rng.random() < 0.4:
        ink = np.maximum(ink, (grey < 0.15 + 0.3 * rng.random()) * (drawing[..., 3] / 255))
    return _in_ink(1.3 * ink - 0.15, rng)


def _two_tone(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ink all pixels darker (or lighter) than a random level, with or without the outline."""
    alpha = drawing[..., 3] / 255
    grey = _grey(drawing, 0.5)
    inside = grey[alpha > 0.5]
    level = np.quantile(inside, 0.2 + 0.6 * rng.random()) if inside.size else 0.5
    ink = alpha * np.clip(0.5 + 8 * (level - grey) * rng.choice([-1, 1]), 0, 1)
    if rng.random() < 0.6:
        ink = np.maximum(ink, _slope(alpha))
    return _in_ink(ink, rng)


def _recolour(drawing: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Make a drawing grey, invert it, posterise it, turn its hue, or change its contrast and saturation."""
    rgb = drawing[..., :3].astype(np.float32) / 255
    kind = rng.random()
    if kind < 0.15:
        rgb = np.repeat((rgb @ LUMA)[..., None], 3, axis=2)
    elif kind < 0.25:
        rgb = 1 - rgb
    elif kind < 0.4:
        tones = rng.integers(2, 5)
        rgb = np.rint(rgb * tones) / tones
    elif kind < 0.5:
        rgb = rgb[..., rng.permutation(3)]
    grey = (rgb @ LUMA)[..., None]
    rgb = grey + (rgb - grey) * (0.3 + 1.5 * rng.random())
    # Turn the hue a little by mixing each channel with its neighbour.
    rgb = rgb + (rgb[..., [1, 2, 0]] - rgb) * 0.4 * rng.random() * (rng.random() < 0.5)
    rgb = 0.5 + (rgb - 0.5 + 0.4 * (rng.random() - 0.5)) * (0.6 + 0.8 * rng.random())
    rgb = rgb + 0.2 * (rng.random(3) - 0.5)
    return np.dstack([(np.clip(rgb, 0, 1) * 255).astype(np.uint8), drawing[..., 3]])
