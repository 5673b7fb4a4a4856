"""Loading and running with clock and scales beside it; what goes wrong becomes a sentence."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

import torch

from ..benchmarks.measuring import peak_memory_of, synchronize
from ..errors import BIRError
from ..memory import is_out_of_memory
from .trials import Findings, Number

T = TypeVar("T")
Hide = Callable[[str], str]
PACKAGE = __name__.rsplit(".", 2)[0]
MEGABYTE = 1e6


@dataclass(frozen=True)
class Trialled:
    """How a network, or a pipeline of several, loaded and ran.

    Attributes:
        numbers, doubts: as in `Findings`; empty if it came to none.
        warnings: what the code said on the way, such as a stage that was repeated in float32.
        load_seconds, run_seconds: None where it did not come to it.
        peak_megabytes: above what was taken before; see `peak_memory_of`.
    """

    numbers: dict[str, Number] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    load_seconds: float | None = None
    run_seconds: float | None = None
    peak_megabytes: float | None = None


@contextmanager
def noting(problems: list[str], what: str, hide: Hide) -> Iterator[None]:
    """Put the sentence of any failure into `problems`, and go on behind the block.

    Args:
        what: was attempted, such as "to load the file".
        hide: takes the paths of this machine out of a sentence.
    """
    try:
        yield
    except BIRError as error:
        problems.append(hide(str(error)))
    except Exception as error:
        # Anything: the other files shall be checked all the same, and the report shall say it.
        problems.append(hide(_sentence(error, what)))


def _sentence(error: Exception, what: str) -> str:
    if is_out_of_memory(error):
        return (
            f"Expected memory {what}, but it ran out; close other programs, or choose --dtype "
            "float16 or --device cpu."
        )
    first = next(iter(str(error).splitlines()), "")
    return (
        f"Expected {what}, but it ended with {type(error).__name__} ({first}); please report this "
        "with the file's origin."
    )


def carry_out(
    load: Callable[[], T], run: Callable[[T], Findings], device: torch.device, hide: Hide
) -> Trialled:
    """Load something and run it, whatever happens on the way."""
    problems: list[str] = []
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Findings | T]) -> Findings | T:
        start = perf_counter()
        result = call()
        synchronize(device)
        seconds[name] = perf_counter() - start
        return result

    def work() -> Findings:
        with noting(problems, "to load the weights", hide):
            loaded = timed("load", load)
            with noting(problems, "to run the network", hide), torch.no_grad():
                return timed("run", lambda: run(loaded))  # type: ignore[arg-type,return-value]
        return Findings({})

    with _warnings() as warnings:
        findings, above, _ = peak_memory_of(work, device)
    return Trialled(
        numbers=dict(findings.numbers),
        doubts=findings.doubts,
        problems=tuple(problems),
        warnings=tuple(hide(text) for text in warnings),
        load_seconds=seconds.get("load"),
        run_seconds=seconds.get("run"),
        peak_megabytes=above / MEGABYTE,
    )


class _Listener(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """The warnings that this package logs meanwhile."""
    texts: list[str] = []
    logger, listener = logging.getLogger(PACKAGE), _Listener(texts)
    logger.addHandler(listener)
    try:
        yield texts
    finally:
        logger.removeHandler(listener)
