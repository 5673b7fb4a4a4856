"""Whether the files of a set are there, and lie as they are published."""

from dataclasses import dataclass
from pathlib import Path

from ..errors import BIRError
from ..pictures.files import find_pictures
from .sets import Part, PictureSet

MOST_NAMES = 5


@dataclass(frozen=True)
class Source:
    """A picture of a set.

    Attributes:
        part: that it belongs to.
        hq: its file, and `lq`, that of its low-quality partner, if the set has some.
        stem: what its results are called, unique in the part.
    """

    part: Part
    hq: Path
    stem: str
    lq: Path | None = None


def find_sources(row: PictureSet, folder: Path, *, partial: bool) -> list[Source]:
    """The pictures of a set, in the order of their names.

    Args:
        partial: pictures may be missing, but not all of them.

    Raises:
        BIRError: a folder, a picture or a partner is missing, or there are two of one name.
    """
    if not folder.is_dir():
        raise BIRError(
            f"Expected the folder of {row.name} at {folder}, but there is none; say where its "
            "files were unpacked."
        )
    sources: list[Source] = []
    missing: list[str] = []
    for part in row.parts:
        found = _sources_of(part, folder)
        sources += found
        lack = _lack(part, found)
        if lack and not (partial and found):
            missing.append(lack)
    if not sources or (missing and not partial):
        raise BIRError(
            f"Expected {row.name} in {folder} as it is published, but {'; '.join(missing)}: get "
            "the files again, or take what is there by --partial."
        )
    return sources


def _sources_of(part: Part, folder: Path) -> list[Source]:
    several = "*" in part.folder
    found: dict[str, Source] = {}
    for place in sorted(path for path in folder.glob(part.folder) if path.is_dir()):
        video = place.parent.name + "_" if several else ""
        for path in find_pictures(place, recursive=True)[0]:
            stem = video + path.stem
            if stem in found:
                raise BIRError(
                    f"Expected one picture named {path.stem} in {place}, but {found[stem].hq} and "
                    f"{path} came; remove one."
                )
            found[stem] = Source(part, path, stem, _partner(part, path))
    return list(found.values())


def _partner(part: Part, hq: Path) -> Path | None:
    if part.lq_folder is None:
        return None
    lq = hq.parent.parent / part.lq_folder / hq.name
    if not lq.is_file():
        raise BIRError(
            f"Expected the low-quality picture {lq} for {hq}, but it is missing; unpack "
            f"{part.source} again."
        )
    return lq


def _lack(part: Part, found: list[Source]) -> str:
    """What of a part is not there, as a part of a sentence; "" for nothing."""
    if not found:
        return f"{part.folder} is missing (unpack {part.source} there)"
    if part.names is not None:
        there = {source.hq.name for source in found}
        absent = [name for name in part.names.names() if name not in there]
        if absent:
            more = len(absent) - MOST_NAMES
            named = ", ".join(absent[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
            return f"of the {part.count} pictures of {part.folder} {named} are missing"
    elif part.count is not None and len(found) != part.count:
        return f"{part.folder} has {len(found)} pictures and not {part.count}"
    return ""
