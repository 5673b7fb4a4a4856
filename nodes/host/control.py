"""IRControlNet as a CONTROL_NET: the part of the host that deals with ComfyUI's ControlNets.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.conds
import comfy.controlnet
import comfy.latent_formats
import comfy.model_management
import torch
from torch import Tensor, nn

from ...bir_core.diffbir.conditioning import augment_condition, condition_parts
from ...bir_core.diffbir.masks import weigh
from ...bir_core.diffbir.network_memory import control_memory
from ...bir_core.diffusion.noise import Draws
from ...bir_core.diffusion.schedules import alphas_cumprod_from_sigmas
from ...bir_core.errors import BIRError
from ...bir_core.images import ResizeMode, resize, split_alpha
from ...bir_core.latents import LATENT_FACTOR
from ...bir_core.networks.unet import UNetConfig
from ...bir_core.seeds import image_seeds
from .base import other_base, require_base
from .hint import Hint, require_vae
from .node import spoken
from .protocols import (
    VAE,
    Conditioning,
    Control,
    ControlNet,
    DiffusionModel,
    LatentFormat,
    ModelSampling,
    Patcher,
)

# Where a conditioning tells the control net which part of the latent it is for.
AREA = "bir_area"
# Where tiled sampling tells it, in transformer_options: a list of (y, x, height, width) in latent
# pixels, (y, x) the tile's corner in a latent of (height, width); the samples of a call lie tile by
# tile.
WINDOW = "bir_window"
# Measured on the network of Stable Diffusion 2.1 at 512x512 with guidance, on one thread.
SLOWER_ATTENTION = (
    "ComfyUI computes attention on this CPU in pieces. Started with --use-pytorch-cross-attention "
    "it takes a quarter less time for a step, and a quarter of the memory beside the weights."
)
logger = logging.getLogger(__name__)


class AreaOffset(comfy.conds.CONDConstant):
    """Tells the control net where the area of a conditioning begins, which ComfyUI keeps to itself.

    `cond` holds one (y, x) in latent pixels for each conditioning of a batched call.
    """

    cond: list[tuple[int, int]]

    def process_cond(
        self, batch_size: int, area: list[int] | None = None, **_: object
    ) -> "AreaOffset":
        return AreaOffset([(0, 0) if area is None else (area[2], area[3])])

    def can_concat(self, other: "AreaOffset") -> bool:
        return True

    def concat(self, others: list["AreaOffset"]) -> list[tuple[int, int]]:
        return [corner for each in (self, *others) for corner in each.cond]


class IRControlNet(comfy.controlnet.ControlNet):
    """DiffBIR's control net, for every sampler and for the stock Apply ControlNet.

    Attributes:
        config: sizes of the network.
        version: the name of its version, which says the base it was trained on; None if unknown.
        hint: the image that conditions it.
        condition: the scaled latent of `hint` at the size of the picture, while it is sampled.
        factors: `share` at that size.
        noise_aug: timestep up to which noise is added to the condition; 0 adds none.
        seed: of that noise.
        share: (B or 1, 1, h, w) factor on the strength at each place of the picture, None for 1.
        own_vae: the loader's, for an Apply ControlNet without one.
        largest: (height, width) in latent pixels of what it gets at a time, while memory is planned
            for a picture in tiles; None for the whole picture.
    """

    # Inherited, where the checker of types does not see them.
    control_model_wrapped: Patcher
    latent_format: LatentFormat
    manual_cast_dtype: torch.dtype | None
    model_sampling_current: ModelSampling
    previous_controlnet: ControlNet | None
    timestep_percent_range: tuple[float, float]
    timestep_range: tuple[float, float]
    upscale_algorithm: ResizeMode

    def __init__(
        self,
        network: nn.Module | None,
        config: UNetConfig,
        *,
        version: str | None = None,
        own_vae: VAE | None = None,
        load_device: torch.device | None = None,
        manual_cast_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            network,
            compression_ratio=1,
            latent_format=comfy.latent_formats.SD15(),
            load_device=load_device,
            manual_cast_dtype=manual_cast_dtype,
            extra_conds=[],
        )
        self.upscale_algorithm = "bicubic"  # the host's nearest-exact would make blocks
        self.config = config
        self.version = version
        self.own_vae = own_vae
        self.hint: Hint | None = None
        self.condition: Tensor | None = None
        self.noise_aug = 0
        self.seed = 0
        self.share: Tensor | None = None
        self.factors: Tensor | None = None
        self.largest: tuple[int, int] | None = None

    def copy(self) -> "IRControlNet":
        # The host's method would return a plain ControlNet.
        c = IRControlNet(
            None,
            self.config,
            version=self.version,
            own_vae=self.own_vae,
            load_device=self.load_device,
            manual_cast_dtype=self.manual_cast_dtype,
        )
        c.control_model = self.control_model
        c.control_model_wrapped = self.control_model_wrapped
        self.copy_to(c)
        c.hint, c.noise_aug, c.seed, c.share = self.hint, self.noise_aug, self.seed, self.share
        return c

    @property
    def computing_type(self) -> torch.dtype:
        """What it computes in, which need not be the type of its weights."""
        dtype: torch.dtype = self.manual_cast_dtype or self.control_model.dtype
        return dtype

    def in_float32(self) -> "IRControlNet":
        """A copy that computes in float32, its weights cast layer by layer."""
        wide = self.copy()
        wide.manual_cast_dtype = torch.float32
        wide.control_model_wrapped = self.control_model_wrapped.clone()
        wide.control_model_wrapped.force_cast_weights = True
        # As ComfyUI does it for a MODEL: tells it that this clone has to be loaded anew.
        wide.control_model_wrapped.patches_uuid = uuid.uuid4()
        return wide

    @spoken
    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: VAE | None = None,
        extra_concat: list[Tensor] | tuple[()] = (),
    ) -> "IRControlNet":
        """cond_hint: (B, C, H, W) in [0, 1]; an alpha channel is left out."""
        vae = require_vae(vae or self.own_vae)
        super().set_cond_hint(cond_hint, strength, timestep_percent_range, vae, list(extra_concat))
        self.hint = Hint(split_alpha(cond_hint.float())[0], vae)
        return self

    def set_encoded_hint(
        self,
        image: Tensor,
        latent: Tensor,
        vae: VAE,
        strength: float,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
    ) -> "IRControlNet":
        """As `set_cond_hint`, with the latent of the image, so that nothing is encoded again unless
        another size is sampled."""
        self.set_cond_hint(image, strength, timestep_percent_range, vae)
        assert self.hint is not None
        self.hint.latents[latent.shape[-2], latent.shape[-1]] = latent
        return self

    @spoken
    def pre_run(
        self, model: DiffusionModel, percent_to_timestep_function: Callable[[float], float]
    ) -> None:
        """Before the first step: check the base model and encode the condition for the picture."""
        super().pre_run(model, percent_to_timestep_function)
        if self.condition is not None:
            return  # called before, for another conditioning with this control net
        require_base(model, self.config)
        on_cpu = comfy.model_management.get_torch_device().type == "cpu"
        if on_cpu and not comfy.model_management.pytorch_attention_enabled():
            logger.info(SLOWER_ATTENTION)
        doubt = other_base(model.model_sampling, self.version)
        if doubt is not None:
            logger.warning(doubt)
        height, width = model.latent_shapes[0][-2:]
        assert self.hint is not None
        latent = self.hint.latent(height, width, self.upscale_algorithm)
        condition = self.latent_format.process_in(latent)
        if self.noise_aug:
            sigma = model.model_sampling.sigmas[self.noise_aug].cpu().double()
            draws = Draws(image_seeds(self.seed, len(condition)))
            draws(condition)  # what a sampler with the same seed starts from
            condition = augment_condition(condition, alphas_cumprod_from_sigmas(sigma), draws)
        self.condition = condition
        if self.share is not None:
            self.factors = resize(self.share, height, width, "area")

    @spoken
    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: Mapping[str, Any],
        batched_number: int,
        transformer_options: Mapping[str, Any],
    ) -> Control | None:
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(
                x_noisy, t, cond, batched_number, transformer_options
            )
        if not self.is_active(t):
            return previous
        dtype = self.computing_type
        self.bring_to(x_noisy.device)
        assert self.condition is not None
        call = (x_noisy, cond, batched_number, transformer_options)
        hint = self.part_of_call(self.condition, *call)
        sampling = self.model_sampling_current
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        control = self.control_model(
            x=sampling.calculate_input(t, x_noisy).to(dtype),
            hint=hint.to(device=x_noisy.device, dtype=dtype),
            # Not in the type of the weights, as in the host: bfloat16 would turn 999 into 1000.
            timesteps=sampling.timestep(t).float(),
            context=comfy.model_management.cast_to_device(context, x_noisy.device, dtype),
        )
        if self.factors is not None:
            share = self.part_of_call(self.factors, *call)
            control = {
                place: [None if residual is None else weigh(residual, share) for residual in each]
                for place, each in control.items()
            }
        merged: Control = self.control_merge(control, previous, output_dtype=None)
        return merged

    def is_active(self, t: Tensor) -> bool:
        """Whether a level (B,) belongs to the part of the sampling that is controlled. It is not
        read where all of it is, since that waits for the device."""
        if self.timestep_percent_range == (0.0, 1.0):
            return True
        start, end = self.timestep_range
        return end <= float(t[0]) <= start

    def bring_to(self, device: torch.device) -> None:
        """Once, what is the same for all steps."""
        assert self.condition is not None
        self.condition = self.condition.to(device)
        self.factors = None if self.factors is None else self.factors.to(device)

    def part_of_call(
        self,
        whole: Tensor,
        x_noisy: Tensor,
        cond: Mapping[str, Any],
        batched_number: int,
        transformer_options: Mapping[str, Any],
    ) -> Tensor:
        """The parts of the condition, or of something else of the whole picture's size in latent
        pixels, that belong to the samples of one call of the network: the conditioning's areas,
        within them the tiles, within these the batch."""
        full, size = whole.shape[-2:], x_noisy.shape[-2:]
        windows = transformer_options.get(WINDOW)
        areas = cond.get(AREA)
        if size != full and windows is None and areas is None:
            raise BIRError(
                f"IRControlNet should know which part of the picture, {full[0]} x {full[1]} in "
                f"latent pixels, a conditioning area of {size[0]} x {size[1]} is, but Apply "
                "ControlNet does not pass it on; use DiffBIR Conditioning instead."
            )
        corners = [
            (window_y + area_y, window_x + area_x)
            for area_y, area_x in areas or [(0, 0)] * batched_number
            for window_y, window_x, *_ in windows or [(0, 0, *full)]
        ]
        count = x_noisy.shape[0] // len(corners)
        height, width = size
        return condition_parts(whole, corners, height, width, count)

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        # The picture's size is not passed on here; the hint has that of the whole picture.
        chain: float = super().inference_memory_requirements(dtype)
        assert self.hint is not None
        batch, _, height, width = self.hint.image.shape
        itemsize = self.computing_type.itemsize
        size = (height // LATENT_FACTOR, width // LATENT_FACTOR)
        if self.largest is not None:
            size = (min(size[0], self.largest[0]), min(size[1], self.largest[1]))
        # Twice the batch: with and without the prompt.
        return chain + control_memory(self.config, 2 * batch, *size, itemsize)

    def cleanup(self) -> None:
        super().cleanup()
        self.condition = self.factors = None


def require_ours(control_net: ControlNet) -> IRControlNet:
    """The control net itself. Raise BIRError unless it is an IRControlNet."""
    if not isinstance(control_net, IRControlNet):
        raise BIRError(
            "DiffBIR should be conditioned by an IRControlNet from Load DiffBIR ControlNet, but a "
            f"{type(control_net).__name__} came; use Apply ControlNet for that one."
        )
    return control_net


def attach_control(
    conditionings: Sequence[Conditioning], control: IRControlNet
) -> list[Conditioning]:
    """The CONDITIONINGs with the control net at the end of each entry's chain of control nets.

    Entries with the same chain share one object, so that ComfyUI can run them in one batch.
    """
    chained: dict[ControlNet | None, IRControlNet] = {}

    def extended(entry: list[Any]) -> list[Any]:
        embedding, options = entry
        previous = options.get("control")
        if previous not in chained:
            chained[previous] = control.copy()
            chained[previous].set_previous_controlnet(previous)
        return [
            embedding,
            {
                **options,
                "control": chained[previous],
                "control_apply_to_uncond": False,
                "model_conds": {**options.get("model_conds", {}), AREA: AreaOffset([(0, 0)])},
            },
        ]

    return [[extended(entry) for entry in conditioning] for conditioning in conditionings]
