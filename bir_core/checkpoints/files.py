"""Checkpoint files: from a path to what it holds, without executing anything, and back."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..atomic_files import complete_file
from ..errors import BIRError, shown_path
from ..networks.swinir import SwinIR
from ..weights import builtin_model_path
from .diffusers import FOLDERS, network_file
from .pytorch_files import PICKLE_START, ZIP_START, read_pytorch, require_checksums
from .safetensors_header import looks_like_safetensors, read_header
from .stored import DOWNLOAD, Checkpoint, reading, require_file


def model_file(source: str | Path, architecture: str | None = None) -> Path:
    """The file that a path, a folder in the layout of diffusers or the name of a built-in model
    stands for.

    Args:
        architecture: the network wanted; a folder holds several.

    Raises:
        BIRError: a folder without a file for that network.
    """
    path = builtin_model_path(str(source)) or Path(source)
    if not os.path.isdir(path) or architecture is None:
        return path
    if architecture not in FOLDERS:
        raise BIRError(
            f"Expected a file for the network {architecture}, but found a folder at {path}, "
            f"in which only {', '.join(FOLDERS)} are looked for; give the file itself."
        )
    return network_file(path, architecture)


@contextmanager
def open_checkpoint(path: str | Path, advice: str = DOWNLOAD) -> Iterator[Checkpoint]:
    """Open a safetensors or PyTorch file. The content decides the format, not the name.

    Pickled code is never executed: what is neither a tensor nor a plain container is refused, but
    for the objects that training frameworks leave in their checkpoints, which are ignored. Numbers
    are read when they are asked for, with `Checkpoint.read`; nothing stays connected to the file.

    Args:
        advice: what to do about a damaged file.

    Raises:
        BIRError: no file, an empty or damaged one, one that cannot be read, one that holds code,
            or no dictionary.
    """
    path = Path(path)
    size = require_file(path, advice)
    with reading(path):
        file = open(path, "rb")  # noqa: SIM115  # closed below, after the caller's work
    with file:
        checkpoint = Checkpoint(file, path, size, advice)
        with reading(path):
            start = file.read(9)
        if looks_like_safetensors(start):
            with reading(path, "safetensors", size, advice):
                read_header(file, size, checkpoint)
        elif start.startswith((ZIP_START, PICKLE_START)):
            with reading(path, "PyTorch", size, advice):
                read_pytorch(file, start, size, checkpoint)
        else:
            raise BIRError(
                f"Expected a safetensors or PyTorch checkpoint, but {shown_path(path)} is neither; "
                "check that the download is the file itself and not a web page."
            )
        yield checkpoint


def read_checkpoint(path: str | Path, advice: str = DOWNLOAD) -> dict[str, Any]:
    """Read all of a safetensors or PyTorch file; arguments as of `open_checkpoint`.

    Returns:
        The file's top-level dictionary: tensors by name, or wrappers around them (`keys.unwrap`).

    Raises:
        BIRError: as `open_checkpoint`.
    """
    with open_checkpoint(path, advice) as checkpoint:
        return checkpoint.everything()


def require_whole(path: str | Path) -> None:
    """Compare the parts of a PyTorch file with their checksums; safetensors and files before
    PyTorch 1.6 have none. It reads the whole file.

    Raises:
        BIRError: one differs, or the file cannot be read.
    """
    path = Path(path)
    size = require_file(path)
    with reading(path, "PyTorch", size), open(path, "rb") as file:
        if file.read(len(ZIP_START)) == ZIP_START:
            require_checksums(file, size)


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
    write_tensors(path, tensors, "the checkpoint", metadata=metadata)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    what: str,
    *,
    advice: str = "check the folder and the free space",
    metadata: dict[str, str] | None = None,
    make_folder: bool = False,
) -> None:
    """Write tensors of any device as safetensors; the file appears only when it is complete, and
    what stood there before stays until then.

    Args:
        what: they are, and `advice`, for the sentence.
        metadata: texts for the file's header.
        make_folder: make the file's folder if it is absent.

    Raises:
        BIRError: the file cannot be written (folder missing, disk full).
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        if make_folder:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as temporary:
            save_file(plain, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise BIRError(
            f"Expected to write {what} {path}, but it failed ({error}); {advice}."
        ) from error
