"""Encode and decode pictures of any size with the VAE of Stable Diffusion, tile by tile and equal
to the whole VAE; where the maps between the passes wait is chosen from the free memory, and is a
file where no memory does.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import BIRError, OutOfMemory
from ..fallbacks import Attempt, first_that_fits
from ..memory import CPU, GIGABYTE, USABLE, free_memory
from ..tiling import SMALLEST_TILE
from .gradient import gradient_bytes, gradient_working_bytes, run_tiled_with_gradient
from .mapped_files import files_folder, free_disk
from .maps import Parking, ParkingOverflow
from .memory_plan import parked_bytes, working_bytes
from .operations import Operation, decoder_operations, encoder_operations
from .passes import LayerCall, cast_to_input, run_tiled

logger = logging.getLogger(__name__)

PARKED_TYPES = (torch.float32, torch.float16)

Callback = Callable[[int, int], None]


def too_little_memory(
    needed: float, free: float, otherwise: str = "use the stock tiled VAE"
) -> OutOfMemory:
    """The sentence for a picture whose maps fit nowhere; memory in bytes."""
    return OutOfMemory(
        f"The exact tiled VAE should have {needed / USABLE / GIGABYTE:.1f} GB of free memory for "
        f"this picture, but {free / GIGABYTE:.1f} GB are free; free some memory, take a smaller "
        f"picture, or {otherwise}."
    )


def fitting_parkings(
    operations: Sequence[Operation],
    height: int,
    width: int,
    *,
    tile: int,
    device: torch.device,
    dtype: torch.dtype,
    free_device: int,
    free_host: int,
    folder: Path | None = None,
    disk: int = 0,
    parked_types: Sequence[torch.dtype] = PARKED_TYPES,
) -> list[Parking]:
    """Where the maps between the passes may wait, by the free memory: exact before economical, then
    the computing device before the host; last, in the preferred type, a file.

    Args:
        operations: of `encoder_operations` or `decoder_operations`.
        height, width: of the network's input, pixels for an encoder and latents for a decoder.
        tile: side of a tile, in pixels of the picture.
        device, dtype: where and in which type the network computes.
        free_device, free_host: bytes that may be used there; the same number for a CPU.
        folder, disk: of files, and the bytes that may be used there; None for no file.
        parked_types: types to try, the preferred first.

    Returns:
        The preferred one first; empty if they do not fit anywhere.
    """
    working = working_bytes(list(operations), tile, dtype)
    fitting = []
    for parked_type in parked_types:
        needed = parked_bytes(list(operations), height, width, parked_type)
        if needed + working <= USABLE * free_device:
            fitting.append(Parking(device, parked_type))
        if device.type != "cpu" and needed <= USABLE * free_host:
            fitting.append(Parking(CPU, parked_type))
    exact = parked_types[0]
    filed = parked_bytes(list(operations), height, width, exact)
    computing = device.type != "cpu" or working <= USABLE * free_device
    if folder is not None and computing and filed <= disk:
        fitting.append(Parking(CPU, exact, folder))
    return fitting


def _run(
    operations: list[Operation],
    x: Tensor,
    tile: int,
    parkings: Sequence[Parking] | None,
    folder: Path | None,
    callback: Callback | None,
    call: LayerCall,
) -> Tensor:
    if tile < SMALLEST_TILE:
        raise BIRError(
            f"A tile of the VAE should be at least {SMALLEST_TILE} pixels wide, but {tile} came; "
            "choose a larger one."
        )
    height, width = x.shape[-2:]
    sides = [tile]
    while sides[-1] >= 2 * SMALLEST_TILE:
        sides.append(sides[-1] // 2)

    def fitting(*parked_types: torch.dtype) -> list[Parking]:
        free_device, free_host = free_memory(x.device), free_memory(CPU)
        of_files = files_folder(folder)
        found = fitting_parkings(
            operations,
            height,
            width,
            tile=tile,
            device=x.device,
            dtype=x.dtype,
            free_device=free_device,
            free_host=free_host,
            folder=of_files,
            disk=free_disk(of_files),
            parked_types=parked_types,
        )
        if not found:
            needed = parked_bytes(operations, height, width, parked_types[-1])
            needed += working_bytes(operations, tile, x.dtype)
            raise too_little_memory(needed, max(free_device, free_host))
        return found

    def run(place: Parking, side: int) -> Tensor:
        return run_tiled(operations, x, tile=side, parking=place, callback=callback, call=call)

    def attempts(places: Sequence[Parking]) -> Iterator[Attempt[Tensor]]:
        for place in places:
            yield f"maps of the VAE wait {place}", partial(run, place, tile)
            if place.device == CPU:
                break  # nothing of them is on the device any more
        for side in sides[1:]:
            yield f"going on with VAE tiles of {side} pixels", partial(run, place, side)

    def first(places: Sequence[Parking]) -> Tensor:
        return first_that_fits(
            attempts(places),
            f"The exact tiled VAE should have memory for a tile of {sides[-1]} pixels, but even "
            "that ran out; close other programs, or let the maps wait on the host.",
        )

    try:
        return first(fitting(*PARKED_TYPES) if parkings is None else parkings)
    except ParkingOverflow as error:
        overflow = str(error)
    # Outside of the except block, which would keep the tensors of the failure alive.
    logger.warning("VAE: %s: repeating with maps parked in float32", overflow)
    return first(fitting(torch.float32))


def decode_tiled(
    vae: nn.Module,
    latent: Tensor,
    *,
    tile: int = 512,
    parkings: Sequence[Parking] | None = None,
    folder: Path | None = None,
    callback: Callback | None = None,
    call: LayerCall = cast_to_input,
) -> Tensor:
    """What `vae.decode` gives, in memory bounded by the tile besides the parked maps.

    Everything is computed in the type of `latent`. In float32 the result equals that of a float32
    VAE of the same weights to 1e-4, even where they are stored in half precision: those of one
    layer at a time are cast. In half precision it differs from the whole VAE by the rounding of
    both (0.02 in float16) and is the one nearer to float32.

    Args:
        vae: with `decoder` and, where it has one, `post_quant_conv`: `SDVAE`, or the first-stage
            model of ComfyUI, on the device of `latent`.
        latent: (B, C, h, w) without `latent_scale`, any size.
        tile: side of a tile in pixels of the picture; it sets memory and time, not the result.
        parkings: where full maps may wait, and in which type: the first one that fits, before tiles
            become smaller. None chooses from the free memory, and a file where that does not do.
        folder: of this file; None for that of the system for temporary files.
        callback: told (done, total) after each tile of each pass; it may raise to cancel.
        call: how a layer is run on an input whose type its weights may not have.

    Returns:
        (B, 3, 8h, 8w) in [-1, 1], not clamped, like `latent`.

    Raises:
        BIRError: not enough memory or disk for the parked maps, or memory for the smallest tile,
            another network, or too small a tile.
    """
    projection = getattr(vae, "post_quant_conv", None)
    with torch.no_grad():
        inner = latent if projection is None else call(projection, latent)
    return _run(decoder_operations(vae.decoder), inner, tile, parkings, folder, callback, call)


def encode_tiled(
    vae: nn.Module,
    image: Tensor,
    *,
    tile: int = 512,
    parkings: Sequence[Parking] | None = None,
    folder: Path | None = None,
    callback: Callback | None = None,
    call: LayerCall = cast_to_input,
) -> Tensor:
    """What `vae.encode` gives, the mode of the latent, in memory bounded by the tile besides the
    parked maps; computed in the type of `image`, see `decode_tiled`.

    Args:
        vae: with `encoder` and, where it has one, `quant_conv`, on the device of `image`.
        image: (B, 3, H, W) in [-1, 1].
        tile, parkings, folder, callback, call: as in `decode_tiled`.

    Returns:
        (B, C, H/8, W/8) without `latent_scale`, like `image`.

    Raises:
        BIRError: as in `decode_tiled`.
    """
    operations = encoder_operations(vae.encoder)
    moments = _run(operations, image, tile, parkings, folder, callback, call)
    projection = getattr(vae, "quant_conv", None)
    with torch.no_grad():
        moments = moments if projection is None else call(projection, moments)
    return moments.chunk(2, dim=1)[0]


def decode_with_gradient(
    vae: nn.Module,
    latent: Tensor,
    *,
    tile: int = 512,
    on_host: bool = False,
    callback: Callable[[], None] | None = None,
) -> Tensor:
    """What `decode_tiled` gives, and a gradient of a loss on it goes back to `latent`, once: equal
    to that through the whole decoder, in device memory bounded by the tile besides parked maps.

    The maps are parked in float32 on the device if they fit, else on the host; until the gradient
    has passed they take four times as many bytes as for `decode_tiled`, a quarter of what autograd
    keeps for the whole decoder.

    Args:
        vae: as for `decode_tiled`; its weights must not be inference tensors.
        latent: (B, C, h, w) without `latent_scale`, any size.
        tile: side of a tile in pixels of the picture.
        on_host: park there even if the device has room.
        callback: called after each tile of each pass, in both directions; it may raise to cancel.

    Returns:
        (B, 3, 8h, 8w) in [-1, 1], not clamped, like `latent`.

    Raises:
        BIRError: not enough memory for the parked maps.
    """
    operations = decoder_operations(vae.decoder)
    parked = len(latent) * gradient_bytes(operations, *latent.shape[-2:])
    working = gradient_working_bytes(operations, tile, latent.dtype)
    free_device, free_host = free_memory(latent.device), free_memory(CPU)
    fits = parked + working <= USABLE * free_device and (latent.device == CPU or not on_host)
    places = [latent.device] if fits else []
    if latent.device != CPU and parked <= USABLE * free_host:
        places.append(CPU)
    if not places:
        raise too_little_memory(parked + working, max(free_device, free_host), "guide on latents")
    projection = getattr(vae, "post_quant_conv", None)
    inner = latent if projection is None else cast_to_input(projection, latent)
    run = partial(run_tiled_with_gradient, operations, inner, tile=tile, callback=callback)
    return first_that_fits(
        [(f"maps of the VAE wait on {place}", partial(run, device=place)) for place in places],
        f"The exact tiled VAE should have memory for a tile of {tile} pixels with its gradients, "
        "but it ran out; choose smaller tiles, or guide on latents.",
    )
