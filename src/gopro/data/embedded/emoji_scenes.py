"""Scenes: a drawing composed with a random background, in as many variants as there are seeds."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

SCENE_VERSION = 1  # raise this when the same drawing and generator give another image than before
SIZE = 64  # pixels per side, of drawings and scenes alike
LUMA = np.array([0.299, 0.587, 0.114])
CONTRAST = 0.35  # smallest difference between the mean luminances (0 to 1) of drawing and background
_RAMP = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)

Drawing = UInt8[np.ndarray, "64 64 4"]


def scene_rng(emoji: str, style: str, index: int) -> np.random.Generator:
    """Make the generator of one scene: the same on every machine, independent of every other scene's."""
    digest = hashlib.sha256(f"{emoji}/{style}/{index}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def compose(drawing: Drawing, rng: np.random.Generator) -> Image.Image:
    """Draw a scene (RGB) around a drawing (RGBA), both SIZE x SIZE: background, clutter, pose, light and noise.

    Only uniform draws and bytes are taken from `rng`: numpy keeps these streams the same between versions.
    """
    background = _background(_luminance(drawing), rng)
    posed = _pose(Image.fromarray(drawing), rng)
    background.paste(posed, mask=posed.getchannel("A"))
    return _light(background, rng)


def _luminance(drawing: Drawing) -> float:
    """Return the mean luminance of the opaque part, 0 to 1. Exact, as the sums are of integers."""
    sums = np.einsum("hwc,hw->c", drawing[..., :3].astype(np.int64), drawing[..., 3].astype(np.int64))
    return float(sums @ LUMA) / (255.0 * max(int(drawing[..., 3].sum(dtype=np.int64)), 1))


def _background(luminance: float, rng: np.random.Generator) -> Image.Image:
    """Draw a plain, graded or mottled background with up to four shapes, lighter or darker than `luminance`."""
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


def _pose(drawing: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turn a drawing by up to 15 degrees, scale it by 0.7 to 1, and move it within the image or slightly out of it."""
    u = rng.random(4).tolist()
    angle, scale = math.radians(30 * u[0] - 15), 0.7 + 0.3 * u[1]
    room = SIZE * (0.05 + (1 - scale) / 2)
    x, y = SIZE / 2 + room * (2 * u[2] - 1), SIZE / 2 + room * (2 * u[3] - 1)
    # Pillow's matrix maps each point of the result to a point of the drawing, so it is the inverse of the pose.
    a, b = math.cos(angle) / scale, math.sin(angle) / scale
    matrix = (a, b, SIZE / 2 - a * x - b * y, -b, a, SIZE / 2 + b * x - a * y)
    return drawing.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light an image with some strength, colour and direction, and add sensor noise."""
    u = rng.random(7).astype(np.float32)
    pixels = np.asarray(image, dtype=np.float32)
    slope = (u[0] - 0.5) * 0.5 * _RAMP[:, None] + (u[1] - 0.5) * 0.5 * _RAMP[None, :]
    light = (0.75 + 0.4 * u[2] + slope)[..., None] * (1 + 0.2 * (u[3:6] - 0.5))
    grain = np.frombuffer(rng.bytes(pixels.size), dtype=np.uint8).reshape(pixels.shape)
    pixels = pixels * light + (grain.astype(np.float32) - 127.5) * (0.15 * u[6])
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def _bytes(values: np.ndarray) -> np.ndarray:
    """Convert 0 to 1 into 0 to 255, clipped."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
