"""Cases in a process of their own. Where it ends early, as for lack of memory, the case that it was
at gets a note, and a new one goes on with the next."""

import contextlib
import gc
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from .. import __name__ as package
from ..errors import BIRError
from ..memory import empty_caches
from .cases import Case, Conditions, measure
from .comparing import Measured
from .start import environment


@dataclass(frozen=True)
class Row:
    """A side of a case, and under which conditions it was measured."""

    case: Case
    conditions: Conditions
    measured: Measured

    @property
    def megapixels(self) -> float | None:
        """Millions of pixels of the picture that comes out, or that DiffBIR's part works on."""
        pixels = self.measured.pixels
        return None if pixels is None else max(pixels, self.case.height * self.case.width) / 1e6


def run_cases(cases: Sequence[Case], conditions: Conditions) -> Iterator[list[Row]]:
    """The rows of each case, when it is done.

    Raises:
        BIRError: what a case raised; the rest is not measured.
    """
    done = 0
    while done < len(cases):
        order = json.dumps([[asdict(case) for case in cases[done:]], asdict(conditions)])
        with subprocess.Popen(
            [sys.executable, "-m", f"{package}.benchmarks.worker", order],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    answer = json.loads(line)
                    if "error" in answer:
                        raise BIRError(answer["error"])
                    yield [
                        Row(cases[done], conditions, Measured(**measured))
                        for measured in answer["measured"]
                    ]
                    done += 1
            except BaseException:
                process.kill()
                raise
        if done < len(cases):
            note = f"its process ended early, with code {process.returncode}"
            yield [Row(cases[done], conditions, Measured(side="", note=note))]
            done += 1


def serve(order: str, answers: TextIO) -> None:
    """Measure the cases of an order of `run_cases`, with an answer, a line of JSON, for each."""
    cases, given = json.loads(order)
    conditions = Conditions(**given)
    for case in cases:
        try:
            measured = measure(Case(**case), conditions)
        except BIRError as error:
            answers.write(json.dumps({"error": str(error)}) + "\n")
            return
        answers.write(json.dumps({"measured": [asdict(each) for each in measured]}) + "\n")
        answers.flush()
        gc.collect()  # the networks, before the next are built
        empty_caches()


if __name__ == "__main__":
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what others print
        serve(sys.argv[1], answers)
