"""Blind image restoration with DiffIR and DiffBIR: models, restoration, degradation, training."""

from .checkpoints import ModelInfo, inspect, load_model
from .diffbir import DiffBIR
from .diffbir_settings import DiffBIRSettings
from .errors import BIRError
from .restore import restore

__all__ = [
    "BIRError",
    "DiffBIR",
    "DiffBIRSettings",
    "ModelInfo",
    "inspect",
    "load_model",
    "restore",
]
