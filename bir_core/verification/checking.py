"""Check files: what each is, whether its networks load completely and run, and what they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..checkpoints import inspect, load_model
from ..checkpoints.architectures import Architecture, foreign_kind, networks_in
from ..checkpoints.completeness import dtype_name
from ..checkpoints.diffusers import network_file
from ..checkpoints.files import open_checkpoint, require_whole
from ..checkpoints.keys import StateDict, unwrap
from ..diffbir.restoration_modules import (
    RestorationModule,
    load_restoration_module,
    spandrel_problem,
)
from ..errors import BIRError
from .carrying_out import Trialled, carry_out, noting
from .files import (
    ContentFacts,
    Fingerprint,
    NetworkFacts,
    Part,
    content_facts,
    fingerprint,
    nearly_known,
    network_facts,
    parts_of,
    without_folders,
)
from .pipelines import Conditions, Found, PipelineCheck, check_pipelines
from .trials import SPANDREL, TRIALS, Findings, Number

# Weights that nobody trained may run as well: a report has numbers, not a seal.
RUNS, DOUBTFUL, FAILED, UNCHECKED = "loads and runs", "doubtful", "failed", "not checked"


@dataclass(frozen=True)
class NetworkCheck:
    """How one network of a file did.

    Attributes:
        architecture: as in `TRIALS`.
        description: the same in words.
        facts: None for a network that spandrel builds, and where they cannot be read.
    """

    architecture: str
    description: str
    facts: NetworkFacts | None
    dtype: str
    trialled: Trialled


@dataclass(frozen=True)
class FileCheck:
    """How one file did.

    Attributes:
        problems: sentences on the file as a whole.
        unchecked: it may be good, but what would read it cannot be used here.
    """

    name: str
    fingerprint: Fingerprint | None
    content: ContentFacts | None
    networks: tuple[NetworkCheck, ...]
    problems: tuple[str, ...]
    unchecked: bool = False


@dataclass(frozen=True)
class Verification:
    """All that a report says of the files."""

    files: tuple[FileCheck, ...]
    pipelines: tuple[PipelineCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every file was checked and nothing failed; doubts do not count."""
        results = [result_of_file(file) for file in self.files]
        results += [result_of(each.trialled) for each in self.pipelines]
        return not {FAILED, UNCHECKED} & set(results)


def result_of(trialled: Trialled) -> str:
    """`RUNS`, `DOUBTFUL` or `FAILED`."""
    if trialled.problems:
        return FAILED
    return DOUBTFUL if trialled.doubts else RUNS


def result_of_file(file: FileCheck) -> str:
    """The worst that is said of a file."""
    if file.unchecked:
        return UNCHECKED
    results = [result_of(network.trialled) for network in file.networks]
    if file.problems or FAILED in results or not results:
        return FAILED
    return DOUBTFUL if DOUBTFUL in results else RUNS


def verify(
    given: Sequence[str],
    conditions: Conditions,
    callback: Callable[[str, int, int], None] | None = None,
) -> Verification:
    """Check files one by one, and those of a DiffBIR together.

    Args:
        given: paths of files or of folders in the layout of diffusers, or built-in names.
        callback: told (what comes next, steps done, steps in all).
    """
    parts = [part for each in given for part in parts_of(each)]
    tell = callback or (lambda what, done, total: None)
    files, found = [], []
    for index, part in enumerate(parts):
        tell(part.name, index, len(parts) + 1)
        file = check_file(part, conditions)
        files.append(file)
        found += _found(file, part)
    tell("the files together", len(parts), len(parts) + 1)
    pipelines = check_pipelines(found, conditions)
    return Verification(tuple(files), pipelines)


def _found(file: FileCheck, part: Part) -> list[Found]:
    return [
        Found(
            network.architecture,
            part,
            predicts=str(network.trialled.numbers.get("predicts", "")),
            inpainting=network.facts is not None and network.facts.task == "inpainting",
        )
        for network in file.networks
        if not network.trialled.problems
    ]


def check_file(part: Part, conditions: Conditions) -> FileCheck:
    """Check one file; whatever is wrong with it is in the result."""
    problems: list[str] = []
    mark: Fingerprint | None = None
    content: ContentFacts | None = None
    networks: tuple[NetworkCheck, ...] = ()
    unchecked = False
    with noting(problems, "to read the file", part.hide):
        path = part.path
        if part.architecture is not None and path.is_dir():
            path = network_file(path)
        if path.is_file():
            mark = fingerprint(path)
        with open_checkpoint(path) as checkpoint:
            tensors = unwrap(checkpoint.content)
            rows = [row for row in networks_in(tensors) if part.architecture in (None, row.name)]
            content = content_facts(checkpoint.content, rows)
            facts = [(row, _facts(row, tensors, part.name)) for row in rows]
            kind, nearly = foreign_kind(tensors), nearly_known(tensors)
        require_whole(path)
        if facts:
            networks = tuple(_check_network(*each, part, conditions) for each in facts)
        elif part.architecture is not None or not content.tensors:
            inspect(part.path, architecture=part.architecture)  # its sentence
        else:
            networks, sentences = _check_with_spandrel(part, conditions)
            unchecked = not networks and spandrel_problem() is not None
            hints = (None if kind is None else f"In short, {kind}.", nearly)
            problems += sentences
            problems += [hint for hint in hints if sentences and hint is not None]
    if mark is not None and mark.looks and content is None:
        problems.append(f"It begins like {mark.looks}.")
    return FileCheck(part.name, mark, content, networks, tuple(problems), unchecked)


def _facts(row: Architecture, tensors: StateDict, name: str) -> NetworkFacts | None:
    """None for a damaged file, of which `load_model` says what is wrong."""
    try:
        return network_facts(row, tensors, name)
    except BIRError:
        return None


def _check_network(
    row: Architecture, facts: NetworkFacts | None, part: Part, conditions: Conditions
) -> NetworkCheck:
    trial, device = TRIALS[row.name], conditions.device
    half_precision = row.half_precision and not trial.float32_only
    dtype = conditions.dtype if half_precision else torch.float32

    def attempt() -> Trialled:
        return carry_out(
            lambda: load_model(part.path, architecture=row.name, device=device, dtype=dtype),
            lambda network: trial.run(network, device),
            device,
            part.hide,
        )

    trialled = attempt()
    if dtype != torch.float32 and trialled.problems and trialled.load_seconds is not None:
        # As a restoration does where half precision overflows.
        said = [
            f"Repeated in float32, since in {dtype_name(dtype)}: {each}"
            for each in trialled.problems
        ]
        dtype = torch.float32
        again = attempt()
        trialled = replace(again, warnings=(*said, *again.warnings))
    return NetworkCheck(row.name, row.description, facts, dtype_name(dtype), trialled)


def _check_with_spandrel(
    part: Part, conditions: Conditions
) -> tuple[tuple[NetworkCheck, ...], list[str]]:
    """A network that only spandrel may know; none with sentences if it does not."""
    problem, device = spandrel_problem(), conditions.device
    if problem is not None:
        return (), [
            "Expected spandrel, which may know the network in this file, but it "
            f"{without_folders(problem)}; until then nothing can be said of the file."
        ]

    def run(module: RestorationModule) -> Findings:
        numbers: dict[str, Number] = {"architecture": module.name, "scale": module.scale}
        if module.network is not None:
            numbers["parameters"] = sum(each.numel() for each in module.network.parameters())
        findings = TRIALS[SPANDREL].run(module, device)
        return Findings({**numbers, **findings.numbers}, findings.doubts)

    trialled = carry_out(
        lambda: load_restoration_module(part.path, device=device), run, device, part.hide
    )
    if trialled.load_seconds is None:
        return (), list(trialled.problems)
    description = f"{trialled.numbers.get('architecture', 'a network')} through spandrel"
    return (NetworkCheck(SPANDREL, description, None, "float32", trialled),), []
