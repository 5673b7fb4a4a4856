"""The cases of the table, and the process that carries them out."""

import pytest
import torch

from bir_core.benchmarks.cases import ON_CPU, ON_GPU, QUICK, Case, Conditions, all_cases, measure
from bir_core.benchmarks.worker import run_cases
from bir_core.errors import BIRError
from bir_core.weights import BUILTIN_NAMES

SMALL = Case(kind="builtin", name="builtin-x2", height=16, width=24)


@pytest.mark.parametrize("sizes", [QUICK, ON_CPU, ON_GPU])
def test_every_table_has_all_rows(sizes):
    cases = all_cases(sizes)
    assert {case.work for case in cases} == {
        *("DiffIR deblur", "DiffIR realsr_x4", "DiffBIR step", "VAE decode", "VAE encode"),
        *BUILTIN_NAMES,
        "cold start",
    }
    assert all(case.tile < case.height for case in cases if case.tile is not None)


def test_diffir_in_strips_and_alone():
    conditions = Conditions(device="cpu", threads=torch.get_num_threads(), repeats=2)
    size = {"name": "inpainting", "height": 16, "width": 8, "strip": 3}
    plain, streamed = measure(Case(kind="diffir", **size), conditions)
    assert streamed.difference < 1e-5
    assert streamed.operations > plain.operations
    assert plain.runs == 2
    (alone,) = measure(Case(kind="streamed", repeats=1, **size), conditions)
    assert (alone.side, alone.runs) == ("streamed", 1)
    assert alone.operations == streamed.operations


def test_rows_come_from_a_process():
    conditions = Conditions(device="cpu", threads=1, repeats=1)
    found = list(run_cases([SMALL, SMALL], conditions))
    assert [len(rows) for rows in found] == [1, 1]
    (row,) = found[0]
    assert (row.case, row.conditions) == (SMALL, conditions)
    assert row.megapixels == 2 * 16 * 2 * 24 / 1e6
    assert row.measured.seconds > 0


def test_a_process_that_ends_leaves_a_note_and_the_others_go_on(capfd):
    cases = [Case(kind="builtin", name="no such model", height=8, width=8), SMALL]
    conditions = Conditions(device="cpu", repeats=1)
    with pytest.raises(BIRError, match="no such model"):
        list(run_cases(cases, conditions))
    unknown = Conditions(device="no_such_device", repeats=1)
    found = list(run_cases([SMALL, SMALL], unknown))
    assert [rows[0].measured.note for rows in found] == [
        "its process ended early, with code 1",
        "its process ended early, with code 1",
    ]
    assert "no_such_device" in capfd.readouterr().err
