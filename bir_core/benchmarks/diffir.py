"""DiffIR's network as it stands, the streamed one, and the official one, at an official size with
the same random weights on the same random image."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..diffir.memory_plan import diffir_strips
from ..diffir.streaming import stream
from ..errors import BIRError
from ..memory import free_memory
from ..networks.diffir import DiffIRStage2
from ..networks.diffir_config import DiffIRConfig
from ..networks.diffir_prior import IPR_LENGTH
from .comparing import Side
from .measuring import SEED
from .official import official_diffir


def require_size(name: str, config: DiffIRConfig, height: int, width: int) -> None:
    """Raise BIRError for a size that the network does not take."""
    multiple = config.size_multiple
    if min(height, width) < 1 or height % multiple or width % multiple:
        raise BIRError(
            f"Expected a size whose sides divide by {multiple} for {name}, but {height}x{width} "
            "came; choose such a size."
        )


def diffir_sides(
    config: DiffIRConfig,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    strip: int | None = None,
    plain: bool = True,
    official: Path | None = None,
) -> list[Side]:
    """Ways to restore an image.

    Args:
        height, width: of the input, in pixels.
        strip: rows of the streamed network; None takes as many as `restore` would.
        plain: whether the plain network is among them, which a large picture has no memory for.
        official: a checkout of the official code; its network comes first then.

    Raises:
        BIRError: a checkout that cannot be used, see `official_diffir`.
    """
    torch.manual_seed(SEED)
    network = DiffIRStage2(config).eval().requires_grad_(False).to(device, dtype)
    image = torch.rand(1, config.in_channels, height, width).to(device, dtype)
    noise = _as_drawn(lambda: torch.randn(1, IPR_LENGTH, device=device))
    needs = diffir_strips(config, height, width, device_type=device.type)
    rows = strip or needs.rows(free_memory(device), dtype)
    sides: dict[str, Callable[[], Tensor]] = {}
    if official is not None:
        theirs = official_diffir(official, network)
        sides["official"] = partial(_as_drawn, partial(theirs, image))
    if plain:
        sides["plain"] = partial(network, image, noise)
    sides["streamed"] = partial(stream, network, image, noise, strip=rows)
    return [Side(name, torch.no_grad()(call)) for name, call in sides.items()]


def _as_drawn(call: Callable[[], Tensor]) -> Tensor:
    """What a call returns that draws the noise from torch's own generator."""
    torch.manual_seed(SEED)
    return call()
