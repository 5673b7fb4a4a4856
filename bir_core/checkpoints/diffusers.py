"""The layout of the diffusers library, brought to the names of latent diffusion.

A diffusers folder holds Stable Diffusion in one file for each network. The tables follow the
structure of both layouts: theirs counts levels and blocks, ours counts blocks alone.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, cat

from ..errors import BIRError, shown
from .keys import StateDict, count_modules

# What a network's file is called, the preferred first; that of texts by the transformers library.
TEXT_FOLDER = "text_encoder"
_STEMS = {TEXT_FOLDER: ("model", "pytorch_model")}
_DEFAULT_STEMS = ("diffusion_pytorch_model",)
_ENDINGS = (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")

_RES_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    # Before version 0.17 of the library.
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
_TEXT_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_TEXT_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
UNET_MARK = "down_blocks.0.resnets.0.conv1.weight"
VAE_MARK = "encoder.down_blocks.0.resnets.0.conv1.weight"
TEXT_PREFIX = "text_model."  # absent from version 5 of the transformers library on
TEXT_MARK = "embeddings.token_embedding.weight"


def network_file(folder: Path) -> Path:
    """The file of a network in its own folder, the `unet`, `vae` or `text_encoder` of a model.

    Raises:
        BIRError: it is not there.
    """
    stems = _STEMS.get(folder.name, _DEFAULT_STEMS)
    names = [stem + ending for stem in stems for ending in _ENDINGS]
    for name in names:
        if os.path.isfile(folder / name):
            return folder / name
    raise BIRError(
        f"Expected a diffusers folder with {names[0]} in {folder}, but found none; give the folder "
        "that holds unet, vae and text_encoder, or single files."
    )


def _replaced(name: str, table: dict[str, str]) -> str:
    """A key whose beginning, up to a dot, stands in the table."""
    for old, new in table.items():
        if name.startswith(old + "."):
            return new + name.removeprefix(old)
    return name


def _renamed(tensors: StateDict, rename: Callable[[str], str | None]) -> StateDict:
    names = {name: rename(name) for name in tensors}
    return {new: tensors[name] for name, new in names.items() if new is not None}


def unet_tensors(tensors: StateDict) -> StateDict:
    """A diffusers UNet under the names below `model.diffusion_model.`. Names that belong to no
    known place stay, so that a changed network is refused later."""
    per_level = count_modules(tensors, "down_blocks.0.resnets.{}.conv1.weight")

    def rename(name: str) -> str:
        for old, new in _UNET_ENDS.items():
            if name.startswith(old + "."):
                inner = name.removeprefix(old + ".")
                return f"{new}.{_replaced(inner, _RES_BLOCK) if 'resnets' in old else inner}"
        found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", name)
        if found is None:
            return name
        half, kind, inner = found[1], found[3], found[5]
        level, index = int(found[2]), int(found[4])
        if half == "down":
            first = 1 + level * (per_level + 1)
            block = f"input_blocks.{first + (per_level if kind == 'downsamplers' else index)}"
        else:
            last = level * (per_level + 1) + per_level
            number = last if kind == "upsamplers" else last - per_level + index
            block = f"output_blocks.{number}"
        if kind == "resnets":
            return f"{block}.0.{_replaced(inner, _RES_BLOCK)}"
        if kind == "attentions":
            return f"{block}.1.{inner}"
        if kind == "downsamplers":
            return f"{block}.0.{_replaced(inner, {'conv': 'op'})}"
        # It follows the attention, where the level has one.
        attention = f"up_blocks.{level}.attentions.{per_level}.norm.weight" in tensors
        return f"{block}.{2 if attention else 1}.{inner}"

    return _renamed(tensors, rename)


def vae_tensors(tensors: StateDict) -> StateDict:
    """A diffusers autoencoder under the names below `first_stage_model.`, the linear layers of its
    attention as convolutions. Unknown names stay."""
    levels = count_modules(tensors, "encoder.down_blocks.{}.resnets.0.conv1.weight")

    def rename(name: str) -> str:
        found = re.match(r"(encoder|decoder)\.(.*)", name)
        if found is None:
            return name
        half, inner = found[1], found[2]
        inner = _replaced(inner, {"conv_norm_out": "norm_out"})
        middle = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", inner)
        if middle is not None and middle[1] == "attentions":
            inner = f"mid.attn_1.{_replaced(middle[3], _VAE_ATTENTION)}"
        elif middle is not None:
            inner = f"mid.block_{int(middle[2]) + 1}.{middle[3]}"
        block = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", inner)
        if block is not None:
            level = int(block[2]) if block[1] == "down" else levels - 1 - int(block[2])
            place = f"{block[1]}.{level}"
            layer = f"block.{block[4]}" if block[3] == "resnets" else block[1] + "sample"
            inner = f"{place}.{layer}.{block[5]}"
        return f"{half}.{inner}".replace("conv_shortcut", "nin_shortcut")

    renamed = _renamed(tensors, rename)
    return {
        name: value[:, :, None, None] if ".attn_1." in name and value.ndim == 2 else value
        for name, value in renamed.items()
    }


def text_encoder_tensors(tensors: StateDict) -> StateDict:
    """A CLIP text model of the transformers library, without its prefix, under OpenCLIP's names,
    q, k and v joined.

    All its blocks are taken: those of Stable Diffusion 2 in this layout have lost the last one
    already. Unknown names stay.
    """
    renamed: StateDict = {}
    for name, value in tensors.items():
        if name == "embeddings.position_ids":
            continue  # 0 to 76, in files of older versions
        block = re.match(r"encoder\.layers\.(\d+)\.(.*)", name)
        if block is None:
            renamed[_TEXT_ENDS.get(name, name)] = value
            continue
        place = f"transformer.resblocks.{block[1]}"
        joined = re.match(r"self_attn\.([qkv])_proj\.(weight|bias)", block[2])
        if joined is None:
            renamed[f"{place}.{_replaced(block[2], _TEXT_BLOCK)}"] = value
        elif joined[1] == "q":
            parts = [name.replace("q_proj", f"{letter}_proj") for letter in "qkv"]
            renamed[f"{place}.attn.in_proj_{joined[2]}"] = _joined(tensors, parts)
    return renamed


def _joined(tensors: StateDict, names: Sequence[str]) -> Tensor:
    absent = [name for name in names if name not in tensors]
    if absent:
        raise BIRError(
            "Expected q, k and v in each block of a text encoder, but "
            f"{shown(absent[0])} is absent; the file is damaged or of another network."
        )
    parts = [tensors[name] for name in names]
    if len({part.shape for part in parts}) > 1 or parts[0].ndim == 0:
        raise BIRError(
            "Expected q, k and v of one shape in each block of a text encoder, but "
            f"{shown(names[0])} and its like have {[tuple(part.shape) for part in parts]}; the "
            "file is damaged or of another network."
        )
    return cat(parts)
