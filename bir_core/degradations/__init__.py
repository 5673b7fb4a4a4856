"""Synthetic degradations: pairs of high- and low-quality images from high-quality ones."""

from .kernels import MixedKernels
from .masks import BoxMasks, MaskDegradation, StrokeMasks
from .parameters import (
    CodeFormerDegradation,
    Degradation,
    FixedDegradation,
    RealESRGANDegradation,
    RealESRGANOrder,
    keeps_size,
)
from .pipeline import Degraded, degrade
from .presets import get_preset, preset_names

__all__ = [
    "BoxMasks",
    "CodeFormerDegradation",
    "Degradation",
    "Degraded",
    "FixedDegradation",
    "MaskDegradation",
    "MixedKernels",
    "RealESRGANDegradation",
    "RealESRGANOrder",
    "StrokeMasks",
    "degrade",
    "get_preset",
    "keeps_size",
    "preset_names",
]
