"""Lists of the pictures of a large set that are large enough, not too long, and described."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..atomic_files import complete_file, write_text, writing
from ..errors import BIRError
from ..pictures.files import find_pictures
from ..pictures.sizes import picture_size
from .jobs import Job

LIST = "list.jsonl"


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a picture has to be.

    Attributes:
        least_side: of its shorter side, in pixels.
        most_aspect: of the longer side divided by the shorter one.
        least_words: of its caption.
    """

    least_side: int = 512
    most_aspect: float = 2.0
    least_words: int = 3

    def __post_init__(self) -> None:
        if not self.most_aspect >= 1:
            raise BIRError(
                f"Expected an aspect of at least 1, that of a square, but {self.most_aspect:g} "
                "came; choose 2 for pictures up to twice as long as wide."
            )

    def refuses(self, size: tuple[int, int], caption: str) -> str:
        """Why a picture of this size and caption is left out, in a word; "" if it is not."""
        if min(size) < self.least_side:
            return "small"
        if max(size) > self.most_aspect * min(size):
            return "long"
        if len(caption.split()) < self.least_words:
            return "undescribed"
        return ""


def filter_jobs(folder: Path, output: Path, rule: Filter) -> list[Job]:
    """One job for each folder of pictures, which writes what of it is kept.

    Args:
        folder: as img2dataset writes files: `00000/000000000.jpg` with `.json` or `.txt` beside.

    Raises:
        BIRError: no picture in any folder.
    """
    below = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    jobs = []
    for place in sorted([folder, *below]):
        pictures = find_pictures(place, recursive=place != folder)[0]
        if pictures:
            name = "pictures" if place == folder else place.name
            part = output / "parts" / f"{name}.json"
            jobs.append(Job(place, (part,), partial(_write_part, pictures, part, rule)))
    if not jobs:
        packed = " only archives" if any(folder.glob("*.tar")) else " none"
        raise BIRError(
            f"Expected pictures with captions in folders in {folder}, but found{packed}; let "
            "img2dataset write them with --output_format files."
        )
    return jobs


def write_list(jobs: Sequence[Job], output: Path) -> Counter[str]:
    """Join what all jobs kept to one list, which a training reads.

    Returns:
        How many were "kept", "small", "long", "undescribed" and "unreadable".
    """
    counts: Counter[str] = Counter()
    path = output / LIST
    with (
        writing(path, "the list"),
        complete_file(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
    ):
        for job in jobs:
            part = json.loads(job.files[0].read_text(encoding="utf-8"))
            counts.update(part["counts"])
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in part["lines"])
    return counts


def _write_part(pictures: list[Path], part: Path, rule: Filter) -> None:
    counts: Counter[str] = Counter()
    lines = []
    for path in pictures:
        try:
            size = picture_size(path)
        except BIRError:
            counts["unreadable"] += 1
            continue
        caption = _caption(path)
        reason = rule.refuses(size, caption)
        counts[reason or "kept"] += 1
        if not reason:
            lines.append({"picture": str(path.resolve()), "caption": caption})
    write_text(part, json.dumps({"counts": counts, "lines": lines}), "the list")


def _caption(picture: Path) -> str:
    """`caption` of the JSON file beside a picture, or else the text file beside it, or ""."""
    described, text = picture.with_suffix(".json"), picture.with_suffix(".txt")
    try:
        if described.is_file():
            caption = json.loads(described.read_bytes()).get("caption")
            if isinstance(caption, str):
                return caption.strip()
        return text.read_text(encoding="utf-8").strip() if text.is_file() else ""
    except (OSError, ValueError, AttributeError) as error:
        raise BIRError(
            f"Expected the caption of {picture} in the file beside it, but it cannot be read "
            f"({error}); mend or remove it."
        ) from error
