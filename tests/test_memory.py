"""Plans, what a network weighs, and networks that visit a device."""

import pytest
import torch
from torch import nn

from bir_core.errors import OutOfMemory
from bir_core.memory import CPU, MemoryPlan, StagePlan, is_out_of_memory, visiting, weight_bytes

GB = 10**9


def test_a_plan_is_one_line():
    stage = StagePlan("sampling", 512, GB, GB, tile_batch=4)
    assert str(MemoryPlan((stage,), 4 * GB, GB)) == (
        "sampling tiles of 512, 4 at a time; 2.5 of 4.0 GB"
    )


def test_the_largest_stage_decides():
    small, large = StagePlan("encoding", 0, GB, 0), StagePlan("decoding", 0, GB, 3 * GB, parked=GB)
    assert MemoryPlan((small, large), 5 * GB, 2 * GB).fits
    assert not MemoryPlan((small, large), 4 * GB, 2 * GB).fits
    assert not MemoryPlan((small, large), 5 * GB, GB).fits


def test_weights_count_wherever_they_lie():
    network = nn.Linear(3, 5).half()
    assert weight_bytes(network, None) == weight_bytes(network, on=CPU) == 2 * (15 + 5)
    assert weight_bytes(network, on=torch.device("meta")) == 0


def test_networks_come_back_after_an_error():
    network = nn.Linear(3, 5)
    moves = []
    network.to = moves.append
    with pytest.raises(ZeroDivisionError), visiting(torch.device("meta"), network, None):
        assert moves == [torch.device("meta")]
        raise ZeroDivisionError
    assert moves == [torch.device("meta"), CPU]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory"), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("std::bad_alloc"), True),
        (OutOfMemory("Restoring should have memory."), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_that_say_that_the_memory_has_run_out(error, expected):
    assert is_out_of_memory(error) == expected
