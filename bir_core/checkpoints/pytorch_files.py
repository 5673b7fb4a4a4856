"""The two formats of torch.save: a ZIP archive, and before version 1.6 pickles in a row."""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from torch import Tensor

from ..errors import BIRError, shown, shown_path
from .pickles import PickledTensor, RefusedName, Storage, read_pickle
from .stored import Checkpoint, DamagedFile, Place, map_values

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"
_LOCAL_HEADER = 30  # bytes, before the name
_CHUNK = 2**20
# Of the older format (`torch/serialization.py`).
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_COUNT_BYTES = 8


def read_pytorch(file: BinaryIO, start: bytes, size: int, checkpoint: Checkpoint) -> None:
    """Fill an open checkpoint from a file of torch.save.

    Args:
        start: the file's first bytes.
        size: of the file in bytes.

    Raises:
        BIRError: it names code, or is no dictionary.
        Exception: whatever a damaged file leads to.
    """
    try:
        if start.startswith(ZIP_START):
            content, places = _from_zip(file, size)
        else:
            content, places = _from_pickles(file, size)
    except RefusedName as error:
        raise BIRError(
            f"Expected plain tensors in {shown_path(checkpoint.path)}, but it holds pickled code "
            f"that would be executed ({shown(error)}); it was not read: use a safetensors version "
            "of the file, or one from its authors."
        ) from error
    if not isinstance(content, Mapping):
        raise BIRError(
            f"Expected a dictionary of tensors in {shown_path(checkpoint.path)}, but found "
            f"{type(content).__name__}; save the network's state dict instead."
        )
    checkpoint.content = map_values(content, _located(checkpoint, places))


def _located(checkpoint: Checkpoint, places: Mapping[str, Place]) -> Callable[[Any], Any]:
    """A function that turns what a pickle says of a tensor into one of the checkpoint."""
    done: dict[int, Tensor] = {}  # one tensor may stand under several names

    def located(value: Any) -> Any:
        if not isinstance(value, PickledTensor):
            return value
        if id(value) not in done:
            storage, item = value.storage, value.storage.dtype.itemsize
            begin = places[storage.key].begin + storage.offset * item
            place = Place(begin, storage.count * item, value.offset)
            done[id(value)] = checkpoint.tensor(value.dtype, value.shape, value.stride, place)
        return done[id(value)]

    return located


def _from_zip(file: BinaryIO, size: int) -> tuple[Any, dict[str, Place]]:
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise DamagedFile("a member comes twice in its ZIP archive")
    inner = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(inner) != 1:
        raise DamagedFile("its ZIP archive is not one of torch.save")
    folder = inner[0].removesuffix("data.pkl")
    order = members.get(f"{folder}byteorder")
    if order is not None and _content(file, order, size) != b"little":
        raise DamagedFile("its numbers are in another order of bytes")
    content, storages = read_pickle(io.BytesIO(_content(file, members[inner[0]], size)))
    places = {}
    for key, storage in storages.items():
        member = members.get(f"{folder}data/{key}")
        wanted = storage.count * storage.dtype.itemsize
        if member is None or member.file_size != wanted:
            found = "absent" if member is None else f"{member.file_size} bytes long"
            raise DamagedFile(f"the member data/{key} is {found} instead of {wanted} bytes long")
        places[key] = Place(_begin(file, member, size), wanted)
    if sum(place.size for place in places.values()) > size:
        raise DamagedFile("members of its ZIP archive lie in each other")
    return content, places


def _begin(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> int:
    """Where the bytes of a member begin."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise DamagedFile("its ZIP archive is compressed or encrypted; torch.save does neither")
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) != _LOCAL_HEADER or not header.startswith(ZIP_START):
        raise DamagedFile(f"the member {member.filename} is not where it should be")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    begin = member.header_offset + _LOCAL_HEADER + name + extra
    if member.compress_size != member.file_size or begin + member.file_size > size:
        raise DamagedFile(f"the member {member.filename} reaches beyond the file")
    return begin


def _content(file: BinaryIO, member: zipfile.ZipInfo, size: int) -> bytes:
    """A small member, by its checksum."""
    file.seek(_begin(file, member, size))
    content = file.read(member.file_size)
    # torch.save can leave the checksums out; they are 0 then.
    if member.CRC and zlib.crc32(content) != member.CRC:
        raise DamagedFile(f"the checksum of {member.filename} is wrong")
    return content


def require_checksums(file: BinaryIO, size: int) -> None:
    """Compare each member of a ZIP archive with its checksum, reading the whole file.

    Raises:
        DamagedFile: one differs.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    for member in members:
        file.seek(_begin(file, member, size))
        left, checksum = member.file_size, 0
        while left and (chunk := file.read(min(left, _CHUNK))):
            checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
        if left or (member.CRC and checksum != member.CRC):
            raise DamagedFile(f"the checksum of {member.filename} is wrong")


def _from_pickles(file: BinaryIO, size: int) -> tuple[Any, dict[str, Place]]:
    file.seek(0)
    if read_pickle(file)[0] != _MAGIC or read_pickle(file)[0] != _PROTOCOL:
        raise DamagedFile("it is a pickle, but not one of torch.save")
    about = read_pickle(file)[0]
    if not isinstance(about, Mapping) or about.get("little_endian") is not True:
        raise DamagedFile("its numbers are in another order of bytes")
    content, storages = read_pickle(file)
    keys = read_pickle(file)[0]
    if not isinstance(keys, list) or {*keys} != storages.keys() or len({*keys}) != len(keys):
        raise DamagedFile("the memory of its tensors is incomplete")
    places = {}
    begin = file.tell()
    for key in keys:
        places[key] = _counted(file, storages[key], begin, size)
        begin = places[key].begin + places[key].size
    return content, places


def _counted(file: BinaryIO, storage: Storage, begin: int, size: int) -> Place:
    """Memory that its number of numbers goes before."""
    file.seek(begin)
    count = int.from_bytes(file.read(_COUNT_BYTES), "little")
    place = Place(begin + _COUNT_BYTES, storage.count * storage.dtype.itemsize)
    if count != storage.count or place.begin + place.size > size:
        raise DamagedFile(f"the memory {storage.key} of its tensors is not complete")
    return place
