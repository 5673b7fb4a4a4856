"""The models that come with the package, made by the recipes in `training/`."""

from pathlib import Path

FOLDER = Path(__file__).parent
# What they are called on the command line and in Python.
_FILES = {
    "builtin-x4-sharp": "bir_x4_sharp.safetensors",
    "builtin-x4": "bir_x4.safetensors",
    "builtin-x2": "bir_x2.safetensors",
    "builtin-x1": "bir_x1.safetensors",
    "builtin-diffir-x4": "diffir_x4.safetensors",
    "builtin-diffir-x1": "diffir_x1.safetensors",
}
BUILTIN_NAMES = tuple(_FILES)
DEFAULT_MODEL = "builtin-x4-sharp"
DEFAULT_DIFFIR = "builtin-diffir-x4"
# Says what is wrong with a picture, and restores none.
ESTIMATOR = FOLDER / "estimate.safetensors"
# The DiffIRs in lists that also hold file names; saved graphs know these names.
BUILT_IN = {
    "builtin: DiffIR x4 (small)": FOLDER / "diffir_x4.safetensors",
    "builtin: DiffIR x1 (small)": FOLDER / "diffir_x1.safetensors",
}


def builtin_model_path(name: str) -> Path | None:
    """The file of a name among `BUILTIN_NAMES`; None for any other, which may be a path."""
    return FOLDER / _FILES[name] if name in _FILES else None


def builtin_scratches() -> Path | None:
    """The file of the network that finds scratches; None where the package brings none."""
    path = FOLDER / "scratches.safetensors"
    return path if path.is_file() else None
