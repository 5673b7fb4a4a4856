"""Time and memory of calls whose cost is known."""

import gc
import time

import psutil
import pytest
import torch

from bir_core.benchmarks.measuring import peak_memory_of, seconds_of

CPU = torch.device("cpu")


def test_seconds(monkeypatch):
    now = 5.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def call():
        nonlocal now
        now += 0.75

    assert seconds_of(call, CPU) == 0.75


def test_peak_counts_what_is_freed_again(monkeypatch):
    looks = 0

    class Watched(psutil.Process):
        def memory_info(self):
            nonlocal looks
            info = super().memory_info()
            looks += 1
            return info

    monkeypatch.setattr(psutil, "Process", Watched)

    def hold():
        numbers = torch.ones(16 * 2**20)  # 64 MiB
        before = looks
        while looks < before + 2:  # the first may have begun before the numbers were there
            time.sleep(0.001)
        return float(numbers[0])

    gc.collect()  # what other tests left would be freed meanwhile
    result, extra, total = peak_memory_of(hold, CPU)
    assert result == 1
    assert 60 * 2**20 < extra < 100 * 2**20
    assert total > extra


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        peak_memory_of(lambda: 1 // 0, CPU)
