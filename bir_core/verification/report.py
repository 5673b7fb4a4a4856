"""A verification as text to paste into an issue, and as JSON. No folder of the machine is in it."""

import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import torch

from ..checkpoints.completeness import dtype_name
from ..diffbir.restoration_modules import spandrel_problem
from .carrying_out import Trialled
from .checking import FileCheck, NetworkCheck, Verification, result_of, result_of_file
from .files import NetworkFacts, without_folders
from .pipelines import Conditions, PipelineCheck

DISTRIBUTION = "comfyui-bir"
MOST_NAMES = 20  # of keys in the text; JSON has all
TITLE = "bir verify"


@dataclass(frozen=True)
class Environment:
    """Where files were checked.

    Attributes:
        package, spandrel: their versions, or why there is none, in words.
        system: name and processor family.
    """

    package: str
    python: str
    torch: str
    spandrel: str
    system: str
    device: str
    threads: int
    dtype: str


def environment(conditions: Conditions) -> Environment:
    """What a reader of the report should know of this machine."""
    problem = spandrel_problem()
    device = conditions.device.type
    if device == "cuda":
        device = f"cuda, {torch.cuda.get_device_name(conditions.device)}"
    return Environment(
        package=_version(DISTRIBUTION, "not installed as a package"),
        python=platform.python_version(),
        torch=torch.__version__,
        spandrel=_version("spandrel", "of an unknown version")
        if problem is None
        else without_folders(problem),
        system=f"{platform.system()} {platform.machine()}",
        device=device,
        threads=torch.get_num_threads(),
        dtype=dtype_name(conditions.dtype),
    )


def _version(distribution: str, otherwise: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return otherwise


def as_json(verification: Verification, where: Environment) -> str:
    """One object with everything; numbers that are not finite are null."""
    content = {
        "environment": asdict(where),
        "passed": verification.passed,
        "files": [{"result": result_of_file(file), **asdict(file)} for file in verification.files],
        "pipelines": [
            {"result": _result_of_pipeline(pipeline), **asdict(pipeline)}
            for pipeline in verification.pipelines
        ],
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_markdown(verification: Verification, where: Environment) -> str:
    """A table of results, then a section for each file and for each pipeline."""
    lines = [f"# {TITLE}", "", "| what | value |", "|---|---|"]
    lines += [f"| {name} | {_plain(value)} |" for name, value in asdict(where).items()]
    lines += ["", "| file | holds | result |", "|---|---|---|"]
    for file in verification.files:
        held = ", ".join(network.description for network in file.networks) or "nothing known"
        lines.append(f"| {_plain(file.name)} | {_plain(held)} | {result_of_file(file)} |")
    for pipeline in verification.pipelines:
        name = f"DiffBIR {pipeline.version}"
        lines.append(f"| {name} | all stages | {_result_of_pipeline(pipeline)} |")
    for file in verification.files:
        lines += ["", f"## {_plain(file.name)}", *_file_lines(file)]
    for pipeline in verification.pipelines:
        lines += ["", f"## DiffBIR {pipeline.version} together", *_pipeline_lines(pipeline)]
    return "\n".join(lines)


def _plain(value: object) -> str:
    """A text of a file, or the file's name, as one line that Markdown leaves as it is."""
    text = " ".join(str(value).split())
    for mark in "\\`|*<>[]":
        text = text.replace(mark, "\\" + mark)
    return text


def _file_lines(file: FileCheck) -> Iterator[str]:
    yield f"- result: {result_of_file(file)}"
    yield from _sentences(file.problems, "problem")
    if file.fingerprint is not None:
        yield f"- size: {file.fingerprint.size:,} bytes"
        yield f"- sha256: {file.fingerprint.sha256}"
    if file.content is not None:
        content = file.content
        dtypes = ", ".join(f"{count} {name}" for name, count in content.dtypes.items())
        yield f"- wrapped in: {_plain(', '.join(content.wrapping) or 'nothing')}"
        yield f"- tensors: {content.tensors} ({dtypes})"
        if content.unused:
            yield f"- tensors not read, as tables or other networks: {_names(content.unused)}"
    for network in file.networks:
        yield from ("", f"### {_plain(network.description)}", *_network_lines(network))


def _network_lines(network: NetworkCheck) -> Iterator[str]:
    yield f"- result: {result_of(network.trialled)}"
    if network.facts is not None:
        yield from _facts_lines(network.facts)
    yield from _trialled_lines(network.trialled, f" in {network.dtype}")


def _facts_lines(facts: NetworkFacts) -> Iterator[str]:
    yield f"- architecture: {_plain(facts.architecture)}, {_plain(facts.variant)} sizes"
    if facts.version is not None:
        yield f"- DiffBIR version by the file's name: {facts.version}"
    yield f"- task: {facts.task}, scale {facts.scale}"
    yield f"- parameters: {facts.parameters:,} in {facts.dtype}"
    sizes = ", ".join(f"{name} {value}" for name, value in facts.config.items())
    yield f"- configuration: {_plain(sizes)}"
    kinds = (
        ("missing tensors", facts.absent),
        ("tensors left over", facts.surplus),
        ("tensors of another shape", facts.differing),
    )
    for kind, names in kinds:
        yield f"- {kind}: {_names(names) if names else 'none'}"


def _pipeline_lines(pipeline: PipelineCheck) -> Iterator[str]:
    yield f"- result: {_result_of_pipeline(pipeline)}"
    yield f"- version: {pipeline.version} ({pipeline.version_source})"
    for role, name in pipeline.files.items():
        yield f"- {_plain(role)}: {_plain(name)}"
    if pipeline.lacking:
        yield f"- not run: give {', '.join(pipeline.lacking)} as well"
    else:
        yield from _trialled_lines(pipeline.trialled, "")


def _result_of_pipeline(pipeline: PipelineCheck) -> str:
    return "not run" if pipeline.lacking else result_of(pipeline.trialled)


def _trialled_lines(trialled: Trialled, how: str) -> Iterator[str]:
    yield from _sentences(trialled.problems, "problem")
    yield from _sentences(trialled.doubts, "doubt")
    yield from _sentences(trialled.warnings, "said on the way")
    if trialled.load_seconds is not None:
        yield f"- loaded in {trialled.load_seconds:.2f} s"
    if trialled.run_seconds is not None:
        yield f"- ran{how} in {trialled.run_seconds:.2f} s"
    if trialled.peak_megabytes is not None:
        yield f"- peak memory above that before: {trialled.peak_megabytes:.0f} MB"
    for name, value in trialled.numbers.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        yield f"- {_plain(name)}: {_plain(shown)}"


def _sentences(sentences: Sequence[str], kind: str) -> Iterator[str]:
    for sentence in sentences:
        yield f"- **{kind}**: {_plain(sentence)}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMES
    shown = ", ".join(_plain(name) for name in names[:MOST_NAMES])
    return f"{len(names)}: {shown}{f' and {more} more' if more > 0 else ''}"
