"""What `bir inspect --cost` says: parameters, multiply-adds and traffic by part, of the networks in
a file, of a published one by its name, or of a whole run of DiffBIR."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, cast

from ..command_line.options import write_line
from ..costs.counting import Cost, total
from ..costs.diffbir import RunCost, diffbir_cost
from ..costs.networks import FOREIGN, PUBLISHED, Counted, Size, count_file, count_published
from ..costs.pixel_diffusion import adm_multiply_adds, network_calls, repaint_multiply_adds
from ..diffbir.method import DiffBIROptions
from ..diffbir.versions import VERSIONS, Task
from ..errors import BIRError, shown_path
from ..weights import BUILTIN_NAMES, builtin_model_path

RUNS = {f"diffbir-{version}": version for version in VERSIONS}
NETWORKS = (*PUBLISHED, *FOREIGN)
NAMES = (*NETWORKS, *RUNS)
UNIT = 1e9  # of multiply-adds and of bytes
TERA = 1e12
BASIS = (
    "A multiply-add is one multiplication with its addition. Bytes are those of each operation by "
    "itself, in float32 and without caches."
)


def inspect_cost(
    source: str, size: Size, of_run: DiffBIROptions, given: tuple[str, ...], *, as_json: bool
) -> int:
    """Write the cost to stdout, as tables or as one JSON object.

    Args:
        source: a file, a built-in model, or one of `NAMES`; a file of such a name comes first.
        size: height and width in pixels of the picture that comes in.
        of_run: of a whole run; `given` are the options among these that were given.

    Raises:
        BIRError: as the counting; or options of a run for a single network.
    """
    is_name = not os.path.exists(source)
    if is_name and source in RUNS:
        version = RUNS[source]
        settings = of_run.settings_of(version)
        run = diffbir_cost(version, cast(Task, of_run.task), size, of_run.upscale, settings)
        _write_run(source, size, run, as_json=as_json)
        return 0
    if given:
        raise BIRError(
            f"Expected a whole run, {', '.join(RUNS)}, with --{given[0].replace('_', '-')}, but "
            f"{source} came; leave the option out, or name a run."
        )
    named = is_name and source in NAMES
    if is_name and not named and not Path(source).suffix and builtin_model_path(source) is None:
        raise BIRError(
            f"Expected a file, a built-in model or the name of a published network, but "
            f"{shown_path(source)} is none; check the path, or choose of "
            f"{', '.join((*BUILTIN_NAMES, *NAMES))}."
        )
    found = [count_published(source, size)] if named else count_file(source, size)
    if as_json:
        write_line(json.dumps({"networks": [_numbers_of(each) for each in found]}, indent=2))
        return 0
    for counted in found:
        _write_network(counted)
    write_line(BASIS)
    return 0


def _numbers(cost: Cost) -> dict[str, int]:
    return dataclasses.asdict(cost)


def _side_by_side(size: Size) -> dict[str, Any]:
    """A pixel diffusion for a picture of that size."""
    return {
        "repaint_multiply_adds": repaint_multiply_adds(*size),
        "repaint_network_calls": network_calls(),
    }


def _numbers_of(counted: Counted) -> dict[str, Any]:
    inpaints = "inpainting" in counted.name
    return {
        "name": counted.name,
        "width": counted.size[1],
        "height": counted.size[0],
        "parts": {name: _numbers(cost) for name, cost in counted.parts.items()},
        "total": _numbers(total(counted.parts)),
        "printed_multiply_adds": counted.printed,
        **(_side_by_side(counted.size) if inpaints else {}),
    }


def _cells(cost: Cost) -> list[str]:
    amounts = (cost.multiply_adds, cost.read, cost.written)
    return [f"{cost.parameters:,}", *(_short(amount / UNIT) for amount in amounts)]


def _short(amount: float) -> str:
    """Four digits that count, without an exponent."""
    return (
        f"{amount:.0f}"
        if amount >= 1000
        else f"{amount:#.4g}"
        if amount >= 0.1
        else f"{amount:.4f}"
    )


def _table(first: str, rows: dict[str, Cost], *, calls: dict[str, int] | None = None) -> None:
    titles = [first, *(["calls"] if calls else [])]
    titles += ["parameters", "multiply-adds G", "read GB", "written GB"]
    write_line(f"| {' | '.join(titles)} |")
    write_line("|---" * len(titles) + "|")
    for name, cost in rows.items():
        counts = [str(calls.get(name, ""))] if calls else []
        write_line(f"| {' | '.join([name, *counts, *_cells(cost)])} |")


def _write_network(counted: Counted) -> None:
    height, width = counted.size
    whole = total(counted.parts)
    write_line(f"{counted.name}, {width}x{height}\n")
    _table("part", {**counted.parts, "all": whole})
    write_line("")
    if counted.printed is not None:
        write_line(
            f"The paper prints {counted.printed / TERA:g} T multiply-adds for this size; counted "
            f"are {whole.multiply_adds / TERA:.4g} T.\n"
        )
    if "inpainting" in counted.name:
        _write_repaint(counted.size, whole)


def _write_run(name: str, size: Size, run: RunCost, *, as_json: bool) -> None:
    output = run.sizes.output
    if as_json:
        stages = {
            stage.name: {"calls": stage.calls, **_numbers(stage.cost)} for stage in run.stages
        }
        numbers = {
            "name": name,
            "width": size[1],
            "height": size[0],
            "stages": stages,
            "total": _numbers(run.total),
            **_side_by_side(output),
        }
        write_line(json.dumps(numbers, indent=2))
        return
    write_line(f"{name}, {size[1]}x{size[0]} -> {output[1]}x{output[0]}\n")
    calls = {stage.name: stage.calls for stage in run.stages}
    _table(
        "stage", {stage.name: stage.cost for stage in run.stages} | {"all": run.total}, calls=calls
    )
    write_line("")
    _write_repaint(output, run.total)
    write_line(BASIS)


def _write_repaint(size: Size, beside: Cost) -> None:
    """RePaint beside a cost for a picture of the same size."""
    taken = repaint_multiply_adds(*size)
    write_line(
        f"A diffusion on pixels as RePaint (Lugmayr et al., CVPR 2022; {network_calls()} calls of "
        f"ADM's network, {adm_multiply_adds() / TERA:.2f} T multiply-adds each for 256x256) takes "
        f"{taken / TERA:.0f} T for {size[1]}x{size[0]}, {taken / beside.multiply_adds:.0f} times "
        "as much.\n"
    )
