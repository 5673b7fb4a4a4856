"""Checkpoint files: from a path to what it holds, without executing anything, and back."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..atomic_files import CHECK_FOLDER, complete_file, writing
from ..errors import BIRError, shown_path
from ..weights import BUILTIN_NAMES, builtin_model_path
from .pytorch_files import PICKLE_START, ZIP_START, read_pytorch, require_checksums
from .safetensors_header import looks_like_safetensors, read_header
from .stored import DOWNLOAD, Checkpoint, reading, require_file


def model_file(source: str | Path) -> Path:
    """The file that a path or the name of a built-in model stands for.

    Raises:
        BIRError: what looks like such a name is none.
    """
    name = str(source)
    if found := builtin_model_path(name):
        return found
    path = Path(source)
    is_name = path.name == name and (name.startswith("builtin") or not path.suffix)
    if is_name and not os.path.exists(path):
        raise BIRError(
            f"Expected a checkpoint file or a built-in model, but found nothing of the name "
            f"{shown_path(name)}; check the path, or choose of {', '.join(BUILTIN_NAMES)}."
        )
    return path


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


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    what: str,
    *,
    advice: str = CHECK_FOLDER,
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
    with writing(path, what, advice):
        if make_folder:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as temporary:
            try:
                save_file(plain, temporary, metadata=metadata)
            except SafetensorError as error:  # its word for whatever the system says
                raise OSError(str(error)) from error
