"""The line with which a command says what backbone it runs."""

from __future__ import annotations

from gopro.cli.console import Screen, out
from gopro.clip.weights.embedded import describe_backbone

TRAIN_AGAIN = "train again with --backbone"
"""The way to another backbone for a run that is trained."""


def print_backbone(name: str, option: str = TRAIN_AGAIN, *, screen: Screen = out) -> None:
    """Print a backbone, what it was trained on and how to get a stronger one.

    Args:
        option: how the user of this command chooses another backbone.
    """
    screen.print_line(f"Backbone: {describe_backbone(name, option)}")
