"""Figures over seeds, mean ± standard deviation, and of base and new."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def harmonic_mean(base: Float[np.ndarray, "*any"], new: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """2·B·N / (B + N), the single figure of base-to-new generalization (Xian et al., CVPR 2017); 0 if both are 0."""
    total = base + new
    return 2 * base * new / np.where(total, total, 1)


@dataclass(frozen=True, slots=True)
class MeanStd:
    """A figure over seeds, in percent.

    Attributes:
        mean: over the seeds; NaN where there is none.
        std: the standard deviation of a sample (n − 1), None below two seeds.
        count: how many seeds.
    """

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        """The spread of one value a seed; with no values the mean is NaN and the count 0."""
        if not values:
            return cls(math.nan, None, 0)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        """`72.41 ± 0.83`, `72.41` from one seed, `–` from none."""
        if not self.count:
            return "–"
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"
