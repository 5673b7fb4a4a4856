"""Sides whose cost is known, against each other."""

import time

import pytest
import torch

from bir_core.benchmarks.comparing import Side, compare
from bir_core.benchmarks.measuring import clock_for
from bir_core.benchmarks.tensor_memory import cost_of
from bir_core.errors import BIRError, OutOfMemory

CPU = torch.device("cpu")
ONES = torch.ones(1, 3, 4, 5)


def raising(error):
    def call():
        raise error

    return call


def test_medians_of_alternating_runs(monkeypatch):
    """The clock goes on by what each run is said to take."""
    now, order = 0.0, []
    takes = {"first": [9.0, 4.0, 2.0, 6.0], "second": [9.0, 1.0, 8.0, 2.0]}  # one is for the counts

    def side(name, factor):
        def call():
            nonlocal now
            now += takes[name][order.count(name)]
            order.append(name)
            return ONES * factor

        return Side(name, call)

    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(time, clock, lambda: now)
    first, second = compare([side("first", 1), side("second", 1.5)], CPU, 3)
    assert order == ["first", "second"] * 4
    assert (first.seconds, second.seconds) == (4, 2)
    assert (first.faster, second.faster) == (1, 2)
    assert (first.difference, second.difference) == (0, 0.5)
    assert (first.extra, first.operations) == (ONES.nbytes, 1)
    assert (first.runs, first.pixels) == (3, 20)


@pytest.mark.parametrize(
    ("error", "note"),
    [
        (torch.OutOfMemoryError("no room"), "out of memory"),
        (OutOfMemory("Too large."), "out of memory"),
        (BIRError("It should work, but it did not."), "It should work, but it did not."),
    ],
)
def test_a_side_that_fails_leaves_the_others(error, note):
    failed, other = compare([Side("failed", raising(error)), Side("other", lambda: ONES)], CPU, 1)
    assert failed.note == note and failed.seconds is None
    assert other.seconds is not None and other.note is None
    assert other.faster is None and other.difference is None


def test_other_errors_end_it():
    with pytest.raises(ZeroDivisionError):
        compare([Side("wrong", raising(ZeroDivisionError()))], CPU, 1)


def test_what_does_not_go_through_the_dispatcher_is_not_counted():
    (found,) = compare([Side("compiled", lambda: ONES * 2, counted=False)], CPU, 1)
    assert (found.extra, found.operations) == (None, None)
    assert found.seconds is not None


def test_operations_without_views():
    x = torch.ones(2, 6)

    def call():
        first, second = x.view(3, 4).split(2, dim=1)
        return (first + second).transpose(0, 1).mul_(2)

    result, cost = cost_of(call)
    assert result.shape == (2, 3)
    assert cost.operations == 2


def test_the_clock_of_one_thread_is_that_of_the_processor():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert clock_for(CPU) is time.process_time
        assert clock_for(torch.device("cuda")) is time.perf_counter
        torch.set_num_threads(2)
        assert clock_for(CPU) is time.perf_counter
    finally:
        torch.set_num_threads(threads)
