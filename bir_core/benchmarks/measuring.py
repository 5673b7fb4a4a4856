"""Time and peak memory of a call."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

T = TypeVar("T")
POLL_SECONDS = 0.002


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, its work on the device included."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


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
