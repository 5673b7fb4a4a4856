"""Blind image restoration with DiffIR and DiffBIR: models, restoration, degradation, training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import ModelInfo, inspect, load_model
    from .diffbir.pipeline import DiffBIR
    from .diffbir.settings import DiffBIRSettings
    from .errors import BIRError
    from .restoring import restore

__version__ = "0.1.0"

__all__ = [
    "BIRError",
    "DiffBIR",
    "DiffBIRSettings",
    "ModelInfo",
    "inspect",
    "load_model",
    "restore",
]

# Imported when they are asked for: torch alone takes seconds, which `bir --help` need not wait for.
_PLACES = {
    "BIRError": ".errors",
    "DiffBIR": ".diffbir.pipeline",
    "DiffBIRSettings": ".diffbir.settings",
    "ModelInfo": ".checkpoints",
    "inspect": ".checkpoints",
    "load_model": ".checkpoints",
    "restore": ".restoring",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
