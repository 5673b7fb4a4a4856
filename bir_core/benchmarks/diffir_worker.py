"""One side of the comparison of DiffIR's plain and streamed inference, in a process of its own, so
that its memory is not mixed with the other's.

Reads orders from stdin, one on a line (`memory`, `time`), and answers each with a line of JSON.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..diffir.memory_plan import diffir_strips
from ..diffir.streaming import stream
from ..memory import free_memory
from ..networks.diffir import DiffIRStage2
from ..networks.diffir_config import OFFICIAL_CONFIGS
from ..networks.diffir_prior import draw_noise
from .measuring import peak_memory_of, seconds_of

Side = Literal["plain", "streamed"]


@dataclass(frozen=True)
class Job:
    """What to run: an official size with random weights on a random image, both seeded.

    `dtype` is a name in torch; `strip` None is the one that `restore` would take; `threads` None
    leaves torch's choice; the result goes to the safetensors file `output`, if any.
    """

    side: Side
    variant: str
    height: int
    width: int
    dtype: str
    device: str
    strip: int | None
    threads: int | None
    output: str | None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def serve(job: Job) -> None:
    """Build the network, then answer orders until stdin ends."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    device, dtype = torch.device(job.device), getattr(torch, job.dtype)
    config = OFFICIAL_CONFIGS[job.variant]
    torch.manual_seed(0)
    network = DiffIRStage2(config).eval().requires_grad_(False).to(device, dtype)
    image = torch.rand(1, config.in_channels, job.height, job.width).to(device, dtype)
    noise = draw_noise(1, 0).to(device)
    needs = diffir_strips(config, job.height, job.width, device_type=device.type)
    strip = job.strip or needs.rows(free_memory(device), dtype)

    @torch.no_grad()
    def forward(lq: Tensor = image) -> Tensor:
        if job.side == "plain":
            return network(lq, noise)
        return stream(network, lq, noise, strip=strip)

    side = config.size_multiple
    forward(image[..., :side, :side])  # loads the libraries
    for line in sys.stdin:
        answer: dict[str, float]
        if line.strip() == "time":
            answer = {"seconds": seconds_of(forward, device)}
        else:
            answer = {"strip": strip, **_measure_all(forward, device, job.output)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _measure_all(
    forward: Callable[[], Tensor], device: torch.device, output: str | None
) -> dict[str, float]:
    results: list[Tensor] = []

    def call() -> None:
        _, extra, total = peak_memory_of(lambda: results.append(forward()), device)
        memory.update(extra=extra, total=total)

    memory: dict[str, float] = {}
    seconds = seconds_of(call, device)
    if output is not None:
        save_file({"restored": results[0].float().cpu()}, Path(output))
    return {"seconds": seconds, **memory}


if __name__ == "__main__":
    serve(Job(**json.loads(sys.argv[1])))
