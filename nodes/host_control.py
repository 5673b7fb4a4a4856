"""IRControlNet as a CONTROL_NET: the part of the host that deals with ComfyUI's ControlNets.

Like `host.py` it uses parts of ComfyUI without a promise of stability.

ComfyUI's own ControlNet network computes it: its first convolution sees the noisy latent joined to
the condition, and a convolution of joined channels is the sum of the convolutions of each. So the
weights of the condition's channels become the network's hint block, which is added in that place.
"""

import logging
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.cldm.cldm
import comfy.conds
import comfy.controlnet
import comfy.latent_formats
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import folder_paths
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import Tensor

from ..bir_core.conditioning import augment_condition, condition_parts, control_memory
from ..bir_core.errors import BIRError
from ..bir_core.images import resize, split_alpha, to_channels_last
from ..bir_core.networks.ir_controlnet import HINT_CHANNELS
from ..bir_core.networks.unet import UNetConfig
from .host_vae import encode_whole

# Where a conditioning tells the control net which part of the latent it is for.
AREA = "bir_area"
# Where tiled sampling tells it, in transformer_options: a list of (y, x, height, width) in latent
# pixels, (y, x) the tile's corner in a latent of (height, width); the samples of a call lie tile by
# tile.
WINDOW = "bir_window"
COMPRESSION = 8  # pixels of the image per pixel of the latent
ZERO_SNR_SIGMA = 100.0  # the plain schedule of Stable Diffusion ends at 14.6, zero SNR at 4519
FP8 = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
LOAD_BASE = "load Stable Diffusion 2.1 base, or DiffBIR's zero-SNR base for v2.1"
logger = logging.getLogger(__name__)


def control_names() -> list[str]:
    """Files of models/controlnet."""
    names: list[str] = folder_paths.get_filename_list("controlnet")
    return names


def control_path(name: str) -> str:
    path: str = folder_paths.get_full_path_or_raise("controlnet", name)
    return path


class AreaOffset(comfy.conds.CONDConstant):
    """Tells the control net where the area of a conditioning begins, which ComfyUI keeps to itself.

    `cond` holds one (y, x) in latent pixels for each conditioning of a batched call.
    """

    def process_cond(self, batch_size: int, area: list[int] | None = None, **_: Any) -> Any:
        return self._copy_with([(0, 0) if area is None else (area[2], area[3])])

    def can_concat(self, other: Any) -> bool:
        return True

    def concat(self, others: list[Any]) -> list[tuple[int, int]]:
        return [corner for each in (self, *others) for corner in each.cond]


@dataclass
class Hint:
    """The image that a restoration is conditioned on, and its latents at the sizes asked for.

    Shared by the copies of a control net on several devices, which ask for it from threads.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        latents: unscaled, by (height, width), kept on the CPU.
    """

    image: Tensor
    vae: Any
    latents: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.Lock)

    def latent(self, height: int, width: int, mode: Any) -> Tensor:
        """The mode of the VAE's encoding of the image, resized to fit a latent (height, width)."""
        with self.lock:
            if (height, width) not in self.latents:
                size = (height * COMPRESSION, width * COMPRESSION)
                image = self.image
                if tuple(image.shape[-2:]) != size:
                    require_same_aspect(tuple(image.shape[-2:]), size)
                    image = resize(image, *size, mode).clamp(0, 1)
                in_use = comfy.model_management.loaded_models(only_currently_used=True)
                self.latents[height, width] = encode(self.vae, image)
                comfy.model_management.load_models_gpu(in_use)
            return self.latents[height, width]


def encode(vae: Any, image: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the mode of its latent, (B, 4, H / 8, W / 8), unscaled, on the CPU.

    The VAE's own fallback to tiles applies when the memory runs out.
    """
    return encode_whole(vae, to_channels_last(image)).cpu()


def require_same_aspect(image: tuple[int, ...], picture: tuple[int, int]) -> None:
    """Raise BIRError if resizing an image to a picture would stretch it by more than a pixel of the
    latent. Sizes are (height, width) in pixels."""
    height = image[0] * picture[1] / image[1]
    width = image[1] * picture[0] / image[0]
    if abs(height - picture[0]) > COMPRESSION and abs(width - picture[1]) > COMPRESSION:
        raise BIRError(
            f"The condition image of {image[0]} x {image[1]} pixels (height x width) should have "
            f"the proportions of the sampled picture, {picture[0]} x {picture[1]}, but has others; "
            "use the latent that DiffBIR Conditioning gives, or one of the image's size."
        )


def require_vae(vae: Any) -> None:
    """Raise BIRError unless this is a VAE of Stable Diffusion's latent space."""
    if vae is None:
        raise BIRError(
            "IRControlNet should have a VAE to encode its condition image, but none came; connect "
            "the VAE of the base model to Apply ControlNet or to Load DiffBIR ControlNet."
        )
    channels, compression = vae.latent_channels, vae.spacial_compression_encode()
    if (channels, compression) != (HINT_CHANNELS, COMPRESSION):
        raise BIRError(
            f"IRControlNet should have a VAE with {HINT_CHANNELS} channels at 1/{COMPRESSION} of "
            f"the size, but one with {channels} channels at 1/{compression} came; connect the VAE "
            "of Stable Diffusion 2.1."
        )


class IRControlNet(comfy.controlnet.ControlNet):
    """DiffBIR's control net, for every sampler and for the stock Apply ControlNet.

    Attributes:
        config: sizes of the network.
        zero_snr: whether it was trained on the zero-SNR v-prediction base, None if unknown.
        hint: the image that conditions it.
        condition: the scaled latent of `hint` at the size of the picture, while it is sampled.
        noise_aug: timestep up to which noise is added to the condition; 0 adds none.
        seed: of that noise.
        own_vae: the loader's, for an Apply ControlNet without one.
        largest: (height, width) in latent pixels of what it gets at a time, while memory is planned
            for a picture in tiles; None for the whole picture.
    """

    def __init__(
        self,
        network: Any,
        config: UNetConfig,
        *,
        zero_snr: bool | None = None,
        own_vae: Any = None,
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
        self.zero_snr = zero_snr
        self.own_vae = own_vae
        self.hint: Hint | None = None
        self.condition: Tensor | None = None
        self.noise_aug = 0
        self.seed = 0
        self.largest: tuple[int, int] | None = None

    def copy(self) -> "IRControlNet":
        # The host's method would return a plain ControlNet.
        c = IRControlNet(
            None,
            self.config,
            zero_snr=self.zero_snr,
            own_vae=self.own_vae,
            load_device=self.load_device,
            manual_cast_dtype=self.manual_cast_dtype,
        )
        c.control_model = self.control_model
        c.control_model_wrapped = self.control_model_wrapped
        self.copy_to(c)
        c.hint, c.noise_aug, c.seed = self.hint, self.noise_aug, self.seed
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

    def set_cond_hint(
        self,
        cond_hint: Tensor,
        strength: float = 1.0,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
        vae: Any = None,
        extra_concat: list[Tensor] | tuple[()] = (),
    ) -> "IRControlNet":
        """cond_hint: (B, C, H, W) in [0, 1]; an alpha channel is left out."""
        vae = vae or self.own_vae
        require_vae(vae)
        super().set_cond_hint(cond_hint, strength, timestep_percent_range, vae, list(extra_concat))
        self.hint = Hint(split_alpha(cond_hint.float())[0], vae)
        return self

    def set_encoded_hint(
        self,
        image: Tensor,
        latent: Tensor,
        vae: Any,
        strength: float,
        timestep_percent_range: tuple[float, float] = (0.0, 1.0),
    ) -> "IRControlNet":
        """As `set_cond_hint`, with the latent of the image, so that nothing is encoded again unless
        another size is sampled."""
        self.set_cond_hint(image, strength, timestep_percent_range, vae)
        assert self.hint is not None
        self.hint.latents[latent.shape[-2], latent.shape[-1]] = latent
        return self

    def pre_run(self, model: Any, percent_to_timestep_function: Any) -> None:
        """Before the first step: check the base model and encode the condition for the picture."""
        super().pre_run(model, percent_to_timestep_function)
        if self.condition is not None:
            return  # called before, for another conditioning with this control net
        require_base(model, self.config)
        warn_of_other_base(model.model_sampling, self.zero_snr)
        height, width = model.latent_shapes[0][-2:]
        assert self.hint is not None
        latent = self.hint.latent(height, width, self.upscale_algorithm)
        condition = self.latent_format.process_in(latent)
        if self.noise_aug:
            sigma = float(model.model_sampling.sigmas[self.noise_aug])
            condition = augment_condition(condition, 1 / (1 + sigma**2), self.seed)
        self.condition = condition

    def get_control(
        self,
        x_noisy: Tensor,
        t: Tensor,
        cond: Mapping[str, Any],
        batched_number: int,
        transformer_options: Mapping[str, Any],
    ) -> Any:
        previous = None
        if self.previous_controlnet is not None:
            previous = self.previous_controlnet.get_control(
                x_noisy, t, cond, batched_number, transformer_options
            )
        start, end = self.timestep_range
        if t[0] > start or t[0] < end:
            return previous
        dtype = self.computing_type
        hint = self.hint_of_call(x_noisy, cond, batched_number, transformer_options)
        sampling = self.model_sampling_current
        context = cond.get("crossattn_controlnet", cond["c_crossattn"])
        control = self.control_model(
            x=sampling.calculate_input(t, x_noisy).to(dtype),
            hint=hint.to(device=x_noisy.device, dtype=dtype),
            # Not in the type of the weights, as in the host: bfloat16 would turn 999 into 1000.
            timesteps=sampling.timestep(t).float(),
            context=comfy.model_management.cast_to_device(context, x_noisy.device, dtype),
        )
        return self.control_merge(control, previous, output_dtype=None)

    def hint_of_call(
        self,
        x_noisy: Tensor,
        cond: Mapping[str, Any],
        batched_number: int,
        transformer_options: Mapping[str, Any],
    ) -> Tensor:
        """The parts of the condition that belong to the samples of one call of the network: the
        conditioning's areas, within them the tiles, within these the batch."""
        assert self.condition is not None
        full = tuple(self.condition.shape[-2:])
        size = tuple(x_noisy.shape[-2:])
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
        return condition_parts(self.condition, corners, *size, count)

    def inference_memory_requirements(self, dtype: torch.dtype) -> float:
        # The picture's size is not passed on here; the hint has that of the whole picture.
        chain: float = super().inference_memory_requirements(dtype)
        assert self.hint is not None
        batch, _, height, width = self.hint.image.shape
        itemsize = self.computing_type.itemsize
        size = (height // COMPRESSION, width // COMPRESSION)
        if self.largest is not None:
            size = (min(size[0], self.largest[0]), min(size[1], self.largest[1]))
        # Twice the batch: with and without the prompt.
        return chain + control_memory(self.config, 2 * batch, *size, itemsize)

    def cleanup(self) -> None:
        super().cleanup()
        self.condition = None


def require_base(model: Any, config: UNetConfig) -> None:
    """Raise BIRError unless `model` is a base that an IRControlNet of this config can steer."""
    unet = model.model_config.unet_config
    found = f"{type(model.model_config).__name__} model"
    if unet.get("context_dim") != config.context_dim or unet.get("adm_in_channels"):
        raise BIRError(
            f"IRControlNet should steer Stable Diffusion 2.1, but a {found} came; {LOAD_BASE}."
        )
    if not isinstance(model.model_sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise BIRError(
            "IRControlNet should see the 1000 trained timesteps of Stable Diffusion, but the "
            f"{found} was given another sampling; set ModelSamplingDiscrete to eps or v_prediction."
        )
    theirs = (unet["model_channels"], tuple(unet["channel_mult"]))
    ours = (config.model_channels, config.channel_mult)
    blocks = unet["num_res_blocks"]
    same_depth = set([blocks] if isinstance(blocks, int) else blocks) == {config.num_res_blocks}
    if theirs != ours or not same_depth:
        raise BIRError(
            f"IRControlNet should have the blocks of the base model, {theirs[0]} channels times "
            f"{theirs[1]}, but has {ours[0]} times {ours[1]} or another depth; {LOAD_BASE}."
        )


def warn_of_other_base(sampling: Any, zero_snr: bool | None) -> None:
    """Say in the log that the network was trained on another base than it is used with."""
    is_v = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    is_zero_snr = float(sampling.sigma_max) > ZERO_SNR_SIGMA
    if zero_snr and not (is_v and is_zero_snr):
        logger.warning(
            "DiffBIR v2.1 expects a v-prediction base with zero terminal SNR, but the base is set "
            "to %s without it: load the authors' zero-SNR base and put the node "
            "ModelSamplingDiscrete (v_prediction, zsnr on) between it and the sampler.",
            "v-prediction" if is_v else "eps",
        )
    if zero_snr is False and (is_v or is_zero_snr):
        logger.warning(
            "DiffBIR v1 and v2 expect an eps base with the plain schedule, but the base is set to "
            "v-prediction or zero terminal SNR: load Stable Diffusion 2.1 base, or put the node "
            "ModelSamplingDiscrete (eps, zsnr off) between it and the sampler."
        )


def build_control_net(
    config: UNetConfig,
    weights: Mapping[str, Tensor],
    *,
    weight_dtype: str = "default",
    zero_snr: bool | None = None,
    vae: Any = None,
) -> IRControlNet:
    """A CONTROL_NET from the weights of `bir_core.networks.ir_controlnet.IRControlNet`.

    Args:
        weight_dtype: "default" lets ComfyUI choose by the device and the file; "fp8_e4m3fn" and
            "fp8_e5m2" store a byte per weight and compute in a wider type.
        zero_snr: see `IRControlNet`.
        vae: used where Apply ControlNet has none.
    """
    if vae is not None:
        require_vae(vae)
    management = comfy.model_management
    device = management.get_torch_device()
    stored = next(iter(weights.values())).dtype
    dtype = FP8.get(weight_dtype) or management.unet_dtype(model_params=-1, weight_dtype=stored)
    manual_cast = management.unet_manual_cast(dtype, device)
    operations = comfy.ops.pick_operations(dtype, manual_cast, disable_fast_fp8=True)
    network = control_network(config, operations, dtype, management.unet_offload_device())
    # Cast here: with its dynamic memory on, ComfyUI's layers keep the type that they are given.
    cast = {name: value.to(dtype) for name, value in weights.items()}
    network.load_state_dict(split_first_convolution(cast, config.in_channels), strict=True)
    return IRControlNet(
        network.eval().requires_grad_(False),
        config,
        zero_snr=zero_snr,
        own_vae=vae,
        load_device=device,
        manual_cast_dtype=manual_cast,
    )


def control_network(
    config: UNetConfig, operations: Any, dtype: torch.dtype, device: torch.device
) -> comfy.cldm.cldm.ControlNet:
    """ComfyUI's ControlNet network in the sizes of an IRControlNet, not yet with weights."""
    attention = [
        int(1 << level in config.attention_resolutions)
        for level in range(len(config.channel_mult))
        for _ in range(config.num_res_blocks)
    ]
    placement = {"dtype": dtype, "device": device}
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=config.in_channels,
        model_channels=config.model_channels,
        hint_channels=HINT_CHANNELS,
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        num_head_channels=config.num_head_channels,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        transformer_depth=attention,
        transformer_depth_middle=1,
        context_dim=config.context_dim,
        legacy=False,
        attn_precision=torch.float32,  # as the host has it for Stable Diffusion 2
        operations=operations,
        **placement,
    )
    network.input_hint_block = TimestepEmbedSequential(
        operations.conv_nd(2, HINT_CHANNELS, config.model_channels, 3, padding=1, **placement)
    )
    return network


def split_first_convolution(weights: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """The weights under ComfyUI's names: what the first convolution does with the condition's
    channels becomes the hint block, whose bias stays with the noisy latent's part."""
    first = "input_blocks.0.0.weight"
    weight = weights[first]
    return {
        **weights,
        first: weight[:, :in_channels],
        "input_hint_block.0.weight": weight[:, in_channels:],
        "input_hint_block.0.bias": torch.zeros_like(weights["input_blocks.0.0.bias"]),
    }


def attach_control(conditionings: Sequence[list[Any]], control: IRControlNet) -> list[list[Any]]:
    """The CONDITIONINGs with the control net at the end of each entry's chain of control nets.

    Entries with the same chain share one object, so that ComfyUI can run them in one batch.
    """
    chained: dict[Any, IRControlNet] = {}

    def extended(entry: Any) -> list[Any]:
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
