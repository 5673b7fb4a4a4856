"""The image that IRControlNet is conditioned on, and its latents.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import threading
from dataclasses import dataclass, field

import comfy.model_management
from torch import Tensor

from ...bir_core.errors import BIRError
from ...bir_core.images import ResizeMode, resize, to_channels_last
from ...bir_core.latents import LATENT_FACTOR
from ...bir_core.networks.ir_controlnet import HINT_CHANNELS
from .protocols import VAE
from .vae import encode_whole


@dataclass
class Hint:
    """The image that a restoration is conditioned on, and its latents at the sizes asked for.

    Shared by the copies of a control net on several devices, which ask for it from threads.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        latents: unscaled, by (height, width), kept on the CPU.
    """

    image: Tensor
    vae: VAE
    latents: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of_images(self, images: slice) -> "Hint":
        """Of a part of the batch."""
        latents = {size: latent[images] for size, latent in self.latents.items()}
        return Hint(self.image[images], self.vae, latents)

    def latent(self, height: int, width: int, mode: ResizeMode) -> Tensor:
        """The mode of the VAE's encoding of the image, resized to fit a latent (height, width)."""
        with self.lock:
            if (height, width) not in self.latents:
                size = (height * LATENT_FACTOR, width * LATENT_FACTOR)
                image = self.image
                if tuple(image.shape[-2:]) != size:
                    require_same_aspect(tuple(image.shape[-2:]), size)
                    image = resize(image, *size, mode).clamp(0, 1)
                in_use = comfy.model_management.loaded_models(only_currently_used=True)
                self.latents[height, width] = encode(self.vae, image)
                comfy.model_management.load_models_gpu(in_use)
            return self.latents[height, width]


def encode(vae: VAE, image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the mode of its latent, (B, 4, H / 8, W / 8), unscaled, on the CPU.

    The VAE's own fallback to tiles applies when the memory runs out.
    """
    return encode_whole(vae, to_channels_last(image)).cpu()


def require_same_aspect(image: tuple[int, ...], picture: tuple[int, int]) -> None:
    """Raise BIRError if resizing an image to a picture would stretch it by more than a pixel of the
    latent. Sizes are (height, width) in pixels."""
    height = image[0] * picture[1] / image[1]
    width = image[1] * picture[0] / image[0]
    if abs(height - picture[0]) > LATENT_FACTOR and abs(width - picture[1]) > LATENT_FACTOR:
        raise BIRError(
            f"The condition image of {image[0]} x {image[1]} pixels (height x width) should have "
            f"the proportions of the sampled picture, {picture[0]} x {picture[1]}, but has others; "
            "use the latent that DiffBIR Conditioning gives, or one of the image's size."
        )


def require_vae(vae: VAE | None) -> VAE:
    """The VAE itself. Raise BIRError unless its latents are like those of Stable Diffusion."""
    if vae is None:
        raise BIRError(
            "IRControlNet should have a VAE to encode its condition image, but none came; connect "
            "the VAE of the base model to Apply ControlNet or to Load DiffBIR ControlNet."
        )
    channels, compression = vae.latent_channels, vae.spacial_compression_encode()
    if (channels, compression) != (HINT_CHANNELS, LATENT_FACTOR):
        raise BIRError(
            f"This node should have a VAE with {HINT_CHANNELS} channels at 1/{LATENT_FACTOR} of "
            f"the size, as Stable Diffusion 1, 2 and XL have, but one with {channels} channels at "
            f"1/{compression} came; connect the VAE of the base model."
        )
    return vae
