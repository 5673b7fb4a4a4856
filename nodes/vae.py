"""VAE encode and decode in tiles that equal the whole, and the memory for it."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ..bir_core.errors import BIRError
from ..bir_core.exact_tiled_vae import choose_parking, decode_tiled, encode_tiled
from ..bir_core.images import (
    from_channels_last,
    require_finite,
    split_alpha,
    to_channels_last,
)
from ..bir_core.networks.autoencoder_operations import (
    Operation,
    decoder_operations,
    encoder_operations,
    parked_bytes,
    working_bytes,
)
from ..bir_core.networks.autoencoder_tiled import Parking
from . import host

logger = logging.getLogger(__name__)
PLACES = ("automatic", "device", "host")
DTYPES = {
    "automatic": (torch.float32, torch.float16),
    "float32": (torch.float32,),
    "float16": (torch.float16,),
}
DEFAULT_TILE = 512
SMALLEST_TILE = 64


def exact_operations(vae: Any, half: str) -> list[Operation] | None:
    """What the encoder or the decoder of a VAE does; None for a VAE of another layout than that of
    Stable Diffusion, which runs whole by its own code."""
    network = vae.first_stage_model
    part = getattr(network, half, None)
    if part is None or getattr(network, "bn", None) is not None:
        return None
    try:
        return decoder_operations(part) if half == "decoder" else encoder_operations(part)
    except BIRError as reason:
        logger.info("VAE: %s", reason)
        return None


def _load(
    vae: Any, operations: list[Operation], size: tuple[int, int], tile: int, place: str, dtype: str
) -> Parking:
    """Load the VAE and choose where its maps wait.

    Args:
        size: height and width of the network's input.

    Raises:
        BIRError: they do not fit; nothing was computed yet.
    """
    height, width = size
    preferred, *_ = DTYPES[dtype]
    working = working_bytes(operations, tile, vae.vae_dtype)
    parked = parked_bytes(operations, height, width, preferred) if place == "device" else 0
    host.load_patcher(vae.patcher, working + parked)
    cpu = torch.device("cpu")
    allowed = {"automatic": (True, True), "device": (True, False), "host": (False, True)}[place]
    on_cpu = vae.device.type == "cpu"
    parking = choose_parking(
        operations,
        height,
        width,
        tile=tile,
        device=vae.device,
        dtype=vae.vae_dtype,
        free_device=int(host.free_memory(vae.device)) if allowed[0] or on_cpu else 0,
        free_host=int(host.free_memory(cpu)) if allowed[1] else 0,
        parked_types=DTYPES[dtype],
    )
    logger.info(
        "Tiled VAE: %.2f GB of maps on %s in %s, tiles of %d pixels",
        parked_bytes(operations, height, width, parking.dtype) / 1e9,
        *(parking.device, parking.dtype, tile),
    )
    return parking


def decode(
    vae: Any, latents: Tensor, tile: int, place: str = "automatic", dtype: str = "automatic"
) -> Tensor:
    """Latents (B, 4, h, w) without latent scale to images (B, 8 h, 8 w, 3) in [0, 1], equal to
    the VAE on the whole latents. A VAE of another layout decodes them whole."""
    operations = exact_operations(vae, "decoder")
    if operations is None:
        images: Tensor = vae.decode(latents)
        return images

    def of_one(latent: Tensor, callback: Callable[[int, int], None]) -> Tensor:
        parking = _load(vae, operations, latent.shape[-2:], tile, place, dtype)
        x = latent.to(vae.device, vae.vae_dtype)
        pixels = decode_tiled(
            vae.first_stage_model, x, tile=tile, parking=parking, callback=callback
        )
        picture: Tensor = vae.process_output(pixels.float())
        return picture

    return to_channels_last(_each(vae, latents, of_one, "The image from the VAE"))


def encode(
    vae: Any, images: Tensor, tile: int, place: str = "automatic", dtype: str = "automatic"
) -> Tensor:
    """Images (B, H, W, 3) in [0, 1] to latents (B, 4, H / 8, W / 8) without latent scale, equal
    to the VAE on the whole images. A VAE of another layout encodes them whole."""
    operations = exact_operations(vae, "encoder")
    if operations is None:
        latents: Tensor = vae.encode(images)
        return latents

    def of_one(pixels: Tensor, callback: Callable[[int, int], None]) -> Tensor:
        parking = _load(vae, operations, pixels.shape[-2:], tile, place, dtype)
        x = vae.process_input(pixels).to(vae.device, vae.vae_dtype)
        return encode_tiled(
            vae.first_stage_model, x, tile=tile, parking=parking, callback=callback
        ).float()

    pixels = from_channels_last(vae.vae_encode_crop_pixels(images))
    return _each(vae, pixels, of_one, "The latent from the VAE")


def _each(
    vae: Any,
    batch: Tensor,
    of_one: Callable[[Tensor, Callable[[int, int], None]], Tensor],
    what: str,
) -> Tensor:
    """One after the other, so that none depends on the batch nor needs its memory."""
    progress = host.batch_progress(len(batch))
    results = []
    with host.device_of(vae.device):
        for index in range(len(batch)):
            result = of_one(batch[index : index + 1], progress(index))
            require_finite(result, what)
            results.append(result.to(vae.output_device))
    return torch.cat(results)


def _settings() -> list[io.Input]:
    return [
        io.Int.Input(
            "tile_size",
            default=DEFAULT_TILE,
            min=SMALLEST_TILE,
            max=4096,
            step=64,
            tooltip="Side of a tile in pixels. Smaller tiles need less memory on the device; the "
            "result does not depend on it.",
        ),
        io.Combo.Input(
            "parking",
            options=list(PLACES),
            default="automatic",
            optional=True,
            advanced=True,
            tooltip="Where the full maps wait between two steps. device: fastest. host: the "
            "computer's main memory. automatic: the device if they fit there.",
        ),
        io.Combo.Input(
            "parking_dtype",
            options=list(DTYPES),
            default="automatic",
            optional=True,
            advanced=True,
            tooltip="Numbers of the parked maps. float32: exact. float16: half the memory, with "
            "errors of about an eighth of an 8-bit step. automatic: float32 if it fits.",
        ),
    ]


class BIRVAEDecodeTiled(io.ComfyNode):
    """Latents to images, tile by tile, without seams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRVAEDecodeTiled",
            display_name="VAE Decode (Tiled, Exact)",
            category="model/latent",
            description=(
                "Decodes a latent of any size tile by tile. The result equals the VAE on the "
                "whole latent: no seams and no shift of colours between tiles."
            ),
            search_aliases=["tiled vae", "vae decode tiled", "decode large image", "exact vae"],
            inputs=[
                io.Latent.Input("samples", tooltip="The latent to decode."),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE of Stable Diffusion. Other image VAEs decode the latent "
                    "whole, as VAE Decode does.",
                ),
                *_settings(),
            ],
            outputs=[io.Image.Output(tooltip="The decoded image.")],
        )

    @classmethod
    def execute(
        cls,
        samples: dict[str, Any],
        vae: Any,
        tile_size: int,
        parking: str = "automatic",
        parking_dtype: str = "automatic",
    ) -> io.NodeOutput:
        images = decode(vae, samples["samples"], tile_size, parking, parking_dtype)
        return io.NodeOutput(host.to_output(images))


class BIRVAEEncodeTiled(io.ComfyNode):
    """Images to latents, tile by tile, without seams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="BIRVAEEncodeTiled",
            display_name="VAE Encode (Tiled, Exact)",
            category="model/latent",
            description=(
                "Encodes an image of any size tile by tile. The result equals the VAE on the "
                "whole image."
            ),
            search_aliases=["tiled vae", "vae encode tiled", "encode large image", "exact vae"],
            inputs=[
                io.Image.Input(
                    "pixels",
                    tooltip="The image to encode. Sides that do not divide by 8 are cropped in the "
                    "middle, as VAE Encode does.",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE of Stable Diffusion. Other image VAEs encode the image "
                    "whole, as VAE Encode does.",
                ),
                *_settings(),
            ],
            outputs=[io.Latent.Output(tooltip="The encoded image.")],
        )

    @classmethod
    def execute(
        cls,
        pixels: Tensor,
        vae: Any,
        tile_size: int,
        parking: str = "automatic",
        parking_dtype: str = "automatic",
    ) -> io.NodeOutput:
        height, width = pixels.shape[1:3]
        if min(height, width) < 8:
            raise BIRError(
                "An image for the VAE should have at least 8 x 8 pixels, but "
                f"{width} x {height} came; enlarge or pad it."
            )
        colours, _ = split_alpha(from_channels_last(pixels))
        latents = encode(vae, to_channels_last(colours), tile_size, parking, parking_dtype)
        return io.NodeOutput({"samples": host.to_output(latents)})
