"""Waits that end by what happens and not by the clock: on a busy machine everything takes longer.

A wait is for processes. It goes on as long as they, or those that they have started, spend
processor time, which on a busy machine rises slowly, but rises. It is given up when they have done
nothing for a long while, or far more than what they are waited for could need. Then they are
killed, which ends whatever call waits for them.
"""

import os
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil

# A look is counted and not its second: where all stands still, the one who looks does as well.
SECONDS_BETWEEN_LOOKS = 1.0
LOOKS_WITHOUT_LIFE = 600
# Seconds of processor time. To be asked every second whether it is ready costs a server half of it
# in that many looks.
SIGN_OF_LIFE = 2.0
# Seconds of processor time; threads that wait for each other spend it on every core.
ENOUGH = 1800.0 * (os.cpu_count() or 1)


class GivenUp(AssertionError):
    """What was waited for did not come."""


def processes_of(pids: Iterable[int]) -> list[psutil.Process]:
    """Those that run. An object of psutil knows when another process has got its number."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def with_descendants(processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run, each behind those that it has started."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [*process.children(recursive=True)[::-1], process]
    return found


def processor_seconds(processes: list[psutil.Process]) -> float:
    """What the processes and their descendants have spent, as far as they still run."""
    total = 0.0
    for process in with_descendants(processes):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])  # own and of ended children, user and system
    return total


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and their descendants; those that have ended are no error."""
    for process in with_descendants(processes):
        with suppress(psutil.NoSuchProcess):
            process.kill()


class Patience:
    """How long processes may still be waited for, by what they have done."""

    def __init__(self, processes: list[psutil.Process], enough: float) -> None:
        self.processes = processes
        self.enough = enough
        self.first = self.last = processor_seconds(processes)
        self.looks = 0

    def reason_to_give_up(self) -> str | None:
        """To be asked once in `SECONDS_BETWEEN_LOOKS`."""
        spent = processor_seconds(self.processes)
        self.looks += 1
        if abs(spent - self.last) >= SIGN_OF_LIFE:  # less when a descendant has ended
            self.last, self.looks = spent, 0
        if self.looks >= LOOKS_WITHOUT_LIFE:
            return f"spent less than {SIGN_OF_LIFE:g} s of processor time in {self.looks} looks"
        if spent - self.first >= self.enough:
            return f"spent {spent - self.first:.0f} s of processor time on it"
        return None


@contextmanager
def bounded(waiting_for: str, *pids: int, enough: float = ENOUGH) -> Iterator[None]:
    """Wait within, by any call that ends when the processes `pids` are killed.

    Args:
        waiting_for: what should come, for the message.
        enough: processor seconds that are far more than it could need.

    Raises:
        GivenUp: it did not come, and the processes were killed.
    """
    processes = processes_of(pids)
    ended = threading.Event()
    reasons = []

    def watch() -> None:
        if ended.wait(SECONDS_BETWEEN_LOOKS):
            return  # as most waits do
        patience = Patience(processes, enough)
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            reason = patience.reason_to_give_up()
            if reason is not None:
                reasons.append(reason)
                kill(processes)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        if reasons:
            raise GivenUp(
                f"Expected {waiting_for}, but the processes that should bring it {reasons[0]}; "
                "they were killed: see what they were doing."
            )


def run(command: list, **options) -> subprocess.CompletedProcess:
    """Run a command to its end, with its output as text."""
    command = [str(part) for part in command]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        with bounded(f"the end of {' '.join(command[:4])}", process.pid):
            output, message = process.communicate()
    finally:
        if process.poll() is None:
            kill(processes_of([process.pid]))
            process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output, message)
