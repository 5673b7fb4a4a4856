"""What a file is, before any of its networks runs: facts to hold against those of its authors."""

import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.architectures import ARCHITECTURES, FOLDERS, Architecture
from ..checkpoints.completeness import dtype_name
from ..checkpoints.diffusers import network_file
from ..checkpoints.keys import StateDict, unwrap, wrapping
from ..checkpoints.loading import describe
from ..diffbir.versions import version_name_of_file
from ..errors import BIRError
from ..weights import builtin_model_path

CHUNK = 2**20
# An absolute path of two parts or more, but not the end of an address or of a relative path.
_PATH = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:)?[/\\]+(?:[^\s/\\:'"]+[/\\]+)+([^\s/\\:'"]*)""")
# How files begin that are given by mistake.
LOOKS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"RIFF", "a WebP picture"),
    (b"<!", "a web page"),
    (b"<h", "a web page"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a quantised model in the format GGUF, which is not read here"),
    (b"version https://git-lfs", "a pointer of Git LFS and not the file that it stands for"),
)
# Share of the keys by which a network is known that make a file look like a damaged one of it.
NEARLY = 0.5


@dataclass(frozen=True)
class Part:
    """A file to check.

    Attributes:
        name: what the report calls it, without any folder of this machine.
        path: where it lies, absolute.
        architecture: the only network to look for, of a file in a diffusers folder.
    """

    name: str
    path: Path
    architecture: str | None = None

    def hide(self, text: str) -> str:
        """A text with the file's name in the place of its path, and no other folder."""
        path, folder = str(self.path), str(self.path.parent) + os.sep
        for long, short in ((path, self.name), (folder, "")):
            # Messages of the system show paths with doubled backslashes.
            for spelling in (long, repr(long)[1:-1]):
                text = text.replace(spelling, short)
        return without_folders(text)


def without_folders(text: str) -> str:
    """A text, such as a message of a library, with the last part of each absolute path alone."""
    for folder in (sys.prefix, sys.base_prefix, os.getcwd(), os.path.expanduser("~")):
        # At once, since the names of folders may have spaces, which a pattern does not know.
        for spelling in (folder, repr(folder)[1:-1]):
            for separator in "/\\" if len(folder) > 1 else "":
                text = text.replace(spelling + separator, f"{separator}x{separator}")
    return _PATH.sub(r"\1", text)


def parts_of(given: str) -> list[Part]:
    """The files that a name of a built-in model, a path, or a folder in the layout of diffusers
    stands for."""
    builtin = builtin_model_path(given)
    if builtin is not None:
        return [Part(given, builtin)]
    path = Path(os.path.abspath(given))
    present = {name: folder for name, folder in FOLDERS.items() if (path / folder).is_dir()}
    if not present:
        return [Part(path.name or given, path)]
    parts = []
    for network, folder in present.items():
        try:
            file = network_file(path / folder)
            parts.append(Part(f"{folder}/{file.name}", file, network))
        except BIRError:  # said when the part is read
            parts.append(Part(folder, path / folder, network))
    return parts


@dataclass(frozen=True)
class Fingerprint:
    """What tells two files apart.

    Attributes:
        size: in bytes.
        sha256: of the content, hexadecimal.
        looks: what else than a checkpoint it begins like; empty for anything unknown.
    """

    size: int
    sha256: str
    looks: str


def fingerprint(path: Path) -> Fingerprint:
    """Read a whole file once. Raises OSError if it cannot be read."""
    digest, start = hashlib.sha256(), b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            start = start or chunk[:64]
            digest.update(chunk)
        size = file.tell()
    looks = next((what for mark, what in LOOKS if start.startswith(mark)), "")
    return Fingerprint(size, digest.hexdigest(), looks)


@dataclass(frozen=True)
class ContentFacts:
    """What a checkpoint holds as a whole.

    Attributes:
        wrapping: what was taken away around the tensors and before their names.
        tensors: their number, without those of other wrappers in the same file.
        dtypes: how many there are of each type.
        unused: names of tensors of no network that is known here, such as tables of a schedule;
            None where that cannot be told, because tensors are joined on the way.
    """

    wrapping: tuple[str, ...]
    tensors: int
    dtypes: Mapping[str, int]
    unused: tuple[str, ...] | None


def content_facts(content: Mapping[str, Any], rows: list[Architecture]) -> ContentFacts:
    """Facts of what `read_checkpoint` gave; `rows` are the networks in it."""
    tensors = unwrap(content)
    used = {id(value) for row in rows for value in row.canonical(tensors).values()}
    names = {id(value): name for name, value in tensors.items()}
    unused = tuple(name for number, name in names.items() if number not in used)
    dtypes = Counter(dtype_name(value.dtype) for value in tensors.values())
    return ContentFacts(
        wrapping=wrapping(content),
        tensors=len(tensors),
        dtypes=dict(dtypes),
        unused=unused if rows and used <= names.keys() else None,
    )


@dataclass(frozen=True)
class NetworkFacts:
    """What one network of a file is.

    Attributes:
        architecture, variant, task, scale, parameters, dtype, config: as in `ModelInfo`.
        version: of DiffBIR, by the file's name, of an IRControlNet; else None.
        absent, surplus, differing: as in `WeightDifferences`.
    """

    architecture: str
    variant: str
    task: str
    scale: int
    parameters: int
    dtype: str
    config: Mapping[str, Any]
    version: str | None
    absent: tuple[str, ...]
    surplus: tuple[str, ...]
    differing: tuple[str, ...]


def network_facts(row: Architecture, tensors: StateDict, file_name: str) -> NetworkFacts:
    """Facts of the network of a row in a file that holds it.

    Raises:
        BIRError: as `describe`.
    """
    info, differences = describe(row, tensors)
    return NetworkFacts(
        architecture=info.architecture,
        variant=info.variant,
        task=info.task,
        scale=info.scale,
        parameters=info.parameters,
        dtype=dtype_name(info.dtype),
        config=asdict(info.config),  # type: ignore[call-overload]  # dataclasses, see NetworkConfig
        version=version_name_of_file(file_name) if row.name == "ir_controlnet" else None,
        absent=differences.absent,
        surplus=differences.surplus,
        differing=differences.differing,
    )


def nearly_known(tensors: StateDict) -> str | None:
    """A sentence on the network that these tensors nearly are; None if there is none."""
    most, sentence = 0.0, None
    for row in ARCHITECTURES:
        own = row.canonical(tensors)
        absent = [key for key in row.required if key not in own]
        total = len(row.required)
        share = 1 - len(absent) / total
        if absent and share >= NEARLY and share > most:
            most = share
            sentence = (
                f"It has {total - len(absent)} of the {total} tensors by which a "
                f"{row.description} is known, but not {', '.join(absent[:3])}."
            )
    return sentence
