"""The models that come with the package: small DiffIRs, made by the recipes in `training/`."""

from pathlib import Path

from ..errors import BIRError

# What they are called in lists that also hold file names, and the files.
BUILT_IN = {
    "builtin: DiffIR x4 (small)": Path(__file__).with_name("diffir_x4.safetensors"),
    "builtin: DiffIR x1 (small)": Path(__file__).with_name("diffir_x1.safetensors"),
}
# The same two on the command line.
BUILTIN_NAMES = {
    "builtin-x4": Path(__file__).with_name("diffir_x4.safetensors"),
    "builtin-x1": Path(__file__).with_name("diffir_x1.safetensors"),
}


def builtin_model_path(name: str) -> Path:
    """The file of a built-in model by its command line name, `builtin-x4` or `builtin-x1`.

    Raises:
        BIRError: another name.
    """
    try:
        return BUILTIN_NAMES[name]
    except KeyError as error:
        raise BIRError(
            f"Expected a built-in model ({', '.join(BUILTIN_NAMES)}), but {name} came; "
            "choose one of these or give a file."
        ) from error
