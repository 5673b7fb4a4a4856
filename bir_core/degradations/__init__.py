"""Synthetic degradations: pairs of high- and low-quality images from high-quality ones."""

from .kernels import MixedKernels
from .parameters import (
    CodeFormerDegradation,
    Degradation,
    FixedDegradation,
    RealESRGANDegradation,
    RealESRGANOrder,
)
from .pipeline import Degraded, degrade
from .presets import get_preset, preset_names

__all__ = [
    "CodeFormerDegradation",
    "Degradation",
    "Degraded",
    "FixedDegradation",
    "MixedKernels",
    "RealESRGANDegradation",
    "RealESRGANOrder",
    "degrade",
    "get_preset",
    "preset_names",
]
