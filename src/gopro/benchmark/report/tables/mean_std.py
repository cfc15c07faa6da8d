"""Mean and standard deviation over seeds, and the harmonic mean of base and new."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


def harmonic_mean(base: Float[np.ndarray, "*any"], new: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Return 2·B·N / (B + N), the summary of base-to-new generalization (Xian et al., CVPR 2017); 0 if both are 0."""
    total = base + new
    return 2 * base * new / np.where(total, total, 1)


@dataclass(frozen=True, slots=True)
class MeanStd:
    """An accuracy over seeds, in percent.

    Attributes:
        mean: over seeds; NaN without any.
        std: sample standard deviation (n − 1), None for fewer than two seeds.
        count: number of seeds.
    """

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> MeanStd:
        """Summarise one value per seed; without values the mean is NaN and the count 0."""
        if not values:
            return cls(math.nan, None, 0)
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))

    def __str__(self) -> str:
        """Return `72.41 ± 0.83`, `72.41` for one seed, or `–` for none."""
        if not self.count:
            return "–"
        return f"{self.mean:.2f}" if self.std is None else f"{self.mean:.2f} ± {self.std:.2f}"


def seed_list(seeds: Sequence[int]) -> str:
    """Name the seeds in a note: `seed 4`, `seeds 4, 5`."""
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
