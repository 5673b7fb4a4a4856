"""Mini networks of Stable Diffusion XL for the server's model folders: three levels of the width of
the first, without attention on the way up, which ComfyUI takes for a small relative (KOALA)."""

from pathlib import Path

import torch
from comfyui.diffbir_models import HINT_BLOCK, Weights, prefixed, random_weights, save

WIDTH, EMBEDDED, CONTEXT, ADM = 320, 1280, 2048, 2816
DEPTHS = (0, 2, 5)  # transformer blocks of each level
Shapes = dict[str, tuple[int, ...]]


def _layer(name: str, *shape: int, bias: bool = True) -> Shapes:
    weight = {f"{name}.weight": shape}
    return {**weight, f"{name}.bias": shape[:1]} if bias else weight


def _residual(name: str, into: int = WIDTH) -> Shapes:
    shapes = {
        **_layer(f"{name}.in_layers.0", into),
        **_layer(f"{name}.in_layers.2", WIDTH, into, 3, 3),
        **_layer(f"{name}.emb_layers.1", WIDTH, EMBEDDED),
        **_layer(f"{name}.out_layers.0", WIDTH),
        **_layer(f"{name}.out_layers.3", WIDTH, WIDTH, 3, 3),
    }
    if into != WIDTH:
        shapes |= _layer(f"{name}.skip_connection", WIDTH, into, 1, 1)
    return shapes


def _transformer(name: str, depth: int) -> Shapes:
    shapes = _layer(f"{name}.norm", WIDTH)
    for end in ("proj_in", "proj_out"):
        shapes |= _layer(f"{name}.{end}", WIDTH, WIDTH)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, seen in (("attn1", WIDTH), ("attn2", CONTEXT)):
            for part, into in (("to_q", WIDTH), ("to_k", seen), ("to_v", seen)):
                shapes |= _layer(f"{block}.{attention}.{part}", WIDTH, into, bias=False)
            shapes |= _layer(f"{block}.{attention}.to_out.0", WIDTH, WIDTH)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= _layer(f"{block}.{norm}", WIDTH)
        shapes |= _layer(f"{block}.ff.net.0.proj", 8 * WIDTH, WIDTH)
        shapes |= _layer(f"{block}.ff.net.2", WIDTH, 4 * WIDTH)
    return shapes


def _encoder() -> Shapes:
    shapes = {
        **_layer("time_embed.0", EMBEDDED, WIDTH),
        **_layer("time_embed.2", EMBEDDED, EMBEDDED),
        **_layer("label_emb.0.0", EMBEDDED, ADM),
        **_layer("label_emb.0.2", EMBEDDED, EMBEDDED),
        **_layer("input_blocks.0.0", WIDTH, 4, 3, 3),
        **_residual("middle_block.0"),
    }
    for level, depth in enumerate(DEPTHS):
        if level:
            shapes |= _layer(f"input_blocks.{2 * level}.0.op", WIDTH, WIDTH, 3, 3)
        shapes |= _residual(f"input_blocks.{2 * level + 1}.0")
        if depth:
            shapes |= _transformer(f"input_blocks.{2 * level + 1}.1", depth)
    return shapes


def sdxl_weights() -> Weights:
    shapes = {**_encoder(), **_layer("out.0", WIDTH), **_layer("out.2", 4, WIDTH, 3, 3)}
    for index in range(2 * len(DEPTHS)):
        shapes |= _residual(f"output_blocks.{index}.0", 2 * WIDTH)
    for index in (1, 3):
        shapes |= _layer(f"output_blocks.{index}.1.conv", WIDTH, WIDTH, 3, 3)
    weights = random_weights(shapes, 80_000)
    weights["out.2.weight"] *= 0.2
    return weights


def sdxl_control_weights() -> Weights:
    """A ControlNet of it, with the hint block for RGB images."""
    shapes = {**_encoder(), **_layer("middle_block_out.0", WIDTH, WIDTH, 1, 1)}
    for index, (into, out, _) in enumerate(HINT_BLOCK):
        shapes |= _layer(f"input_hint_block.{2 * index}", out, into, 3, 3)
    for index in range(2 * len(DEPTHS)):
        shapes |= _layer(f"zero_convs.{index}.0", WIDTH, WIDTH, 1, 1)
    return random_weights(shapes, 81_000)


def write_sdxl_models(models: Path) -> None:
    """`sdxl.safetensors` among the diffusion models, `sdxl_tile.safetensors` among the control
    nets."""

    def half(weights: Weights) -> Weights:
        return {name: value.to(torch.float16) for name, value in weights.items()}

    unet = models / "diffusion_models" / "sdxl.safetensors"
    if not unet.exists():
        save(unet, prefixed("model.diffusion_model.", half(sdxl_weights())))
        save(models / "controlnet" / "sdxl_tile.safetensors", half(sdxl_control_weights()))
