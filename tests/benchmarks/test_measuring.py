"""Time and memory of calls whose cost is known."""

import json
import sys
import time

import pytest
import torch
from command_line import ROOT
from progress import run

from bir_core.benchmarks.measuring import peak_memory_of, seconds_of

CPU = torch.device("cpu")


def test_seconds(monkeypatch):
    now = 5.0
    for clock in ("perf_counter", "process_time"):
        monkeypatch.setattr(time, clock, lambda: now)

    def call():
        nonlocal now
        now += 0.75

    assert seconds_of(call, CPU) == 0.75


# In a process of its own, where nothing else is allocated or freed meanwhile.
HOLD = """
import json, time
import psutil, torch
from bir_core.benchmarks.measuring import peak_memory_of

looks = 0

class Watched(psutil.Process):
    def memory_info(self):
        global looks
        info = super().memory_info()
        looks += 1
        return info

psutil.Process = Watched

def hold():
    numbers = torch.ones(16 * 2**20)  # 64 MiB
    before = looks
    while looks < before + 2:  # the first may have begun before the numbers were there
        time.sleep(0.001)
    return float(numbers[0])

torch.ones(16 * 2**20)  # what the first call sets up stays
print(json.dumps(peak_memory_of(hold, torch.device("cpu"))))
"""


def test_peak_counts_what_is_freed_again():
    done = run([sys.executable, "-c", HOLD], cwd=ROOT)
    result, extra, total = json.loads(done.stdout)
    assert result == 1
    assert 60 * 2**20 < extra < 100 * 2**20
    assert total > extra


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        peak_memory_of(lambda: 1 // 0, CPU)
