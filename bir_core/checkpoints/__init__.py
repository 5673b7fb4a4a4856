"""From a checkpoint file to a network."""

from .architectures import ModelInfo
from .files import read_checkpoint, save_checkpoint
from .loading import inspect, load_model

__all__ = ["ModelInfo", "inspect", "load_model", "read_checkpoint", "save_checkpoint"]
