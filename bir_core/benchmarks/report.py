"""What `bir bench` found: as a table in Markdown, as JSON, or as a plot."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..errors import BIRError
from .measuring import SEED
from .plot import as_svg
from .worker import Row

CPU_FACTS = Path("/proc/cpuinfo")
HEADER = (
    "work",
    "input",
    "type",
    "side",
    "s",
    "times as fast",
    "extra MB",
    "operations",
    "difference",
)
LEGEND = (
    "Random weights of the official sizes, and the built-in models. s: median of runs that "
    "alternate with those of the other sides{clock}. times as fast, difference: to the first side, "
    "the latter divided by its largest number; guidance and overlapping tiles are meant to change "
    "a result, the others are not. extra MB: {memory}. operations: without views."
)


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        processor: of the CPU, with the instructions that torch takes.
        accelerator: the name of the GPU; None where the CPU computes.
        seed: of weights, inputs and noise.
    """

    processor: str
    accelerator: str | None
    system: str
    python: str
    torch: str
    threads: int
    seed: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread" + ("" if self.threads == 1 else "s")
        place = f"{self.processor}, {threads}"
        if self.accelerator is not None:
            place = f"{self.accelerator}; {place}"
        return f"{place}; {self.system}, Python {self.python}, torch {self.torch}; seed {self.seed}"


def this_machine(device: torch.device, threads: int | None) -> Machine:
    """Facts about this machine; `threads` None is torch's choice."""
    accelerator = {"cpu": None, "mps": "Apple GPU"}.get(device.type, device.type)
    if device.type == "cuda":
        accelerator = torch.cuda.get_device_name(device)
    return Machine(
        processor=f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
        accelerator=accelerator,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        torch=torch.__version__,
        threads=threads or torch.get_num_threads(),
        seed=SEED,
    )


def _processor() -> str:
    names = []
    if CPU_FACTS.is_file():
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def head_of_table(device: str, machine: Machine) -> str:
    """What stands above the rows: the machine, what the columns mean, and their names."""
    on_cuda = device == "cuda"
    memory = "what the allocator gave out" if on_cuda else "peak of the tensors that a run makes"
    alone = device == "cpu" and machine.threads == 1
    clock = ", in time of the processor (of the wall for the start)" if alone else ""
    legend = LEGEND.format(memory=memory, clock=clock)
    return "\n".join([f"{machine}.", "", legend, "", _line(HEADER), _line(["---"] * len(HEADER))])


def row_of_table(row: Row) -> str:
    """A line of the table."""
    found = row.measured
    own = (row.case.work, row.case.input, row.conditions.dtype, found.side)
    if found.note is not None:
        return _line([*own, found.note, "", "", "", ""])
    return _line(
        [
            *own,
            _number(found.seconds, ".3g"),
            _number(found.faster, ".2f"),
            _number(None if found.extra is None else found.extra / 1e6, ".3g"),
            _number(found.operations, "d"),
            _number(found.difference, ".1e"),
        ]
    )


def as_markdown(rows: Sequence[Row], machine: Machine) -> str:
    """The table, with the machine above it."""
    head = head_of_table(rows[0].conditions.device, machine)
    return "\n".join([head, *map(row_of_table, rows)]) + "\n"


def _number(number: float | None, form: str) -> str:
    if number is None:
        return ""
    if form == ".3g" and number >= 100:  # which has an exponent from 1000 on
        form = ".0f"
    return "0" if number == 0 else format(number, form)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(rows: Sequence[Row], machine: Machine) -> str:
    """Everything that was found, for programs."""
    content = {
        "machine": asdict(machine),
        "rows": [
            {
                "work": row.case.work,
                "input": row.case.input,
                "megapixels": row.megapixels,
                **asdict(row.measured),
                "case": asdict(row.case),
                "conditions": asdict(row.conditions),
            }
            for row in rows
        ],
    }
    return json.dumps(content, indent=2) + "\n"


def _as_plot(rows: Sequence[Row], machine: Machine) -> str:
    return as_svg(rows, str(machine))


FORMATS: Mapping[str, Callable[[Sequence[Row], Machine], str]] = {
    ".md": as_markdown,
    ".json": as_json,
    ".svg": _as_plot,
}


def format_of(path: Path) -> Callable[[Sequence[Row], Machine], str]:
    """What makes the content of a file, by its suffix.

    Raises:
        BIRError: another suffix.
    """
    if path.suffix.lower() not in FORMATS:
        raise BIRError(
            f"Expected an output that ends in {', '.join(FORMATS)}, but {path} came; choose one "
            "of these."
        )
    return FORMATS[path.suffix.lower()]
