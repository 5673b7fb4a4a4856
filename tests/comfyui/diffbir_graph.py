"""Prompts that restore a picture with the mini networks of DiffBIR."""

from typing import Any

import numpy as np
from comfyui.harness import Prompt, Server, node, unique_copy
from numpy.typing import NDArray

Array = NDArray[np.float32]


def restoration(server: Server, image: Array, **options: Any) -> Prompt:
    """Base, VAE, prompts, IRControlNet, DiffBIR Conditioning, KSampler; saves the latent.

    Keywords: `control` (file), `conditioning`, `sampling`, `loader` (inputs of these nodes).
    """
    return {
        "model": node("UNETLoader", unet_name="sd21.safetensors", weight_dtype="default"),
        "vae": node("VAELoader", vae_name="tiny.safetensors"),
        "positive": node("TestZeroConditioning", value=0.5),
        "negative": node("TestZeroConditioning", value=0.0),
        "control": node(
            "DiffBIRControlNetLoader",
            control_net_name=options.get("control", "mini_v2.safetensors"),
            **options.get("loader", {}),
        ),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "conditioning": node(
            "DiffBIRConditioning",
            positive=["positive", 0],
            negative=["negative", 0],
            control_net=["control", 0],
            vae=["vae", 0],
            image=["image", 0],
            **{"strength": 1.0, **options.get("conditioning", {})},
        ),
        "sample": node(
            "KSampler",
            model=["model", 0],
            positive=["conditioning", 0],
            negative=["conditioning", 1],
            latent_image=["conditioning", 2],
            **{
                "seed": 3,
                "steps": 2,
                "cfg": 4.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                **options.get("sampling", {}),
            },
        ),
        "save": node("TestSaveLatent", latent=["sample", 0], file="latent.npy"),
    }


def with_stock_apply(prompt: Prompt, **inputs: Any) -> Prompt:
    """The stock Apply ControlNet instead of DiffBIR Conditioning, on an empty latent of 128 x 64
    pixels (width x height)."""
    prompt["empty"] = node("EmptyLatentImage", width=128, height=64, batch_size=1)
    prompt["conditioning"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["control", 0],
        image=["image", 0],
        vae=["vae", 0],
        **{"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **inputs},
    )
    prompt["sample"]["inputs"]["latent_image"] = ["empty", 0]
    return prompt


def latent_of(server: Server, prompt: Prompt) -> Array:
    """Run a prompt of `restoration`; the sampled latent (B, 4, h, w)."""
    output = server.base / "output" / "latent.npy"
    output.unlink(missing_ok=True)
    server.run(prompt)
    latent: Array = np.load(output)
    assert np.isfinite(latent).all()
    return latent


def one_node(
    server: Server, image: Array, control: str = "mini_v2.safetensors", **inputs: Any
) -> Prompt:
    """The same in DiffBIR Sampler, whose inputs the keywords are; saves the picture."""
    prompt = restoration(server, image, control=control)
    for name in ("conditioning", "sample"):
        del prompt[name]
    prompt["sample"] = node(
        "DiffBIRSampler",
        model=["model", 0],
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["control", 0],
        vae=["vae", 0],
        image=["image", 0],
        **{
            "seed": 3,
            "steps": 2,
            "cfg": 4.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "strength": 1.0,
            "guidance": 0.0,
            "tile_size": 0,
            "color_fix": "wavelet",
            **inputs,
        },
    )
    prompt["save"] = node("TestSaveTensor", image=["sample", 0], file="restored.npy")
    return prompt


def restored(server: Server, prompt: Prompt) -> Array:
    """Run a prompt of `one_node`; the picture (B, H, W, C)."""
    output = server.base / "output" / "restored.npy"
    output.unlink(missing_ok=True)
    server.run(prompt)
    picture: Array = np.load(output)
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1
    return picture
