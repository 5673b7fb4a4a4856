"""The VAE of ComfyUI, whole and in exact tiles: its weights, memory and precision.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...bir_core.errors import BIRError
from ...bir_core.exact_vae.mapped_files import files_folder, free_disk
from ...bir_core.exact_vae.maps import Parking
from ...bir_core.exact_vae.memory_plan import parked_bytes, working_bytes
from ...bir_core.exact_vae.operations import Operation, decoder_operations, encoder_operations
from ...bir_core.exact_vae.tiled import (
    decode_tiled,
    encode_tiled,
    fitting_parkings,
    too_little_memory,
)
from ...bir_core.fallbacks import Attempt, first_that_fits, or_in_float32
from ...bir_core.images import from_channels_last, require_finite, to_channels_last
from ...bir_core.memory import CPU, GIGABYTE
from . import services
from .protocols import VAE

logger = logging.getLogger(__name__)
DEFAULT_TILE = 512
AS_THE_VAE = "as the VAE"
PRECISIONS = (AS_THE_VAE, "float32")
PLACES = ("automatic", "device", "host")
DTYPES = {
    "automatic": (torch.float32, torch.float16),
    "float32": (torch.float32,),
    "float16": (torch.float16,),
}
DECODED, ENCODED = "The image from the VAE", "The latent from the VAE"

Callback = Callable[[int, int], None]


@dataclass(frozen=True)
class Tiling:
    """How a VAE works in exact tiles; only `precision` and a `parking_dtype` of float16 change the
    result.

    Attributes:
        size: side of a tile in pixels.
        precision: of `PRECISIONS`; "float32" equals the whole VAE in float32, whatever type its
            weights are stored in.
        parking: of `PLACES`, where full maps wait between two steps.
        parking_dtype: of `DTYPES`, the type of these maps.
    """

    size: int = DEFAULT_TILE
    precision: str = AS_THE_VAE
    parking: str = "automatic"
    parking_dtype: str = "automatic"


FLOAT32 = Tiling(precision="float32")


def exact_operations(vae: VAE, half: str) -> list[Operation] | None:
    """What the encoder or the decoder of a VAE does; None for a VAE of another layout than that of
    Stable Diffusion, which runs whole by its own code."""
    network = vae.first_stage_model
    part = getattr(network, half, None)
    if part is None or getattr(network, "bn", None) is not None:
        return None
    try:
        return decoder_operations(part) if half == "decoder" else encoder_operations(part)
    except BIRError as reason:
        logger.debug("VAE: %s", reason)
        return None


def unclamped(vae: VAE) -> VAE:
    """The same VAE without the clamp to [0, 1] at its end, for what is still to be resized or given
    other colours; a VAE of another layout than Stable Diffusion's as it is."""
    if exact_operations(vae, "decoder") is None:
        return vae
    same = copy.copy(vae)
    # In place, as ComfyUI's own: its result is not always taken.
    same.process_output = lambda image: image.add_(1).div_(2)
    return same


def run_layer(layer: Any, x: Tensor) -> Tensor:
    """A layer of ComfyUI in the type of its input. It casts its weights by itself, wherever they
    are at the moment."""
    output: Tensor = (
        layer(x) if layer.weight.dtype == x.dtype else layer.forward_comfy_cast_weights(x)
    )
    return output


def load(
    vae: VAE, operations: list[Operation], size: Sequence[int], tiling: Tiling, dtype: torch.dtype
) -> list[Parking]:
    """Load the VAE and choose where its maps may wait, the preferred place first.

    Args:
        size: height and width of the network's input.
        dtype: to compute in.

    Raises:
        BIRError: they do not fit; nothing was computed yet.
    """
    height, width = size
    types = DTYPES[tiling.parking_dtype]
    working = working_bytes(operations, tiling.size, dtype)
    on_device = tiling.parking == "device"
    parked = parked_bytes(operations, height, width, types[0]) if on_device else 0
    services.load_patcher(vae.patcher, working + parked)
    use_device = tiling.parking != "host" or vae.device.type == "cpu"
    free_device = services.free_memory(vae.device) if use_device else 0
    free_host = 0 if on_device else services.free_memory(CPU)
    folder = files_folder() if tiling.parking == "automatic" else None
    parkings = fitting_parkings(
        operations,
        height,
        width,
        tile=tiling.size,
        device=vae.device,
        dtype=dtype,
        free_device=int(free_device),
        free_host=int(free_host),
        folder=folder,
        disk=0 if folder is None else free_disk(folder),
        parked_types=types,
    )
    if not parkings:
        needed = parked_bytes(operations, height, width, types[-1]) + working
        raise too_little_memory(needed, max(free_device, free_host))
    first = parkings[0]
    logger.info(
        "Tiled VAE: %.2f GB of maps %s, tiles of %d pixels",
        parked_bytes(operations, height, width, first.dtype) / GIGABYTE,
        *(first, tiling.size),
    )
    return parkings


def decode(vae: VAE, latents: Tensor, tiling: Tiling) -> Tensor:
    """Latents (B, 4, h, w) without latent scale to images (B, 8 h, 8 w, 3) in [0, 1], or not if the
    VAE is `unclamped`, equal to the VAE on the whole latents. A VAE of another layout decodes them
    whole."""
    operations = exact_operations(vae, "decoder")
    if operations is None or latents.ndim != 4:
        return decode_whole(vae, latents)
    if latents.shape[1] != vae.latent_channels:
        raise BIRError(
            f"This VAE should get latents of {vae.latent_channels} channels, but "
            f"{latents.shape[1]} came; connect the VAE of the model that sampled them."
        )

    def of_one(latent: Tensor, dtype: torch.dtype, callback: Callback) -> Tensor:
        parkings = load(vae, operations, latent.shape[-2:], tiling, dtype)
        return decode_tiled(
            vae.first_stage_model,
            latent.to(vae.device, dtype),
            tile=tiling.size,
            parkings=parkings,
            callback=callback,
            call=run_layer,
        )

    pixels = _each(vae, latents, of_one, tiling, DECODED)
    return to_channels_last(vae.process_output(pixels))


def encode(vae: VAE, images: Tensor, tiling: Tiling) -> Tensor:
    """Images (B, H, W, 3) in [0, 1] to latents (B, 4, H / 8, W / 8) without latent scale, equal
    to the VAE on the whole images. A VAE of another layout encodes them whole."""
    operations = exact_operations(vae, "encoder")
    if operations is None:
        return encode_whole(vae, images)

    def of_one(pixels: Tensor, dtype: torch.dtype, callback: Callback) -> Tensor:
        parkings = load(vae, operations, pixels.shape[-2:], tiling, dtype)
        return encode_tiled(
            vae.first_stage_model,
            vae.process_input(pixels).to(vae.device, dtype),
            tile=tiling.size,
            parkings=parkings,
            callback=callback,
            call=run_layer,
        )

    pixels = from_channels_last(vae.vae_encode_crop_pixels(images))
    return _each(vae, pixels, of_one, tiling, ENCODED)


def _each(
    vae: VAE,
    batch: Tensor,
    of_one: Callable[[Tensor, torch.dtype, Callback], Tensor],
    tiling: Tiling,
    what: str,
) -> Tensor:
    """One after the other, so that none depends on the batch nor needs its memory; what overflows
    in half precision is repeated in float32."""
    progress = services.batch_progress(len(batch))
    dtype = vae.vae_dtype if tiling.precision == AS_THE_VAE else torch.float32
    results = []

    def run(index: int, dtype: torch.dtype) -> Tensor:
        result = of_one(batch[index : index + 1], dtype, progress(index))
        require_finite(result, what)
        return result.float().to(vae.output_device)

    with services.device_of(vae.device):
        for index in range(len(batch)):
            wide = None if dtype == torch.float32 else partial(run, index, torch.float32)
            results.append(or_in_float32(partial(run, index, dtype), wide, dtype))
    return torch.cat(results)


def decode_whole(vae: VAE, latents: Tensor) -> Tensor:
    """As `decode`, by ComfyUI's own code. Frames of a video become images."""

    def decoded() -> Tensor:
        pictures = vae.decode(latents).float()
        return pictures.flatten(0, 1) if pictures.ndim == 5 else pictures

    return _whole(
        vae,
        "decoder",
        DECODED,
        decoded,
        lambda tiling: decode(vae, latents, tiling),
    )


def encode_whole(vae: VAE, images: Tensor) -> Tensor:
    """As `encode`, by ComfyUI's own code."""
    return _whole(
        vae,
        "encoder",
        ENCODED,
        lambda: vae.encode(images).float(),
        lambda tiling: encode(vae, images, tiling),
    )


def _whole(
    vae: VAE, half: str, what: str, whole: Callable[[], Tensor], tiled: Callable[[Tiling], Tensor]
) -> Tensor:
    """What ComfyUI's own code gives. Where the memory runs out, in its own tiles as well, or half
    precision overflows, exact tiles are tried, if the VAE can be cut into them."""

    def attempts() -> Iterator[Attempt[Tensor]]:
        yield "", whole
        if exact_operations(vae, half) is not None:
            yield "the VAE goes on in exact tiles", lambda: tiled(Tiling())

    def run() -> Tensor:
        result = first_that_fits(
            attempts(),
            f"The {half} of the VAE should find memory for the picture, but it ran out; close "
            "other programs, or take a smaller picture.",
        )
        require_finite(result, what)
        return result

    if vae.vae_dtype == torch.float32 or exact_operations(vae, half) is None:
        return run()
    return or_in_float32(run, lambda: tiled(FLOAT32), vae.vae_dtype)
