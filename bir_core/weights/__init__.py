"""The models that come with the package: small DiffIRs, made by the recipes in `training/`."""

from pathlib import Path

# What they are called in lists that also hold file names, and the files.
BUILT_IN = {
    "builtin: DiffIR x4 (small)": Path(__file__).with_name("diffir_x4.safetensors"),
    "builtin: DiffIR x1 (small)": Path(__file__).with_name("diffir_x1.safetensors"),
}
# The same two on the command line.
BUILTIN_NAMES = ("builtin-x4", "builtin-x1")
DEFAULT_MODEL = "builtin-x4"


def builtin_model_path(name: str) -> Path | None:
    """The file of `builtin-x4` or `builtin-x1`; None for any other name, which may be a path."""
    if name not in BUILTIN_NAMES:
        return None
    return Path(__file__).with_name(f"diffir_{name.removeprefix('builtin-')}.safetensors")
