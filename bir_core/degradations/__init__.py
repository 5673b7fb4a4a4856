"""Synthetic degradations: pairs of high- and low-quality images from high-quality ones."""

from .pipeline import BlurRanges, Degraded, FixedDegradation, degrade
from .presets import get_preset, preset_names

__all__ = [
    "BlurRanges",
    "Degraded",
    "FixedDegradation",
    "degrade",
    "get_preset",
    "preset_names",
]
