"""A checkpoint file to a dictionary of its values, without executing anything that it holds."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..atomic_files import complete_file
from ..errors import BIRError
from ..networks.swinir import SwinIR
from ..weights import builtin_model_path
from .diffusers import FOLDERS, network_file

# Objects that training frameworks leave beside the weights. They are read as empty placeholders;
# a pickle that names anything else is refused.
_IGNORED_MODULES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "numpy.")


class _Ignored:
    """Stands for an object of a training framework, whatever it was made of."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def model_file(source: str | Path, architecture: str | None = None) -> Path:
    """The file that a path, a folder in the layout of diffusers or the name of a built-in model
    stands for.

    Args:
        architecture: the network wanted; a folder holds several.

    Raises:
        BIRError: a folder without a file for that network.
    """
    path = builtin_model_path(str(source)) or Path(source)
    if not path.is_dir() or architecture is None:
        return path
    if architecture not in FOLDERS:
        raise BIRError(
            f"Expected a file for the network {architecture}, but found a folder at {path}, "
            f"in which only {', '.join(FOLDERS)} are looked for; give the file itself."
        )
    return network_file(path, architecture)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a safetensors or PyTorch file. The content decides the format, not the name.

    Tensors are memory-mapped where the format allows it. Pickled code is never executed: what is
    neither a tensor nor a plain container is refused, but for the objects that PyTorch Lightning
    leaves in its checkpoints, which are ignored.

    Returns:
        The file's top-level dictionary: tensors by name, or wrappers around them (`keys.unwrap`).

    Raises:
        BIRError: no file, an empty or damaged one, one that holds code, or no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise BIRError(f"Expected a checkpoint file at {path}, but found {what}; check the path.")
    size = path.stat().st_size
    if size == 0:
        raise BIRError(f"Expected a checkpoint in {path}, but it is empty; download it again.")
    with open(path, "rb") as file:
        start = file.read(9)
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return _read_pytorch(path)
    header = int.from_bytes(start[:8], "little")
    if start[8:9] != b"{" or header > 100_000_000:
        raise BIRError(
            f"Expected a safetensors or PyTorch checkpoint, but {path} is neither; "
            "check that the download is the file itself and not a web page."
        )
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise BIRError(
            f"Expected a complete safetensors file, but {path} is damaged or cut off at {size} "
            f"bytes ({error}); download it again."
        ) from error


def _read_pytorch(path: Path) -> dict[str, Any]:
    zipped = zipfile.is_zipfile(path)
    if not zipped:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                raise BIRError(
                    f"Expected a complete PyTorch file, but {path} is cut off; download it again."
                )
    try:
        placeholders = _ignored_globals(path) if zipped else []
        with torch.serialization.safe_globals(placeholders):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise BIRError(
            f"Expected plain tensors in {path}, but it holds pickled code that would be executed; "
            "it was not read: use a safetensors version of the file, or one from its authors."
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BIRError(
            f"Expected a complete PyTorch file, but {path} cannot be read "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "download it again."
        ) from error
    if not isinstance(content, Mapping):
        raise BIRError(
            f"Expected a dictionary of tensors in {path}, but found {type(content).__name__}; "
            "save the network's state dict instead."
        )
    return dict(content)


def _ignored_globals(path: Path) -> list[Any]:
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    return [(_Ignored, name) for name in names if name.startswith(_IGNORED_MODULES)]


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a network's state dict as safetensors; the file appears only when it is complete.

    A SwinIR gets the tables of the published files, so that other programs load it too.

    Args:
        dtype: what floating-point weights are stored as; None keeps theirs.
        metadata: texts for the file's header.

    Raises:
        BIRError: the file cannot be written (folder missing, disk full).
    """
    state: dict[str, Tensor] = model.state_dict()
    if isinstance(model, SwinIR):
        state = state | model.published_tables()
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        keep = dtype is None or not value.is_floating_point() or name.endswith("betas")
        tensors[name] = value.detach().to("cpu", value.dtype if keep else dtype).contiguous()
    try:
        with complete_file(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise BIRError(
            f"Expected to write the checkpoint {path}, but it failed ({error}); "
            "check the folder and the free space."
        ) from error
