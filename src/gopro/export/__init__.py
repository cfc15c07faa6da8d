"""A trained classifier over fixed class names as one file that needs no GOPro: pictures in, probabilities out."""

from __future__ import annotations

from gopro.export.export import Exported, HeadWish, export_run
from gopro.export.formats import FORMATS, FormatName

__all__ = ["FORMATS", "Exported", "FormatName", "HeadWish", "export_run"]
