"""Restoration guidance as a patch of a MODEL.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor

from ...bir_core.checkpoints.decoder_copy import copy_decoder
from ...bir_core.diffbir.network_memory import gradient_memory
from ...bir_core.diffusion.guidance import RestorationGuidance, guided, next_sigma
from ...bir_core.diffusion.schedules import TRAINED_STEPS
from ...bir_core.errors import BIRError
from ...bir_core.exact_vae.operations import decoder_operations
from ...bir_core.exact_vae.tiled import decode_with_gradient
from ...bir_core.fallbacks import Attempt, first_that_fits
from ...bir_core.latents import LATENT_FACTOR, PADDED_MULTIPLE
from ...bir_core.memory import CPU, USABLE
from ...bir_core.networks.autoencoder import SDVAE
from ...bir_core.tiling import SMALLEST_TILE, Tile, on_canvas
from . import services
from .node import spoken
from .protocols import VAE, DiffusionModel, LatentFormat, Model
from .vae import DEFAULT_TILE

KEY = "bir_guidance"
# ComfyUI's percent 0 and 1 are the timesteps 999 and 0, and both limits belong to the range.
LAST_TIMESTEP = TRAINED_STEPS - 1
MARGIN = 1e-3


@dataclass
class GuidancePatch:
    """A post-cfg function: guides the estimate at every evaluation of the model.

    Attributes:
        latent: (B, 4, h, w), the stage-1 image as a latent of the model, padded at the right and
            the bottom to a multiple of 64 pixels. A latent sampled without all of the padding
            takes its part.
        scale, at_any_size, repeats: as in `RestorationGuidance`.
        start_percent, end_percent: the part of the sampling, 0 to 1, in which it acts.
        weight: region weight at the resolution of the loss, None for the loss "mse".
        mask: (B or 1, 1, h, w) in [0, 1], None for guidance alike everywhere.
        image: (B, 3, 8 h, 8 w) in [-1, 1] for a loss on pixels, None for latents.
        vae: its decoder carries a loss on pixels.
        tile: side in pixels of the tiles in which the decoder is gone through there and back where
            the picture is larger; 0 for the whole picture. The result does not depend on it.
        place: the only part of the sampled latent that is guided, in latent pixels, whose images
            and latents the others are; None for all of it.
        wide: the decoder computes in float32, whatever type the VAE has.
    """

    latent: Tensor
    scale: float
    repeats: int
    start_percent: float
    end_percent: float
    at_any_size: bool = False
    weight: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None
    vae: VAE | None = None
    tile: int = DEFAULT_TILE
    wide: bool = False
    place: Tile | None = None
    # After the memory has run out: the side of a tile, and whether the decoder's maps wait on the
    # host even if the device seems to have room.
    _limit: int = 0
    _on_host: bool = False
    _decoder: SDVAE | None = None
    _fitted: dict[tuple[torch.Size, torch.device], list[RestorationGuidance]] = field(
        default_factory=dict
    )

    def attach(self, model: Model) -> Model:
        """A MODEL like `model`, guided.

        Raises:
            BIRError: a flow model, whose noise levels mean something else than those of diffusion.
        """
        if isinstance(model.get_model_object("model_sampling"), comfy.model_sampling.CONST):
            raise BIRError(
                "Restoration guidance should act on a diffusion model, such as Stable Diffusion 1, "
                "2 or XL, but a flow model came; leave the guidance out, or take another model."
            )
        patched = model.clone()
        patched.set_model_sampler_post_cfg_function(self)
        patched.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, self.clean_up)
        if self.vae is not None:
            beside = [*patched.get_additional_models_with_key(KEY), self.vae.patcher]
            patched.set_additional_models(KEY, beside)
            patched.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, self.reserve)
        return patched

    def reserve(
        self,
        executor: Callable[..., object],
        model: Model,
        noise_shape: Sequence[int],
        *args: object,
        **kwargs: object,
    ) -> object:
        """Ask for the memory of the way through the decoder beside that of the model: as so many
        more samples, because that is all that ComfyUI lets a patch say."""
        assert self.vae is not None
        height, width = (LATENT_FACTOR * side for side in self.latent.shape[-2:])
        needed, _ = gradient_memory(
            decoder_operations(self.vae.first_stage_model.decoder),
            (height, width),
            self.tile,
            USABLE * services.total_memory(self.vae.device),
            device=self.vae.device,
            dtype=self.computing_type,
        )
        sample = model.model.memory_required([1, *noise_shape[1:]])
        more = math.ceil(needed / sample)
        return executor(model, [noise_shape[0] + more, *noise_shape[1:]], *args, **kwargs)

    def clean_up(self, _: Model) -> None:
        """Called after every sampling, whatever its end."""
        self._decoder, self._limit, self._on_host = None, 0, False
        self._fitted.clear()

    @spoken
    def __call__(self, args: dict[str, Any]) -> Tensor:
        whole: Tensor = args["denoised"]
        denoised = whole if self.place is None else self.place.crop(whole)
        model: DiffusionModel = args["model"]
        sigma = args["sigma"].flatten()[0]
        schedule = args["model_options"]["transformer_options"]["sample_sigmas"]
        sigma_next = next_sigma(sigma, schedule)
        place = (denoised.shape, denoised.device)
        if place not in self._fitted:
            self._fitted[place] = self.fit(denoised, model.latent_format)
        # Where it always acts, no timestep need be read, which would wait for the device.
        always = self.start_percent == 0 and self.end_percent == 1
        timestep = 0.0 if always else trained_timestep(model.model_sampling.sigmas, sigma)

        def run() -> Tensor:
            # One by one: each comes out as if alone, in the memory of one decoding.
            results = [
                guided(
                    denoised[index : index + 1],
                    guidance,
                    sigma=sigma,
                    sigma_next=sigma_next,
                    timestep=timestep,
                )
                for index, guidance in enumerate(self._fitted[place])
            ]
            return torch.cat(results)

        picture = max(denoised.shape[-2:]) * LATENT_FACTOR

        def attempts() -> Iterator[Attempt[Tensor]]:
            yield "", run
            while self.vae is not None:
                side = self._side(picture)
                if side < picture and denoised.device != CPU and not self._on_host:
                    self._on_host = True
                    yield "maps of the guidance wait on the host", run
                elif side > SMALLEST_TILE:
                    self._limit, self._on_host = max(SMALLEST_TILE, side // 2), False
                    yield f"guidance goes on with tiles of {self._limit} pixels", run
                else:
                    return

        result = first_that_fits(
            attempts(),
            "Restoration guidance should find memory beside the model, for the space rgb that of a "
            "tile of the decoder with its gradients, but it ran out; choose the space latent, or "
            "take a smaller picture.",
        )
        if self.place is None:
            return result
        return on_canvas(result, self.place, *whole.shape[-2:])

    def _side(self, picture: int) -> int:
        """Of a tile for a picture whose longer side has `picture` pixels."""
        return min(self._limit or self.tile or picture, picture)

    def fit(self, denoised: Tensor, latent_format: LatentFormat) -> list[RestorationGuidance]:
        """The guidance of each image of a batch, on its device and at its size."""
        if denoised.ndim != 4 or denoised.shape[1] != self.latent.shape[1]:
            raise BIRError(
                f"Restoration guidance should act on latents of {self.latent.shape[1]} channels, "
                f"(B, C, h, w), but the model samples {tuple(denoised.shape)}; use it with a model "
                "for pictures, such as Stable Diffusion 1, 2 or XL, and connect the VAE of it."
            )
        height, width = denoised.shape[-2:]
        missing = (self.latent.shape[-2] - height, self.latent.shape[-1] - width)
        if not all(0 <= rows < PADDED_MULTIPLE // LATENT_FACTOR for rows in missing):
            raise BIRError(
                f"The image of the guidance should have {_pixels(width, height)} pixels as the "
                f"picture that is sampled, but it has {_pixels(*self.latent.shape[:-3:-1])} with "
                "its padding; give the image that the conditioning was made from."
            )
        return [
            self._of_image(index, denoised[index : index + 1], latent_format)
            for index in range(len(denoised))
        ]

    def _of_image(
        self, index: int, denoised: Tensor, latent_format: LatentFormat
    ) -> RestorationGuidance:
        height, width = denoised.shape[-2:]
        factor = 1 if self.image is None else LATENT_FACTOR

        def own(tensor: Tensor | None, factor: int) -> Tensor | None:
            if tensor is None:
                return None
            one = tensor[index % len(tensor)][None, :, : height * factor, : width * factor]
            return one.to(denoised.device, torch.float32)

        latent = own(self.latent, 1)
        assert latent is not None
        decode = None if self.image is None else self.decode(denoised.device, latent_format)
        return RestorationGuidance(
            latent=latent,
            scale=self.scale,
            at_any_size=self.at_any_size,
            weight=own(self.weight, factor),
            image=own(self.image, LATENT_FACTOR),
            decode=decode,
            start=LAST_TIMESTEP * (1 - self.start_percent) + 1 + MARGIN,
            stop=LAST_TIMESTEP * (1 - self.end_percent) + 1 - MARGIN,
            repeats=self.repeats,
            mask=own(self.mask, 1),
        )

    def decode(
        self, device: torch.device, latent_format: LatentFormat
    ) -> Callable[[Tensor], Tensor]:
        """From a latent of the model to pixels in [-1, 1], differentiable."""
        assert self.vae is not None
        if self._decoder is None:
            weights = self.vae.first_stage_model.state_dict()
            self._decoder = copy_decoder(weights, device=device, dtype=self.computing_type)
        decoder = self._decoder

        def decoded(latent: Tensor) -> Tensor:
            unscaled = latent_format.process_out(latent).to(self.computing_type)
            tile = self._limit or self.tile
            if tile and max(latent.shape[-2:]) * LATENT_FACTOR > tile:
                pixels = decode_with_gradient(
                    decoder,
                    unscaled,
                    tile=tile,
                    on_host=self._on_host,
                    callback=comfy.model_management.throw_exception_if_processing_interrupted,
                )
                return pixels.float()
            return decoder.decode(unscaled).float()

        return decoded

    @property
    def computing_type(self) -> torch.dtype:
        """Of the decoder."""
        assert self.vae is not None
        return torch.float32 if self.wide else self.vae.vae_dtype


def trained_timestep(sigmas: Tensor, sigma: Tensor) -> float:
    """The timestep 0 to 999 of a noise level, a scalar, nearest in the logarithm. Asking the model
    would not do: one with a continuous time, as Playground's, tells another number.

    Args:
        sigmas: (T,) ascending, of the model's sampling.
    """
    nearest = (sigmas.log() - sigma.to(sigmas).log()).abs().argmin()
    return float(nearest) * LAST_TIMESTEP / (len(sigmas) - 1)


def _pixels(width: int, height: int) -> str:
    """The size of a latent in pixels, in words."""
    return f"{width * LATENT_FACTOR} x {height * LATENT_FACTOR}"
