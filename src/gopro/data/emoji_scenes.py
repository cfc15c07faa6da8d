"""Scenes: a drawing placed on a made-up background, as many different images of it as there are seeds."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

SCENE_VERSION = 1  # to be raised when the same drawing and generator come to give another image
SIZE = 64  # pixels a side, of drawings and scenes alike
LUMA = np.array([0.299, 0.587, 0.114])
CONTRAST = 0.35  # least difference, of 1, between the mean luminance of drawing and background
_RAMP = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)

Drawing = UInt8[np.ndarray, "64 64 4"]


def scene_rng(emoji: str, style: str, index: int) -> np.random.Generator:
    """The generator of one scene: the same on every machine, independent of every other scene's."""
    digest = hashlib.sha256(f"{emoji}/{style}/{index}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def compose(drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """A drawing (RGBA) in a scene (RGB, both SIZE x SIZE): background, clutter, pose, light and noise, from `rng`.

    Only uniform draws and bytes are taken from `rng`, whose streams numpy keeps between versions.
    """
    background = _background(_luminance(drawing), rng)
    posed = _posed(Image.fromarray(drawing), rng)
    background.paste(posed, mask=posed.getchannel("A"))
    return _lit(background, rng)


def _luminance(drawing: Drawing) -> float:
    """Mean luminance of what is drawn, 0 to 1. Integer sums, so exact."""
    sums = np.einsum("hwc,hw->c", drawing[..., :3].astype(np.int64), drawing[..., 3].astype(np.int64))
    return float(sums @ LUMA) / (255.0 * max(int(drawing[..., 3].sum(dtype=np.int64)), 1))


def _background(luminance: float, rng: np.random.Generator) -> Image.Image:
    """Plain, graded or mottled, with up to four shapes on it; lighter or darker than `luminance`."""
    u = rng.random(4)
    darker, lighter = max(0.0, luminance - CONTRAST), max(0.0, 1 - CONTRAST - luminance)
    level = u[0] * (darker + lighter)
    if level >= darker:
        level += luminance + CONTRAST - darker
    cells = (1, 2, 3, 6)[int(u[1] * 4)]
    tint = rng.random(3) - 0.5
    tint -= tint @ LUMA
    mottle = (rng.random((cells, cells, 3)) - 0.5) * 0.35 * u[2]
    small = Image.fromarray(_bytes(level + 0.7 * tint + mottle))
    background = small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(background)
    for _ in range(int(u[3] * 5)):
        colour = rng.random(3) - 0.5
        fill = tuple(_bytes(level + 0.9 * (colour - colour @ LUMA) + 0.1 * (rng.random(3) - 0.5)).tolist())
        x, y, reach, kind = (rng.random(4) * (SIZE, SIZE, SIZE / 3, 2)).tolist()
        if kind < 1:
            stretch = 0.4 + rng.random()
            pen.ellipse((x - reach, y - reach * stretch, x + reach, y + reach * stretch), fill=fill)
        else:
            corners = (rng.random((4, 2)) - 0.5) * 2.5 * reach + (x, y)
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=fill)
    return background


def _posed(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by up to 15 degrees, 0.7 to 1 times as large, moved within the image or slightly out of it."""
    u = rng.random(4).tolist()
    angle, scale = math.radians(30 * u[0] - 15), 0.7 + 0.3 * u[1]
    room = SIZE * (0.05 + (1 - scale) / 2)
    x, y = SIZE / 2 + room * (2 * u[2] - 1), SIZE / 2 + room * (2 * u[3] - 1)
    # Pillow maps each point of the result to one of the source
    a, b = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = (a, b, SIZE / 2 - a * x - b * y, -b, a, SIZE / 2 + b * x - a * y)
    return drawing.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Under a light of some strength, colour and direction, with sensor noise."""
    u = rng.random(7).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32)
    slope = (u[0] - 0.5) * 0.5 * _RAMP[:, None] + (u[1] - 0.5) * 0.5 * _RAMP[None, :]
    light = (0.75 + 0.4 * u[2] + slope)[..., None] * (1 + 0.2 * (u[3:6] - 0.5))
    grain = np.frombuffer(rng.bytes(pixels.size), dtype=np.uint8).reshape(pixels.shape)
    pixels = pixels * light + (grain.astype(np.float32) - 127.5) * (0.15 * u[6])
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _bytes(values: np.ndarray) -> np.ndarray:
    """0 to 1 as 0 to 255, clipped."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
