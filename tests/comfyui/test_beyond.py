"""A real ComfyUI with Stable Diffusion 1.5 and XL: the nodes that need nothing of 2.1."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.sdxl_models import write_sdxl_models
from comfyui.vae_models import write_vae, write_wide_vae

BASES = {"sdxl": ("sdxl.safetensors", 2048), "sd15": ("sd15.safetensors", 768)}


@pytest.fixture(scope="module")
def beyond_server(diffbir_server: Server) -> Server:
    models: Path = diffbir_server.base / "models"
    write_sdxl_models(models)
    write_vae(models)
    write_wide_vae(models)
    return diffbir_server


@pytest.fixture(scope="module")
def image() -> Array:
    """(2, 64, 128, 3)."""
    return np.random.default_rng(4).random((2, 64, 128, 3), np.float32)


def enlarged(server: Server, base: str, image: Array, vae: str = "tiny.safetensors") -> Prompt:
    """A picture of the final size through low noise, with exact encode, decode and colour fix."""
    file, channels = BASES[base]
    return {
        "model": node("UNETLoader", unet_name=file, weight_dtype="default"),
        "vae": node("VAELoader", vae_name=vae),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "encode": node("BIRVAEEncodeTiled", pixels=["image", 0], vae=["vae", 0], tile_size=64),
        "positive": node("TestZeroConditioning", value=0.5, channels=channels),
        "negative": node("TestZeroConditioning", value=0.0, channels=channels),
        "sample": node(
            "KSampler",
            model=["model", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["encode", 0],
            seed=3,
            steps=2,
            cfg=4.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=0.4,
        ),
        "decode": node(
            "BIRVAEDecodeTiled", samples=["sample", 0], vae=["vae", 0], tile_size=64, clamp=False
        ),
        "fix": node("BIRColorFix", image=["decode", 0], reference=["image", 0], method="wavelet"),
        "save": node("TestSaveTensor", image=["fix", 0], file="beyond.npy"),
        "latent": node("TestSaveLatent", latent=["sample", 0], file="beyond_latent.npy"),
    }


def patched(prompt: Prompt, kind: str, **inputs: Any) -> Prompt:
    """With one more patch of the model."""
    prompt[kind] = node(kind, model=prompt["sample"]["inputs"]["model"], **inputs)
    prompt["sample"]["inputs"]["model"] = [kind, 0]
    return prompt


def tiled(prompt: Prompt, tile_size: int = 64, overlap: int = 32, **inputs: Any) -> Prompt:
    return patched(prompt, "DiffBIRTiledDiffusion", tile_size=tile_size, overlap=overlap, **inputs)


def guided(prompt: Prompt, scale: float) -> Prompt:
    return patched(
        prompt,
        "DiffBIRGuidance",
        image=["image", 0],
        vae=["vae", 0],
        scale=scale,
        space="latent",
        loss="mse",
        per="512x512",
    )


def with_tile_control(prompt: Prompt) -> Prompt:
    prompt["net"] = node("ControlNetLoader", control_net_name="sdxl_tile.safetensors")
    prompt["control"] = node(
        "ControlNetApplyAdvanced",
        positive=["positive", 0],
        negative=["negative", 0],
        control_net=["net", 0],
        image=["image", 0],
        strength=0.6,
        start_percent=0.0,
        end_percent=1.0,
    )
    prompt["sample"]["inputs"] |= {"positive": ["control", 0], "negative": ["control", 1]}
    return prompt


def results(server: Server, prompt: Prompt) -> tuple[Array, Array]:
    """The picture (B, H, W, 3) and the latent (B, 4, h, w)."""
    server.run(prompt)
    picture, latent = (
        np.load(server.base / "output" / name) for name in ("beyond.npy", "beyond_latent.npy")
    )
    assert np.isfinite(latent).all() and picture.min() >= 0 and picture.max() <= 1
    return picture, latent


@pytest.mark.parametrize("base", BASES)
def test_tiles_and_guidance(beyond_server: Server, image: Array, base: str) -> None:
    def run(*patches: Any, picture: Array = image) -> Array:
        prompt = enlarged(beyond_server, base, picture)
        for patch in patches:
            prompt = patch(prompt)
        restored, latent = results(beyond_server, prompt)
        assert restored.shape == picture.shape
        return latent

    plain = run()
    assert np.array_equal(run(lambda prompt: tiled(prompt, 128, 64)), plain)
    one, several = (
        run(lambda prompt, count=count: tiled(prompt, tile_batch=count)) for count in (1, 3)
    )
    scale = np.abs(one).max()
    assert np.abs(several - one).max() < 1e-4 * scale < np.abs(one - plain).max()
    first = run(lambda prompt: tiled(prompt, tile_batch=3), picture=image[:1])
    assert np.abs(first - one[:1]).max() < 1e-4 * scale
    pulled = run(tiled, lambda prompt: guided(prompt, 0.05))
    target_prompt = enlarged(beyond_server, base, image)
    target_prompt["sample"]["inputs"]["denoise"] = 0.0  # the latent of the image, as it came
    _, target = results(beyond_server, target_prompt)
    distances = [np.abs(latent - target).mean() for latent in (pulled, one)]
    assert distances[0] < 0.99 * distances[1]


def test_sdxl_with_a_tile_control_net(beyond_server: Server, image: Array) -> None:
    def run(picture: Array, tile_batch: int = 1) -> Array:
        prompt = tiled(enlarged(beyond_server, "sdxl", picture), 64, 0, tile_batch=tile_batch)
        return results(beyond_server, with_tile_control(prompt))[1]

    one = run(image)
    assert np.abs(run(image, 2) - one).max() < 1e-4 * np.abs(one).max()
    without = results(beyond_server, tiled(enlarged(beyond_server, "sdxl", image), 64, 0))[1]
    assert np.abs(one - without).max() > 1e-3


@pytest.mark.parametrize("vae", ["sd.safetensors", "wide.safetensors"])
def test_exact_vae_of_4_and_16_channels(beyond_server: Server, image: Array, vae: str) -> None:
    """Those of Stable Diffusion 1, 2 and XL have one layout; those of SD 3 and Flux have 16
    channels, and nothing between them and the latent."""
    prompt: Prompt = {
        "vae": node("VAELoader", vae_name=vae),
        "image": node("TestLoadTensor", file=unique_copy(beyond_server, image[:1])),
    }
    for name, encoder, decoder, size in (
        ("whole", "VAEEncode", "VAEDecode", {}),
        ("tiles", "BIRVAEEncodeTiled", "BIRVAEDecodeTiled", {"tile_size": 64}),
    ):
        prompt |= {
            f"{name} latent": node(encoder, pixels=["image", 0], vae=["vae", 0], **size),
            name: node(decoder, samples=[f"{name} latent", 0], vae=["vae", 0], **size),
            f"save {name}": node("TestSaveTensor", image=[name, 0], file=f"{name}.npy"),
        }
    beyond_server.run(prompt)
    whole, tiles = (np.load(beyond_server.base / "output" / f"{n}.npy") for n in ("whole", "tiles"))
    assert whole.std() > 0.01 and np.abs(tiles - whole).max() < 1e-3


def test_latents_of_another_model_are_said(beyond_server: Server, image: Array) -> None:
    prompt: Prompt = {
        "vae": node("VAELoader", vae_name="sd.safetensors"),
        "empty": node("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        "decode": node("BIRVAEDecodeTiled", samples=["empty", 0], vae=["vae", 0], tile_size=64),
        "save": node("TestSaveTensor", image=["decode", 0], file="beyond.npy"),
    }
    with pytest.raises(Failed, match="latents of 4 channels, but 16 came; connect the VAE of"):
        beyond_server.run(prompt)
    wide = guided(enlarged(beyond_server, "sdxl", image, "wide.safetensors"), 0.5)
    with pytest.raises(Failed, match="with 4 channels at 1/8 of the size, as Stable Diffusion 1"):
        beyond_server.run(wide)
