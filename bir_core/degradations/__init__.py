"""Synthetic degradations: pairs of high- and low-quality images from high-quality ones."""

from .codeformer import CodeFormerDegradation
from .degradation import Degradation, Degraded, Draws, degrade
from .enlarged import EnlargedDegradation
from .fixed import FixedDegradation
from .kernels import MixedKernels
from .masks import BoxMasks, MaskDegradation, StrokeMasks
from .presets import get_preset, preset_names
from .real_esrgan import RealESRGANDegradation, RealESRGANOrder

__all__ = [
    "BoxMasks",
    "CodeFormerDegradation",
    "Degradation",
    "Degraded",
    "Draws",
    "EnlargedDegradation",
    "FixedDegradation",
    "MaskDegradation",
    "MixedKernels",
    "RealESRGANDegradation",
    "RealESRGANOrder",
    "StrokeMasks",
    "degrade",
    "get_preset",
    "preset_names",
]
