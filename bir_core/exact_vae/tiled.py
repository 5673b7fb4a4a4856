"""Encode and decode pictures of any size with the VAE of Stable Diffusion, tile by tile and equal
to the whole VAE; where the maps between the passes wait is chosen from the free memory.
"""

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import BIRError
from ..memory import CPU, GIGABYTE, USABLE, free_memory, is_out_of_memory
from ..tiling import SMALLEST_TILE
from .gradient import gradient_bytes, run_tiled_with_gradient
from .operations import (
    Operation,
    decoder_operations,
    encoder_operations,
    parked_bytes,
    working_bytes,
)
from .passes import (
    LayerCall,
    Parking,
    ParkingOverflow,
    cast_to_input,
    run_tiled,
)

logger = logging.getLogger(__name__)

PARKED_TYPES = (torch.float32, torch.float16)

Callback = Callable[[int, int], None]


def _memory_error(needed: float, free: int, otherwise: str) -> BIRError:
    return BIRError(
        f"The exact tiled VAE should have {needed / USABLE / GIGABYTE:.1f} GB of free memory for "
        f"this picture, but {free / GIGABYTE:.1f} GB are free; free some memory, take a smaller "
        f"picture, or {otherwise}."
    )


def choose_parking(
    operations: Sequence[Operation],
    height: int,
    width: int,
    *,
    tile: int,
    device: torch.device,
    dtype: torch.dtype,
    free_device: int,
    free_host: int,
    parked_types: Sequence[torch.dtype] = PARKED_TYPES,
) -> Parking:
    """Where the maps between the passes wait: exact before economical, then the computing device
    before the host.

    Args:
        operations: of `encoder_operations` or `decoder_operations`.
        height, width: of the network's input, pixels for an encoder and latents for a decoder.
        tile: side of a tile, in pixels of the picture.
        device, dtype: where and in which type the network computes.
        free_device, free_host: bytes that may be used there; the same number for a CPU.
        parked_types: types to try, the preferred first.

    Raises:
        BIRError: they do not fit anywhere; the sentence says how much memory they need.
    """
    working = working_bytes(list(operations), tile, dtype)
    for parked_type in parked_types:
        needed = parked_bytes(list(operations), height, width, parked_type)
        if needed + working <= USABLE * free_device:
            return Parking(device, parked_type)
        if device.type != "cpu" and needed <= USABLE * free_host:
            return Parking(CPU, parked_type)
    needed = parked_bytes(list(operations), height, width, parked_types[-1]) + working
    raise _memory_error(needed, max(free_device, free_host), "use the stock tiled VAE")


def _run(
    operations: list[Operation],
    x: Tensor,
    tile: int,
    parking: Parking | None,
    callback: Callback | None,
    call: LayerCall,
) -> Tensor:
    def choose(parked_types: Sequence[torch.dtype] = PARKED_TYPES) -> Parking:
        return choose_parking(
            operations,
            x.shape[-2],
            x.shape[-1],
            tile=tile,
            device=x.device,
            dtype=x.dtype,
            free_device=free_memory(x.device),
            free_host=free_memory(CPU),
            parked_types=parked_types,
        )

    if tile < SMALLEST_TILE:
        raise BIRError(
            f"A tile of the VAE should be at least {SMALLEST_TILE} pixels wide, but {tile} came; "
            "choose a larger one."
        )
    place = choose() if parking is None else parking
    while True:
        try:
            return run_tiled(operations, x, tile=tile, parking=place, callback=callback, call=call)
        except ParkingOverflow as error:
            logger.warning("VAE: %s: repeating with maps parked in float32", error)
            place = choose((torch.float32,))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if tile < 2 * SMALLEST_TILE:
                raise BIRError(
                    f"The exact tiled VAE should have memory for a tile of {tile} pixels, but even "
                    "that ran out; close other programs, or let the maps wait on the host."
                ) from error
            tile //= 2
            logger.warning("Out of memory: going on with VAE tiles of %d pixels", tile)


def decode_tiled(
    vae: nn.Module,
    latent: Tensor,
    *,
    tile: int = 512,
    parking: Parking | None = None,
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
        parking: where full maps wait, and in which type; None chooses from the free memory.
        callback: told (done, total) after each tile of each pass; it may raise to cancel.
        call: how a layer is run on an input whose type its weights may not have.

    Returns:
        (B, 3, 8h, 8w) in [-1, 1], not clamped, like `latent`.

    Raises:
        BIRError: not enough memory for the parked maps or for the smallest tile, another network,
            or too small a tile.
    """
    projection = getattr(vae, "post_quant_conv", None)
    with torch.no_grad():
        inner = latent if projection is None else call(projection, latent)
    return _run(decoder_operations(vae.decoder), inner, tile, parking, callback, call)


def encode_tiled(
    vae: nn.Module,
    image: Tensor,
    *,
    tile: int = 512,
    parking: Parking | None = None,
    callback: Callback | None = None,
    call: LayerCall = cast_to_input,
) -> Tensor:
    """What `vae.encode` gives, the mode of the latent, in memory bounded by the tile besides the
    parked maps; computed in the type of `image`, see `decode_tiled`.

    Args:
        vae: with `encoder` and, where it has one, `quant_conv`, on the device of `image`.
        image: (B, 3, H, W) in [-1, 1].
        tile, parking, callback, call: as in `decode_tiled`.

    Returns:
        (B, C, H/8, W/8) without `latent_scale`, like `image`.

    Raises:
        BIRError: as in `decode_tiled`.
    """
    moments = _run(encoder_operations(vae.encoder), image, tile, parking, callback, call)
    projection = getattr(vae, "quant_conv", None)
    with torch.no_grad():
        moments = moments if projection is None else call(projection, moments)
    return moments.chunk(2, dim=1)[0]


def decode_with_gradient(
    vae: nn.Module,
    latent: Tensor,
    *,
    tile: int = 512,
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
        callback: called after each tile of each pass, in both directions; it may raise to cancel.

    Returns:
        (B, 3, 8h, 8w) in [-1, 1], not clamped, like `latent`.

    Raises:
        BIRError: not enough memory for the parked maps.
    """
    operations = decoder_operations(vae.decoder)
    parked = len(latent) * gradient_bytes(operations, *latent.shape[-2:])
    working = working_bytes(operations, tile, latent.dtype)
    free_device, free_host = free_memory(latent.device), free_memory(CPU)
    if parked + working <= USABLE * free_device:
        place = latent.device
    elif latent.device.type != "cpu" and parked <= USABLE * free_host:
        place = CPU
    else:
        raise _memory_error(parked + working, max(free_device, free_host), "guide on latents")
    projection = getattr(vae, "post_quant_conv", None)
    inner = latent if projection is None else cast_to_input(projection, latent)
    return run_tiled_with_gradient(operations, inner, tile=tile, device=place, callback=callback)
