"""VAE encode and decode in tiles that equal the whole."""

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..bir_core.errors import BIRError
from ..bir_core.images import from_channels_last, require_pixels, split_alpha, to_channels_last
from ..bir_core.tiling import SMALLEST_TILE
from .host import services
from .host.node import Node
from .host.protocols import VAE
from .host.vae import (
    AS_THE_VAE,
    DEFAULT_TILE,
    DTYPES,
    PLACES,
    PRECISIONS,
    Tiling,
    decode,
    encode,
    unclamped,
)
from .inputs import clamp_input


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
            "computer's main memory. automatic: the device if they fit there, and a file, "
            "slowly, where no memory holds them.",
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
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            default=AS_THE_VAE,
            optional=True,
            advanced=True,
            tooltip="What the tiles are computed in. float32: equal to the whole VAE in float32 to "
            "1e-4, also where its weights are stored in half precision. as the VAE: faster for a "
            "VAE in half precision, and off by its rounding.",
        ),
    ]


class BIRVAEDecodeTiled(Node):
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
                    tooltip="The VAE of Stable Diffusion (1, 2, XL, 3) or Flux. Others decode the "
                    "latent whole, as VAE Decode does.",
                ),
                *_settings(),
                clamp_input("Fix Colors has mended the picture"),
            ],
            outputs=[io.Image.Output(tooltip="The decoded image.")],
        )

    @classmethod
    def execute(
        cls,
        samples: dict[str, Any],
        vae: VAE,
        tile_size: int,
        parking: str = "automatic",
        parking_dtype: str = "automatic",
        precision: str = AS_THE_VAE,
        clamp: bool = True,
    ) -> io.NodeOutput:
        require_pixels(samples["samples"])
        tiling = Tiling(tile_size, precision, parking, parking_dtype)
        images = decode(vae if clamp else unclamped(vae), samples["samples"], tiling)
        return io.NodeOutput(services.to_output(images))


class BIRVAEEncodeTiled(Node):
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
                    tooltip="The VAE of Stable Diffusion (1, 2, XL, 3) or Flux. Others encode the "
                    "image whole, as VAE Encode does.",
                ),
                *_settings(),
            ],
            outputs=[io.Latent.Output(tooltip="The encoded image.")],
        )

    @classmethod
    def execute(
        cls,
        pixels: Tensor,
        vae: VAE,
        tile_size: int,
        parking: str = "automatic",
        parking_dtype: str = "automatic",
        precision: str = AS_THE_VAE,
    ) -> io.NodeOutput:
        height, width = pixels.shape[1:3]
        if min(height, width) < 8:
            raise BIRError(
                "An image for the VAE should have at least 8 x 8 pixels, but "
                f"{width} x {height} came; enlarge or pad it."
            )
        colours, _ = split_alpha(from_channels_last(pixels))
        tiling = Tiling(tile_size, precision, parking, parking_dtype)
        latents = encode(vae, to_channels_last(colours), tiling)
        return io.NodeOutput({"samples": services.to_output(latents)})
