"""Time and peak memory of a call."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

T = TypeVar("T")
POLL_SECONDS = 0.002
SEED = 0  # of all weights, inputs and noise that are measured with


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Time of a call by `clock_for`, its work on the device included."""
    clock = clock_for(device)
    synchronize(device)
    start = clock()
    call()
    synchronize(device)
    return clock() - start


def clock_for(device: torch.device) -> Callable[[], float]:
    """The time of the processor where a single thread of it computes, which other programs on the
    machine hardly change; else that of the wall."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def peak_memory_of(call: Callable[[], T], device: torch.device) -> tuple[T, int, int]:
    """What a call returns, and the peak bytes during it: above those before, and in all.

    On CUDA the memory of tensors counts, elsewhere the resident memory of this process, which a
    second thread looks at every 2 ms.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = call()
        peak = torch.cuda.max_memory_allocated(device)
        return result, peak - before, peak
    process = psutil.Process()
    before = peak = process.memory_info().rss
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(POLL_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = call()
    finally:
        finished.set()
        watcher.join()
    peak = max(peak, process.memory_info().rss)
    return result, peak - before, peak


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
