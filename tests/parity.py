"""Reads the parity vectors: numbers that the official code made, on small networks.

The vectors store no weights; rule "rs-fanin-1" makes them from a seed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

DATA = Path(__file__).parent / "data"


def load_vectors(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of tests/data/<name>.safetensors."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def rule_weights(shapes: dict[str, tuple[int, ...]], seed0: int) -> dict[str, Tensor]:
    """Weights of rule "rs-fanin-1": normal numbers scaled by the fan-in, one seed per name."""
    weights = {}
    for index, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        g = np.random.RandomState(seed0 + index).standard_normal(int(np.prod(shape)))
        g = g.astype(np.float32).reshape(shape)
        if name.endswith("temperature") or ("norm" in name and name.endswith(".weight")):
            value = np.float32(1) + np.float32(0.1) * g
        elif name.endswith(".bias"):
            value = np.float32(0.1) * g
        else:
            gain = 1.0 if name.startswith("G.") else 0.5 if ".body." in name else 1.5
            value = g * np.float32(gain / np.sqrt(np.prod(shape[1:])))
        weights[name] = torch.from_numpy(value)
    return weights


def fill_by_rule(network: nn.Module, seed0: int, prefix: str = "") -> list[float]:
    """Give a network the rule's weights; returns [sum, sum of magnitudes, count] to check them."""
    parameters = dict(network.named_parameters())
    shapes = {prefix + name: tuple(value.shape) for name, value in parameters.items()}
    weights = rule_weights(shapes, seed0)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[prefix + name])
    doubles = [value.double() for value in weights.values()]
    return [
        float(sum(v.sum() for v in doubles)),
        float(sum(v.abs().sum() for v in doubles)),
        float(len(doubles)),
    ]


def diffir_config(official: dict[str, Any], task: str) -> dict[str, Any]:
    """Constructor arguments of DiffIRConfig from an official configuration."""
    kind = "sr" if task.startswith(("realsr", "srgan", "RealSR")) else task
    kept = ("dim", "num_refinement_blocks", "ffn_expansion_factor", "bias", "n_encoder_res")
    diffusion = ("n_denoise_res", "linear_start", "linear_end", "timesteps")
    return {
        "task": kind,
        "scale": official.get("scale", 1),
        "num_blocks": tuple(official["num_blocks"]),
        "heads": tuple(official["heads"]),
        "layer_norm": official["LayerNorm_type"],
        **{name: official[name] for name in kept},
        **{name: official[name] for name in diffusion if name in official},
    }


def config_from_metadata(metadata: dict[str, str], stage: int) -> dict[str, Any]:
    """Constructor arguments of DiffIRConfig for the network of a `diffir_net_*` vector file."""
    return diffir_config(json.loads(metadata[f"s{stage}_config"]), metadata["task"])


def fill_by_rule_w(network: nn.Module, base: int) -> dict[str, Any]:
    """Give a network of DiffBIR the weights of rule W: normal numbers, scaled by the fan-in for
    matrices and kernels, one seed per name. Returns what `rule_check` of the vectors holds."""
    state = network.state_dict()
    names = sorted(state)
    for index, name in enumerate(names):
        value = state[name]
        generator = torch.Generator().manual_seed(base + index)
        z = torch.randn(tuple(value.shape), generator=generator)
        if value.ndim >= 2:
            z = z / (value.numel() / value.shape[0]) ** 0.5
        else:
            z = 0.1 * z + (1 if name.endswith(".weight") else 0)
        value.copy_(z)
    return {
        "n_filled": len(names),
        "first_key": names[0],
        "sum_abs_first": float(state[names[0]].double().abs().sum()),
        "last_key": names[-1],
        "sum_abs_last": float(state[names[-1]].double().abs().sum()),
    }


def assert_rule_check(ours: dict[str, Any], official: str) -> None:
    """Whether rule W made the weights that the official code was run with."""
    expected = json.loads(official)
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        same = abs(ours[key] - value) <= 1e-5 * value if key[:4] == "sum_" else ours[key] == value
        assert same, (key, ours[key], value)


def unet_settings(official: str) -> dict[str, Any]:
    """Constructor arguments of UNetConfig from an official configuration."""
    settings = json.loads(official)
    names = ("model_channels", "num_res_blocks", "num_head_channels", "context_dim")
    return {
        "channel_mult": tuple(settings["channel_mult"]),
        "attention_resolutions": tuple(sorted(settings["attention_resolutions"])),
        **{name: settings[name] for name in names},
    }


def vae_settings(official: str) -> dict[str, Any]:
    """Constructor arguments of VAEConfig from an official configuration."""
    settings = json.loads(official)
    sizes = settings["ddconfig"]
    return {
        "ch": sizes["ch"],
        "ch_mult": tuple(sizes["ch_mult"]),
        "num_res_blocks": sizes["num_res_blocks"],
        "z_channels": sizes["z_channels"],
        "embed_dim": settings["embed_dim"],
    }


def swinir_settings(official: str) -> dict[str, Any]:
    """Constructor arguments of SwinIRConfig from an official configuration."""
    settings = json.loads(official)
    return {
        "embed_dim": settings["embed_dim"],
        "depths": tuple(settings["depths"]),
        "num_heads": tuple(settings["num_heads"]),
        "window": settings["window_size"],
        "mlp_ratio": settings["mlp_ratio"],
        "unshuffle": settings["unshuffle_scale"],
        "upsample": settings["sf"],
    }
