"""Mini networks of DiffBIR for the server's model folders: one level of Stable Diffusion 2.1, which
ComfyUI takes for the real thing, with random weights."""

from pathlib import Path

import torch
from parity import fill_by_rule_w
from safetensors.torch import save_file
from torch import Tensor

from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.networks.unet import SDUNet, UNetConfig, UNetEncoder

SIZES = {"channel_mult": (1,), "num_res_blocks": 1, "attention_resolutions": (1,)}
CONFIG = UNetConfig(**SIZES)
SWINIR = SwinIRConfig(embed_dim=12, depths=(2, 2), num_heads=(2, 2))
# Channels in, channels out, stride of the convolutions of an ordinary ControlNet's hint block.
HINT_BLOCK = [
    (3, 16, 1),
    (16, 16, 1),
    (16, 32, 2),
    (32, 32, 1),
    (32, 96, 2),
    (96, 96, 1),
    (96, 256, 2),
    (256, 320, 1),
]
Weights = dict[str, Tensor]


class _Shapes:
    """Something to be filled by the rule of the parity vectors."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.weights = {name: torch.empty(shape) for name, shape in shapes.items()}

    def state_dict(self) -> Weights:
        return self.weights


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> Weights:
    network = _Shapes(shapes)
    fill_by_rule_w(network, seed)
    return network.weights


def control_weights(seed: int = 30_000) -> Weights:
    """An IRControlNet."""
    network = IRControlNet(CONFIG)
    fill_by_rule_w(network, seed)
    return network.state_dict()


def unet_weights(context_dim: int = 1024, seed: int = 10_000) -> Weights:
    network = SDUNet(UNetConfig(**SIZES, context_dim=context_dim)).requires_grad_(False)
    fill_by_rule_w(network, seed)
    network.out[2].weight.mul_(0.2)
    return network.state_dict()


def stock_control_weights() -> Weights:
    """An ordinary ControlNet for the same base, with its hint block for RGB images."""
    encoder = UNetEncoder(CONFIG, CONFIG.in_channels)
    fill_by_rule_w(encoder, 40_000)
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (into, out, _) in enumerate(HINT_BLOCK):
        shapes[f"input_hint_block.{2 * index}.weight"] = (out, into, 3, 3)
        shapes[f"input_hint_block.{2 * index}.bias"] = (out,)
    for name in ("zero_convs.0.0", "zero_convs.1.0", "middle_block_out.0"):
        shapes[f"{name}.weight"] = (320, 320, 1, 1)
        shapes[f"{name}.bias"] = (320,)
    return encoder.state_dict() | random_weights(shapes, 41_000)


def taesd_weights() -> Weights:
    """A tiny autoencoder: 4 channels at an eighth of the size."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, out: int, into: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = (out, into, 3, 3)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    def blocks(part: str, indices: tuple[int, ...]) -> None:
        for index in indices:
            for layer in (0, 2, 4):
                conv(f"{part}.{index}.conv.{layer}", 64, 64)

    conv("taesd_encoder.0", 64, 3)
    blocks("taesd_encoder", (1, 3, 4, 5, 7, 8, 9, 11, 12, 13))
    for index in (2, 6, 10):
        conv(f"taesd_encoder.{index}", 64, 64, bias=False)
    conv("taesd_encoder.14", 4, 64)
    conv("taesd_decoder.1", 64, 4)
    blocks("taesd_decoder", (3, 4, 5, 8, 9, 10, 13, 14, 15, 18))
    for index in (7, 12, 17):
        conv(f"taesd_decoder.{index}", 64, 64, bias=False)
    conv("taesd_decoder.19", 3, 64)
    weights = random_weights(shapes, 50_000)
    for part in ("taesd_encoder.14", "taesd_decoder.19"):
        weights[f"{part}.weight"] *= 0.3
    weights["taesd_decoder.19.bias"] += 0.5
    return weights


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


def save(path: Path, weights: Weights) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path)


def swinir() -> SwinIR:
    network = SwinIR(SWINIR).eval().requires_grad_(False)
    fill_by_rule_w(network, 60_000)
    return network


def write_diffbir_models(models: Path) -> None:
    """Networks under names that say what they are, right ones and wrong ones."""
    control = control_weights()
    controls = models / "controlnet"
    save(controls / "mini_v2.safetensors", control)
    save(controls / "mini_DiffBIR_v2.1.safetensors", control)
    save(controls / "mine.safetensors", control)
    save(controls / "half.safetensors", {name: value.half() for name, value in control.items()})
    byte = {name: value.to(torch.float8_e4m3fn) for name, value in control.items()}
    save(controls / "byte.safetensors", byte)
    save(controls / "stock.safetensors", stock_control_weights())
    damaged = dict(control)
    damaged["time_embed.0.bias"] = control["time_embed.0.bias"] * float("nan")
    save(controls / "nan.safetensors", damaged)
    full = prefixed("control_model.", control) | prefixed(
        "model.diffusion_model.", {"input_blocks.0.0.weight": torch.zeros(320, 4, 3, 3)}
    )
    torch.save({"state_dict": full}, controls / "full_v1.ckpt")
    bases = models / "diffusion_models"
    save(bases / "sd21.safetensors", prefixed("model.diffusion_model.", unet_weights()))
    sd15 = unet_weights(context_dim=768)
    for name, value in sd15.items():
        if ".proj_in.weight" in name or ".proj_out.weight" in name:
            sd15[name] = value[:, :, None, None]
    save(bases / "sd15.safetensors", prefixed("model.diffusion_model.", sd15))
    save(models / "vae" / "tiny.safetensors", taesd_weights())
    network = swinir()
    restoration = network.state_dict() | network.published_tables()
    save(models / "upscale_models" / "swinir.safetensors", restoration)
    up, down = torch.randn(2, 320, 4, generator=torch.Generator().manual_seed(7)) * 0.2
    layer = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
    save(
        models / "loras" / "lora.safetensors",
        {
            f"{layer}.lora_up.weight": up,
            f"{layer}.lora_down.weight": down.T.contiguous(),
            f"{layer}.alpha": torch.tensor(4.0),
        },
    )
