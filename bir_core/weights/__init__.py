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
# What restores no picture by itself lies apart: ComfyUI lists all of FOLDER as upscale models.
_APART = {
    "builtin-scratches": "estimate/weights/scratches.safetensors",
    "builtin-estimate": "estimate/weights/estimate.safetensors",
    "builtin-inpaint": "old_photo/weights/inpaint.safetensors",
}
NAMES_APART = tuple(_APART)
DEFAULT_MODEL = "builtin-x4-sharp"
DEFAULT_DIFFIR = "builtin-diffir-x4"
# The DiffIRs in lists that also hold file names; saved graphs know these names.
BUILT_IN = {
    "builtin: DiffIR x4 (small)": FOLDER / "diffir_x4.safetensors",
    "builtin: DiffIR x1 (small)": FOLDER / "diffir_x1.safetensors",
    "builtin: DiffIR inpainting (small)": FOLDER.parent / _APART["builtin-inpaint"],
}


def builtin_model_path(name: str) -> Path | None:
    """The file of a name among `BUILTIN_NAMES` and `NAMES_APART`; None for any other, which may be
    a path."""
    if name in _APART:
        return FOLDER.parent / _APART[name]
    return FOLDER / _FILES[name] if name in _FILES else None
