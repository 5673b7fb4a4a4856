"""Tables of measures: Markdown for reading, CSV and JSON with all digits."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..atomic_files import write_text
from ..errors import BIRError
from .metrics import Metric

SUFFIXES = (".md", ".csv", ".json")


@dataclass(frozen=True)
class Row:
    """The measures of one picture, or of all pictures of a model.

    Attributes:
        model: what restored the picture.
        picture: its name, or `mean`.
        values: by metric name; None for a measure of sets in the row of a picture.
    """

    model: str
    picture: str
    values: dict[str, float | None]


def as_markdown(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """A table with a line for each row; PSNR in dB."""
    titles = " | ".join(metric.title for metric in metrics)
    lines = [f"| picture | model | {titles} |", "|---" * (2 + len(metrics)) + "|"]
    for row in rows:
        texts = (_rounded(row.values[metric.name], metric.decimals) for metric in metrics)
        lines.append(f"| {row.picture} | {row.model} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _rounded(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def as_csv(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """The same with all digits, comma-separated."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["picture", "model", *(metric.name for metric in metrics)])
    for row in rows:
        values = (row.values[metric.name] for metric in metrics)
        digits = ("" if value is None else repr(value) for value in values)
        writer.writerow([row.picture, row.model, *digits])
    return text.getvalue()


def as_json(rows: Sequence[Row]) -> str:
    """The same as a list of objects."""
    records = [{"picture": row.picture, "model": row.model, **row.values} for row in rows]
    return json.dumps(records, indent=2) + "\n"


def require_table_name(path: Path) -> None:
    """Raise BIRError if the end of `path` names no format of tables."""
    if path.suffix.lower() not in SUFFIXES:
        raise BIRError(
            f"Expected a table name that ends in {', '.join(SUFFIXES)}, but {path} came; "
            "change the ending."
        )


def write_table(path: Path, rows: Sequence[Row], metrics: Sequence[Metric]) -> None:
    """Write a table in the format of the path's suffix; the file appears only when complete.

    Raises:
        BIRError: it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".csv":
        text = as_csv(rows, metrics)
    elif suffix == ".json":
        text = as_json(rows)
    else:
        text = as_markdown(rows, metrics) + "\n"
    write_text(path, text, "the table")
