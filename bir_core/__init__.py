"""Blind image restoration with DiffIR: models, restoration, degradation and training."""

from .checkpoints import ModelInfo, inspect, load_model
from .errors import BIRError
from .restore import restore

__all__ = ["BIRError", "ModelInfo", "inspect", "load_model", "restore"]
