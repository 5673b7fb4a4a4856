"""From the weights of an IRControlNet to a CONTROL_NET.

Like `services.py` it uses parts of ComfyUI without a promise of stability.

ComfyUI's own ControlNet network computes it: its first convolution sees the noisy latent joined to
the condition, and a convolution of joined channels is the sum of the convolutions of each. So the
weights of the condition's channels become the network's hint block, which is added in that place.
"""

from collections.abc import Mapping
from typing import Any

import comfy.cldm.cldm
import comfy.model_management
import comfy.ops
import folder_paths
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from torch import Tensor

from ...bir_core.errors import BIRError, shown
from ...bir_core.networks.ir_controlnet import HINT_CHANNELS
from ...bir_core.networks.unet import UNetConfig
from .control import IRControlNet
from .hint import require_vae
from .protocols import VAE

FP8 = {"fp8_e4m3fn": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}


def control_names() -> list[str]:
    """Files of models/controlnet."""
    names: list[str] = folder_paths.get_filename_list("controlnet")
    return names


def control_path(name: str) -> str:
    """The file of a name that `control_names` gave."""
    path: str | None = folder_paths.get_full_path("controlnet", name)
    if path is None:
        raise BIRError(
            f"Expected the file {shown(name)} in models/controlnet, but it is not there; put it "
            "there or choose another one."
        )
    return path


def build_control_net(
    config: UNetConfig,
    weights: Mapping[str, Tensor],
    *,
    weight_dtype: str = "default",
    version: str | None = None,
    vae: VAE | None = None,
) -> IRControlNet:
    """A CONTROL_NET from the weights of `bir_core.networks.ir_controlnet.IRControlNet`.

    Args:
        weight_dtype: "default" lets ComfyUI choose by the device and the file; "fp8_e4m3fn" and
            "fp8_e5m2" store a byte per weight and compute in a wider type.
        version: see `IRControlNet`.
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
        version=version,
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
