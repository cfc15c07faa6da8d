"""The training of a method: in closed form or in steps, and the optimiser and schedule of the steps."""

from enum import Flag
from typing import Literal

from gopro.settings import NonNegativeFloat, PositiveFloat, PositiveInt, settings


class Training(Flag):
    """The ways in which a method learns from the training images.

    Example:
        >>> Training.STEPS in Training.CLOSED_FORM_THEN_STEPS
        True
    """

    NONE = 0
    """Nothing is learned; the training images are not read."""
    STEPS = 1
    """Gradient steps on `Method.losses`."""
    CLOSED_FORM = 2
    """One call of `Method.solve` with all training images."""
    CLOSED_FORM_THEN_STEPS = CLOSED_FORM | STEPS


@settings
class Recipe:
    """The optimiser and schedule that a method is trained with by default."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 2e-3
    """Peak learning rate; it falls to 0 over the epochs as a cosine."""
    epochs: PositiveInt = 50
    batch: PositiveInt = 4
    """Images per step."""
    warmup: NonNegativeFloat = 1.0
    """Epochs at the start with a constant learning rate of 1e-5."""
    weight_decay: NonNegativeFloat = 5e-4
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD; AdamW keeps its usual betas."""
