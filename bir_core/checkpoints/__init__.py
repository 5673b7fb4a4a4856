"""From a checkpoint file to a network."""

from .architectures import ModelInfo
from .files import read_checkpoint
from .loading import inspect, load_model
from .saving import save_checkpoint

__all__ = ["ModelInfo", "inspect", "load_model", "read_checkpoint", "save_checkpoint"]
