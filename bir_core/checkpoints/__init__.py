"""From a checkpoint file to a network."""

from .architectures import ModelInfo, inspect, load_model
from .files import read_checkpoint, save_checkpoint

__all__ = ["ModelInfo", "inspect", "load_model", "read_checkpoint", "save_checkpoint"]
