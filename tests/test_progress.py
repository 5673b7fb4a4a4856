"""Waits that end by what processes do: the clock is that of the looks, here a quick one."""

import subprocess
import sys

import progress
import pytest
from progress import GivenUp, bounded, run

SPIN = "while True: pass"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(progress, "SIGN_OF_LIFE", 0.01)


def test_a_process_that_stands_still_is_given_up_and_killed(monkeypatch):
    monkeypatch.setattr(progress, "LOOKS_WITHOUT_LIFE", 20)
    # The child is killed first, which ends its parent before its own turn: with an error too.
    child = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'input()'])"
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE)
    with pytest.raises(GivenUp, match="the end, but .* less than 0.01 s"), process:  # noqa: SIM117
        with bounded("the end", process.pid):
            process.wait()
    assert process.returncode != 0


def test_one_that_works_goes_on_until_it_is_enough():
    work = "import time\nwhile time.process_time() < 1: pass\nprint('done')"
    assert run([sys.executable, "-c", work]).stdout.strip() == "done"
    process = subprocess.Popen([sys.executable, "-c", SPIN])
    with (
        pytest.raises(GivenUp, match="processor time on it"),
        process,
        bounded("it", process.pid, enough=0.8),
    ):
        process.wait()


def test_what_ended_on_its_own_is_told():
    failed = run([sys.executable, "-c", "import sys; print(1); sys.exit('no')"])
    assert (failed.stdout.strip(), failed.stderr.strip(), failed.returncode) == ("1", "no", 1)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with bounded("nothing", process.pid):
        pass


def test_an_error_within_passes_through():
    with pytest.raises(ZeroDivisionError), bounded("a number"):
        _ = 1 // 0
