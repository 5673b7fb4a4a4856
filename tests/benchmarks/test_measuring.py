"""Time and memory of calls whose cost is known."""

import gc
import time

import pytest
import torch

from bir_core.benchmarks.measuring import peak_memory_of, seconds_of

CPU = torch.device("cpu")


def test_seconds():
    assert 0.05 <= seconds_of(lambda: time.sleep(0.05), CPU) < 1


def test_peak_counts_what_is_freed_again():
    def hold():
        numbers = torch.ones(16 * 2**20)  # 64 MiB
        time.sleep(0.05)
        return float(numbers[0])

    gc.collect()  # what other tests left would be freed meanwhile
    result, extra, total = peak_memory_of(hold, CPU)
    assert result == 1
    assert 60 * 2**20 < extra < 100 * 2**20
    assert total > extra


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        peak_memory_of(lambda: 1 // 0, CPU)
