"""Training examples in files of their own: a folder, or a list of files."""

import json
from array import array
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ...errors import BIRError
from ...pictures.files import list_pictures
from .captions import Captions, captions_from
from .pictures import WholeExample, read_training_picture


@dataclass(frozen=True)
class PicturePair:
    """Files of one training example; `lq` is None where a degradation makes it."""

    hq: Path
    lq: Path | None = None


def find_pairs(folder: str | Path, *, paired: bool) -> list[PicturePair]:
    """The training examples of a folder: its pictures, subfolders included.

    Args:
        paired: the pictures of its subfolder `hq` instead, each with that of the same name in `lq`.

    Raises:
        BIRError: folder or pictures absent, a name without its partner.
    """
    folder = Path(folder)
    if not paired:
        pairs = [PicturePair(path) for path in list_pictures(folder, recursive=True)]
    else:
        hq_root, lq_root = folder / "hq", folder / "lq"
        partners = {
            path.relative_to(lq_root).with_suffix(""): path
            for path in list_pictures(lq_root, recursive=True)
        }
        pairs = []
        for path in list_pictures(hq_root, recursive=True):
            name = path.relative_to(hq_root).with_suffix("")
            if name not in partners:
                raise BIRError(
                    f"Expected a picture {name} in {lq_root} for {path}, but found none; "
                    "give both pictures of a pair the same name."
                )
            pairs.append(PicturePair(path, partners[name]))
    return pairs


def share_of(pairs: list[PicturePair], share: float, most: int, folder: Path) -> set[PicturePair]:
    """A share of a folder's pairs: at least one, at most `most`, and never all; none for 0. Which
    ones follows from the hashes of their names, as if drawn, but always the same."""

    def place(pair: PicturePair) -> bytes:
        return sha256(pair.hq.relative_to(folder).as_posix().encode()).digest()

    count = min(max(1, round(share * len(pairs))), most, len(pairs) - 1) if share else 0
    return set(sorted(pairs, key=place)[:count])


class FolderSource:
    """Examples of files that are known by their paths. The caption of a picture is the text in the
    `.txt` file of the same name beside it, if there is one."""

    def __init__(self, pairs: list[PicturePair], *, captions: bool = False) -> None:
        self.pairs = pairs
        self.sizes: tuple[int, ...] = (len(pairs),)
        self.captions = captions

    def read(self, index: int) -> WholeExample:
        """See `ExampleSource`."""
        pair = self.pairs[index]
        captions = captions_from({}, _text_beside(pair.hq)) if self.captions else Captions()
        return _read(pair, captions)

    def name(self, index: int) -> str:
        """The name of the file of hq."""
        return self.pairs[index].hq.name


class FileList:
    """Examples of the files in a list; only the places of its lines are kept in memory.

    A line is a path, relative to the folder of the list; or a JSON object with `picture` and, where
    they apply, `lq`, `caption` and `long_caption`. Empty lines are passed over. Without a caption,
    the text beside the picture counts, as in a folder.

    Args:
        path: of the list, UTF-8.
        paired: `lq` is needed and read.
        captions: captions are read.

    Raises:
        BIRError: the list is empty, or its first line is none of the above.
    """

    def __init__(self, path: Path, *, paired: bool, captions: bool) -> None:
        self.path, self.paired, self.captions = path, paired, captions
        self.starts = array("q")
        with open(path, "rb") as file:
            place = 0
            for line in file:
                if line.strip():
                    self.starts.append(place)
                place += len(line)
        if not self.starts:
            raise BIRError(
                f"Expected a list of pictures in {path}, but it is empty; write one path per line."
            )
        self.sizes: tuple[int, ...] = (len(self.starts),)
        self._pair(self._fields(0))

    def read(self, index: int) -> WholeExample:
        """See `ExampleSource`."""
        fields = self._fields(index)
        pair = self._pair(fields)
        if not self.captions:
            return _read(pair, Captions())
        text = "" if fields.get("caption") is not None else _text_beside(pair.hq)
        return _read(pair, captions_from(fields, text))

    def name(self, index: int) -> str:
        """The picture's path as the list has it, or the line if it has none."""
        try:
            return str(self._fields(index)["picture"])
        except (BIRError, KeyError):
            return f"example {index + 1} of {self.path.name}"

    def _fields(self, index: int) -> dict[str, Any]:
        with open(self.path, "rb") as file:
            file.seek(self.starts[index])
            content = file.readline()
        try:
            line = content.decode().strip()
            fields = json.loads(line) if line.startswith("{") else {"picture": line}
        except ValueError as error:
            raise BIRError(
                f"Expected a path or a JSON object in line {index + 1} of {self.path} (empty ones "
                f"not counted), but it cannot be read ({error}); correct that line."
            ) from error
        return fields

    def _pair(self, fields: dict[str, Any]) -> PicturePair:
        wanted = ("picture", "lq") if self.paired else ("picture",)
        for name in wanted:
            if not isinstance(fields.get(name), str):
                raise BIRError(
                    f"Expected the path of a picture as `{name}` in {self.path}, but the line has "
                    f"{fields.get(name)!r}; write JSON lines with {' and '.join(wanted)}."
                )
        paths = [self.path.parent / fields[name] for name in wanted]
        return PicturePair(*paths)


def _read(pair: PicturePair, captions: Captions) -> WholeExample:
    hq = read_training_picture(pair.hq)
    return WholeExample(hq, None if pair.lq is None else read_training_picture(pair.lq), captions)


def _text_beside(picture: Path) -> str:
    path = picture.with_suffix(".txt")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise BIRError(
            f"Expected a caption in UTF-8 in {path}, but it cannot be read ({error}); correct it."
        ) from error
