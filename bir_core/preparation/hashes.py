"""Hashes that publishers or loaders of a set give: of its archives, and of each picture."""

import hashlib
import json
from pathlib import Path

from ..errors import BIRError
from .sets import PictureSet


def require_archives(row: PictureSet, folder: Path) -> list[str]:
    """Compare the archives that lie in the folder of a set with their published hashes.

    Returns:
        The names of those that were there.

    Raises:
        BIRError: one is another file.
    """
    checked = []
    for name, md5 in row.md5:
        path = folder / name
        if path.is_file():
            _require(path, md5)
            checked.append(name)
    return checked


def hashes_of_pictures(row: PictureSet, folder: Path) -> dict[str, str]:
    """MD5 of each picture by its file name, from the publishers' list in the folder of the set;
    empty where the set has none, or the list is not there.

    Raises:
        BIRError: a list of another form.
    """
    if row.md5_list is None:
        return {}
    path = folder / row.md5_list
    if not path.is_file():
        return {}
    try:
        images = [entry["image"] for entry in json.loads(path.read_bytes()).values()]
        return {Path(image["file_path"]).name: str(image["file_md5"]) for image in images}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise BIRError(
            f"Expected {path} to have an `image` with `file_path` and `file_md5` for each picture, "
            f"but it cannot be read so ({error!r}); get it again, or remove it to go on without "
            "hashes."
        ) from error


def require_picture(path: Path, hashes: dict[str, str]) -> None:
    """Raise BIRError if a picture is not the published file; nothing where its hash is unknown."""
    if path.name in hashes:
        _require(path, hashes[path.name])


def _require(path: Path, md5: str) -> None:
    try:
        with open(path, "rb") as file:
            digest = hashlib.md5(usedforsecurity=False)
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise BIRError(
            f"Expected to read {path}, but it failed ({error.strerror}); check the disk."
        ) from error
    found = digest.hexdigest()
    if found != md5:
        raise BIRError(
            f"Expected {path} to have the MD5 {md5} of the published file, but it has {found}; get "
            "it again."
        )
