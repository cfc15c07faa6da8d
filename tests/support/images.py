"""Random images that a seed determines."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


def blotches(size: tuple[int, int] = (90, 60), seed: int = 0) -> Image.Image:
    """Draw coloured blotches with every level between dark and bright."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(20, 236, (6, 9, 3), dtype=np.uint8))
    return cells.resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Blotches:
    """An `ImageSource` of blotches."""

    seed: int
    size: tuple[int, int] = (90, 60)

    @property
    def name(self) -> str:
        return f"blotches {self.seed}"

    def open(self) -> Image.Image:
        return blotches(self.size, self.seed)

    def digest(self) -> str:
        return f"{self.seed}/{self.size}"
