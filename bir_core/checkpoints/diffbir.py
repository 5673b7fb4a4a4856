"""How to recognise the checkpoints of DiffBIR's networks and read their sizes from tensor shapes.

A network stands alone in its file, or beside others under a prefix: a Stable Diffusion checkpoint
holds `sd_unet`, `sd_vae` and `text_encoder`, a full file of DiffBIR v1 these and the other two.
"""

from math import isqrt

from ..errors import BIRError
from ..networks.autoencoder import VAEConfig
from ..networks.ir_controlnet import HINT_CHANNELS
from ..networks.swinir import SwinIRConfig
from ..networks.text_encoder import HEAD_WIDTH, TextEncoderConfig
from ..networks.unet import UNetConfig
from . import diffusers
from .keys import StateDict, count_modules, part

_MIDDLE = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
SWINIR_REQUIRED = (
    "conv_after_body.weight",
    "conv_before_upsample.0.weight",
    "conv_up1.weight",
    "conv_hr.weight",
    "patch_embed.norm.weight",
    "layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
    "layers.0.residual_group.blocks.0.mlp.fc1.weight",
)
IR_CONTROLNET_REQUIRED = ("input_blocks.0.0.weight", "zero_convs.0.0.weight", _MIDDLE)
# An ordinary ControlNet has all keys of an IRControlNet, and an encoder of its hint besides.
IR_CONTROLNET_ABSENT = ("input_hint_block.0.weight",)
SD_UNET_REQUIRED = ("input_blocks.0.0.weight", "output_blocks.0.0.in_layers.0.weight", _MIDDLE)
SD_VAE_REQUIRED = (
    "encoder.conv_in.weight",
    "encoder.down.0.block.0.conv1.weight",
    "decoder.conv_in.weight",
    "quant_conv.weight",
    "post_quant_conv.weight",
)
TEXT_ENCODER_REQUIRED = (
    "token_embedding.weight",
    "positional_embedding",
    "transformer.resblocks.0.attn.in_proj_weight",
    "ln_final.weight",
)
# Of CLIP, but not needed to embed texts.
_UNUSED_IN_TEXT = ("attn_mask", "logit_scale", "text_projection", "visual.")


def swinir_tensors(tensors: StateDict) -> StateDict:
    """The weights of the SwinIR alone, without the tables that follow from its sizes."""
    tables = ("attn_mask", "relative_position_index")
    own = part(tensors, "preprocess_model.")
    return {name: value for name, value in own.items() if not name.endswith(tables)}


def ir_controlnet_tensors(tensors: StateDict) -> StateDict:
    """The weights of the IRControlNet alone."""
    return part(tensors, "control_model.")


def sd_unet_tensors(tensors: StateDict) -> StateDict:
    """The weights of the UNet alone."""
    own = part(tensors, "model.diffusion_model.")
    return diffusers.unet_tensors(own) if diffusers.UNET_MARK in own else own


def sd_vae_tensors(tensors: StateDict) -> StateDict:
    """The weights of the autoencoder alone, without what its training leaves in its own files."""
    own = part(tensors, "first_stage_model.")
    if diffusers.VAE_MARK in own:
        return diffusers.vae_tensors(own)
    training = ("loss.", "model_ema.")
    return {name: value for name, value in own.items() if not name.startswith(training)}


def text_encoder_tensors(tensors: StateDict) -> StateDict:
    """The weights of the text tower alone, without the last block of OpenCLIP's layout, which
    Stable Diffusion 2 does not run."""
    own = part(part(part(tensors, "cond_stage_model."), "model."), diffusers.TEXT_PREFIX)
    own = {name: value for name, value in own.items() if not name.startswith(_UNUSED_IN_TEXT)}
    if diffusers.TEXT_MARK in own:
        return diffusers.text_encoder_tensors(own)
    last = count_modules(own, "transformer.resblocks.{}.ln_1.weight") - 1
    dropped = f"transformer.resblocks.{last}."
    return {name: value for name, value in own.items() if not name.startswith(dropped)}


def swinir_config(tensors: StateDict) -> SwinIRConfig:
    """Raises KeyError for a damaged file, BIRError for a SwinIR of another form."""
    first = tensors.get("conv_first.1.weight", tensors.get("conv_first.weight"))
    if first is None or tensors["conv_after_body.weight"].ndim != 4:
        raise BIRError(
            "Expected a SwinIR with one convolution at the start and one after its body, but this "
            "is another form; load it with Load Upscale Model."
        )
    dim, folded = first.shape[:2]
    blocks = "layers.{}.residual_group.blocks.{}"
    count = count_modules(tensors, "layers.{}.residual_group.blocks.0.norm1.weight")
    tables = [
        tensors[blocks.format(index, 0) + ".attn.relative_position_bias_table"]
        for index in range(count)
    ]
    hidden = tensors[blocks.format(0, 0) + ".mlp.fc1.weight"].shape[0]
    return SwinIRConfig(
        embed_dim=dim,
        depths=tuple(
            count_modules(tensors, blocks.format(index, "{}") + ".norm1.weight")
            for index in range(count)
        ),
        num_heads=tuple(table.shape[1] for table in tables),
        window=(isqrt(tables[0].shape[0]) + 1) // 2,
        mlp_ratio=hidden / dim,
        unshuffle=isqrt(folded // 3),
        upsample=2 ** count_modules(tensors, "conv_up{}.weight", start=1),
    )


def ir_controlnet_config(tensors: StateDict) -> UNetConfig:
    """Raises KeyError for a damaged file, BIRError for one that is not for SD 2.1."""
    return _unet_config(tensors, UNetConfig().in_channels + HINT_CHANNELS, "an IRControlNet")


def sd_unet_config(tensors: StateDict) -> UNetConfig:
    """Raises KeyError for a damaged file, BIRError for the UNet of another Stable Diffusion."""
    return _unet_config(tensors, UNetConfig().in_channels, "the UNet of Stable Diffusion 2.1")


def _unet_config(tensors: StateDict, in_channels: int, what: str) -> UNetConfig:
    first = tensors["input_blocks.0.0.weight"]
    reason = None
    if "label_emb.0.0.weight" in tensors:
        reason = "it takes sizes or classes, as Stable Diffusion XL does"
    elif tensors["middle_block.1.proj_in.weight"].ndim != 2:
        reason = "it is of Stable Diffusion 1"
    elif first.shape[1] != in_channels:
        reason = f"it takes {first.shape[1]} channels instead of {in_channels}"
    if reason:
        raise BIRError(
            f"Expected {what}, but {reason}; choose Stable Diffusion 2.1 base, DiffBIR's zero-SNR "
            "base, or a network trained on one of these."
        )
    width = first.shape[0]
    levels: list[list[int]] = [[]]  # the widths of the blocks of each
    attention: set[int] = set()
    index = 1
    while True:
        if f"input_blocks.{index}.0.op.weight" in tensors:
            levels.append([])
        elif (conv := tensors.get(f"input_blocks.{index}.0.in_layers.2.weight")) is not None:
            levels[-1].append(conv.shape[0])
            if f"input_blocks.{index}.1.norm.weight" in tensors:
                attention.add(1 << (len(levels) - 1))
        else:
            break
        index += 1
    counts = {len(level) for level in levels}
    if len(counts) > 1 or 0 in counts:
        raise BIRError(
            f"Expected {what} with equally many blocks in each level, but blocks of the widths "
            f"{levels} came; the file is damaged or of another network."
        )
    return UNetConfig(
        model_channels=width,
        channel_mult=tuple(level[0] // width for level in levels),
        num_res_blocks=len(levels[0]),
        attention_resolutions=tuple(sorted(attention)),
        # Not in the shapes: 64 in Stable Diffusion 2, and one head where the network is narrower.
        num_head_channels=min(UNetConfig().num_head_channels, width),
        context_dim=tensors[_MIDDLE].shape[1],
    )


def sd_vae_config(tensors: StateDict) -> VAEConfig:
    """Of a decoder alone, too, whose lowest level counts as the width. Raises KeyError or
    IndexError for a damaged file."""
    whole = "encoder.conv_in.weight" in tensors
    block = ("encoder.down" if whole else "decoder.up") + ".{}.block.{}.conv1.weight"
    widths = [
        tensors[block.format(level, 0)].shape[0]
        for level in range(count_modules(tensors, block.format("{}", 0)))
    ]
    ch = tensors["encoder.conv_in.weight"].shape[0] if whole else widths[0]
    blocks = count_modules(tensors, block.format(0, "{}"))
    return VAEConfig(
        ch=ch,
        ch_mult=tuple(width // ch for width in widths),
        num_res_blocks=blocks if whole else blocks - 1,
        z_channels=tensors["decoder.conv_in.weight"].shape[1],
        embed_dim=tensors["post_quant_conv.weight"].shape[1],
    )


def text_encoder_config(tensors: StateDict) -> TextEncoderConfig:
    """Raises KeyError for a damaged file."""
    length, width = tensors["positional_embedding"].shape
    return TextEncoderConfig(
        width=width,
        # Not in the shapes: 64 wide in ViT-H, and one head where the network is narrower.
        heads=max(1, width // HEAD_WIDTH),
        layers=count_modules(tensors, "transformer.resblocks.{}.ln_1.weight"),
        vocabulary=tensors["token_embedding.weight"].shape[0],
        length=length,
    )
