"""Synthetic degradations: pairs of high- and low-quality images from high-quality ones."""

from .codeformer import CodeFormerDegradation
from .damage import DamageDegradation
from .degradation import Degradation, Degraded, Draws, degrade
from .enlarged import EnlargedDegradation
from .fixed import FixedDegradation
from .grain import GrainDegradation
from .kernels import MixedKernels
from .masks import BoxMasks, MaskDegradation, StrokeMasks
from .painted_damage import PaintedDamage
from .presets import get_preset, preset_names
from .real_esrgan import RealESRGANDegradation, RealESRGANOrder
from .scratch_masks import ScratchMasks
from .textured_damage import TexturedDamage
from .varying import VaryingDegradation

__all__ = [
    "BoxMasks",
    "CodeFormerDegradation",
    "DamageDegradation",
    "Degradation",
    "Degraded",
    "Draws",
    "EnlargedDegradation",
    "FixedDegradation",
    "GrainDegradation",
    "MaskDegradation",
    "MixedKernels",
    "PaintedDamage",
    "RealESRGANDegradation",
    "RealESRGANOrder",
    "ScratchMasks",
    "StrokeMasks",
    "TexturedDamage",
    "VaryingDegradation",
    "degrade",
    "get_preset",
    "preset_names",
]
