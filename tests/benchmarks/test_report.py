"""The table, the JSON and the plot of rows whose numbers are known."""

import json
from xml.etree import ElementTree

import pytest
import torch

from bir_core.benchmarks.cases import Case, Conditions
from bir_core.benchmarks.comparing import Measured
from bir_core.benchmarks.plot import as_svg, series_of
from bir_core.benchmarks.report import (
    Machine,
    as_json,
    as_markdown,
    format_of,
    row_of_table,
    this_machine,
)
from bir_core.benchmarks.worker import Row
from bir_core.errors import BIRError

MACHINE = Machine(
    processor="a <fast> one",
    accelerator=None,
    system="Linux",
    python="3.12",
    torch="2.9",
    threads=1,
    seed=0,
)
SVG = "{http://www.w3.org/2000/svg}"


def row(side=64, name="streamed", dtype="float32", seconds=2.0, kind="diffir", **more):
    case = Case(kind=kind, name="realsr_x4", height=side, width=side)
    found = {"faster": 1.0, "extra": 3_000_000, "operations": 7, "difference": 0.0, "runs": 3}
    measured = Measured(side=name, seconds=seconds, pixels=16 * side**2, **{**found, **more})
    return Row(case, Conditions(device="cpu", dtype=dtype), measured)


ROWS = [
    row(seconds=1.0),
    row(128, seconds=4.0),
    row(name="plain", seconds=1.5),
    row(128, "plain", seconds=6.0),
    row(16, "at one size only"),
]


def test_table():
    head, _, legend, _, header, line, first, *_ = as_markdown(ROWS, MACHINE).splitlines()
    assert head == "a <fast> one, 1 thread; Linux, Python 3.12, torch 2.9; seed 0."
    assert "time of the processor" in legend
    assert header.count("|") == line.count("|") == first.count("|")
    assert first == "| DiffIR realsr_x4 | 64x64 | float32 | streamed | 1 | 1.00 | 3 | 7 | 0 |"


@pytest.mark.parametrize(
    ("number", "shown"), [(0.01234, "0.0123"), (12.345, "12.3"), (123.4, "123"), (12345.6, "12346")]
)
def test_seconds_with_three_digits_at_least(number, shown):
    assert f"| {shown} |" in row_of_table(row(seconds=number))


def test_what_was_not_measured_leaves_a_gap_or_says_why():
    empty = row(seconds=None, faster=None, extra=None, operations=None, difference=None)
    assert row_of_table(empty).endswith("| streamed |  |  |  |  |  |")
    failed = row_of_table(row(seconds=None, note="out of memory"))
    assert failed.count("|") == row_of_table(ROWS[0]).count("|")
    assert "| out of memory |" in failed


def test_json_has_all_numbers():
    content = json.loads(as_json(ROWS, MACHINE))
    assert content["machine"]["seed"] == 0
    first = content["rows"][0]
    assert first["megapixels"] == pytest.approx(0.065536)
    assert (first["seconds"], first["extra"]) == (1.0, 3_000_000)
    assert first["case"]["height"] == 64
    assert first["conditions"]["dtype"] == "float32"


def test_a_series_has_two_sizes_at_least():
    series = series_of(ROWS)
    assert [each.name for each in series] == [
        "DiffIR realsr_x4: streamed",
        "DiffIR realsr_x4: plain",
    ]
    assert series[0].seconds == ((0.065536, 1.0), (0.262144, 4.0))
    assert series[1].megabytes == ((0.065536, 3.0), (0.262144, 3.0))
    assert series[0].colour == series[1].colour and series[0].dash != series[1].dash
    both = series_of([*ROWS, *(row(side, dtype="float16") for side in (64, 128))])
    assert [each.name.rpartition(", ")[2] for each in both] == ["float32", "float32", "float16"]


def test_the_plot_has_its_points_in_order():
    picture = ElementTree.fromstring(as_svg(ROWS, "on <this> machine"))
    words = [text.text for text in picture.iter(f"{SVG}text")]
    assert "on <this> machine" in words
    assert {"time, seconds", "extra memory, MB", "megapixels of the picture"} <= set(words)
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in picture.iter(f"{SVG}polyline")
    ]
    assert len(lines) == 4
    (streamed, plain), memory = lines[:2], lines[2]
    assert streamed[0][0] < streamed[1][0]  # a larger picture is to the right,
    assert streamed[0][1] > streamed[1][1]  # more seconds higher up,
    assert streamed[0][1] > plain[0][1]
    assert memory[0][1] == memory[1][1]
    _, _, width, height = map(float, picture.get("viewBox").split())
    assert all(0 < x < width and 0 < y < height for line in lines for x, y in line)


def test_a_plot_of_nothing_says_so():
    assert "nothing was measured at two sizes" in as_svg([row()], "")


def test_formats(tmp_path):
    assert format_of(tmp_path / "TABLE.MD") is as_markdown
    with pytest.raises(BIRError, match=r"ends in \.md, \.json, \.svg, but .*table\.csv came"):
        format_of(tmp_path / "table.csv")


def test_this_machine():
    machine = this_machine(torch.device("cpu"), 3)
    assert machine.threads == 3
    assert machine.torch == torch.__version__
    assert machine.accelerator is None and machine.processor
