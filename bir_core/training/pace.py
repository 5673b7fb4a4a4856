"""Time in a training: how long is left, when a save is due, and whether somebody asked to stop."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Pace:
    """Seconds per iteration since the training was started or resumed, and since the last save.

    Args:
        first: the first iteration, from 1.
        last: the last one.
        save_minutes: minutes after a save at which the next one is due; 0: never.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        first: int,
        last: int,
        save_minutes: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.first, self.last, self.save_minutes, self.clock = first, last, save_minutes, clock
        self.started = self.saved = clock()

    def left(self, iteration: int) -> float:
        """Seconds to the end after an iteration, if all take as long as those before."""
        done = iteration - self.first + 1
        return (self.clock() - self.started) / done * (self.last - iteration)

    def save_is_due(self) -> bool:
        """Whether as many minutes have passed since the last save."""
        return 0 < self.save_minutes * 60 <= self.clock() - self.saved

    def was_saved(self) -> None:
        """Count the minutes anew."""
        self.saved = self.clock()


def duration(seconds: float) -> str:
    """Seconds in two units at most: `45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{round(seconds)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


@dataclass
class StopRequest:
    """Whether SIGTERM has come."""

    came: bool = False


@contextmanager
def stop_on_sigterm() -> Iterator[StopRequest]:
    """Note SIGTERM instead of ending at once; the handler before comes back afterwards. Python
    lets only the main thread handle signals: elsewhere nothing is noted."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        request.came = True

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGTERM, before)
