"""Blind image restoration with DiffIR and DiffBIR: models, restoration, degradation, training."""

from .checkpoints import ModelInfo, inspect, load_model
from .diffbir.pipeline import DiffBIR
from .diffbir.settings import DiffBIRSettings
from .diffir.restore import restore
from .errors import BIRError

__all__ = [
    "BIRError",
    "DiffBIR",
    "DiffBIRSettings",
    "ModelInfo",
    "inspect",
    "load_model",
    "restore",
]
