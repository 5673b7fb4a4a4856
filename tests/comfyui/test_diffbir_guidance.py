"""DiffBIRGuidance on a real ComfyUI: faithful with a larger scale, on every sampler."""

from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, latent_of, restoration
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.vae_models import write_vae

from bir_core.diffusion.guidance import pool_weight, region_weight
from bir_core.images import from_channels_last

SAMPLERS = ["euler", "heun", "dpmpp_2m", "dpmpp_3m_sde", "ddpm", "uni_pc"]
# For pictures of 64 x 64 pixels, where the loss is a mean over few numbers.
SCALES = (0.0, 0.001, 0.002, 0.004)


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 64, 64, 3): smooth shapes, and a rough corner."""
    rows, columns = np.mgrid[0:64, 0:64].astype(np.float32)
    picture = np.stack([np.sin(rows / (9 + c)) * np.cos(columns / (8 - c)) for c in range(3)], -1)
    picture = picture * 0.3 + 0.5
    picture[:24, :24] += np.random.default_rng(1).normal(0, 0.2, (24, 24, 1))
    return picture.clip(0, 1).astype(np.float32)[None]


def guided(prompt: Prompt, **inputs: Any) -> Prompt:
    """The model of a prompt with guidance by its image."""
    settings = {"scale": 0.005, "space": "latent", "loss": "mse", **inputs}
    prompt["guide"] = node(
        "DiffBIRGuidance", model=["model", 0], image=["image", 0], vae=["vae", 0], **settings
    )
    prompt["sample"]["inputs"]["model"] = ["guide", 0]
    return prompt


def with_mask(server: Server, prompt: Prompt, mask: Array) -> Prompt:
    prompt["mask"] = node("TestLoadTensor", file=unique_copy(server, mask))
    prompt["guide"]["inputs"]["mask"] = ["mask", 1]
    return prompt


def stage1_latent(server: Server, image: Array, vae_name: str = "tiny.safetensors") -> Array:
    """What the guidance pulls towards, as the samplers give latents."""
    prompt = {
        "vae": node("VAELoader", vae_name=vae_name),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "encode": node("VAEEncode", pixels=["image", 0], vae=["vae", 0]),
        "save": node("TestSaveLatent", latent=["encode", 0], file="latent.npy"),
    }
    return latent_of(server, prompt)


def distance(latent: Array, target: Array) -> float:
    return float(np.abs(latent - target).mean())


@pytest.fixture(scope="module")
def target(diffbir_server: Server, image: Array) -> Array:
    return stage1_latent(diffbir_server, image)


@pytest.fixture(scope="module")
def plain(diffbir_server: Server, image: Array) -> Array:
    """The latent of the standard prompt, without guidance."""
    return latent_of(diffbir_server, restoration(diffbir_server, image))


@pytest.mark.parametrize("space", ["latent", "rgb"])
def test_scale_0_is_bit_equal_to_no_node(
    diffbir_server: Server, image: Array, plain: Array, space: str
) -> None:
    prompt = guided(restoration(diffbir_server, image), scale=0.0, space=space)
    assert np.array_equal(latent_of(diffbir_server, prompt), plain)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_larger_scale_comes_closer_on_every_sampler(
    diffbir_server: Server, image: Array, target: Array, sampler: str
) -> None:
    sampling = {"sampler_name": sampler, "steps": 6, "scheduler": "karras"}
    distances = [
        distance(
            latent_of(
                diffbir_server,
                guided(restoration(diffbir_server, image, sampling=sampling), scale=scale),
            ),
            target,
        )
        for scale in SCALES
    ]
    for less, more in zip(distances, distances[1:], strict=False):
        assert more < 0.9 * less, distances


def test_weighted_loss_holds_flat_regions_more(
    diffbir_server: Server, image: Array, target: Array, plain: Array
) -> None:
    weighted = latent_of(
        diffbir_server, guided(restoration(diffbir_server, image), loss="w_mse", scale=0.01)
    )
    closer = np.abs(weighted - target) / np.abs(plain - target)
    rough, flat = np.median(closer[:, :, :3, :3]), np.median(closer[:, :, 4:, 4:])
    assert flat < 0.8 * rough


def test_weight_map_is_shown(diffbir_server: Server, image: Array) -> None:
    """Of the picture without its padding, as the space uses it."""
    cut = image[:, :, :60]
    weight = region_weight(from_channels_last(torch.from_numpy(image)))
    pooled = pool_weight(weight).repeat_interleave(8, -1).repeat_interleave(8, -2)
    shown = {}
    for space in ("latent", "rgb"):
        prompt = guided(restoration(diffbir_server, cut), space=space, loss="w_mse", scale=0.0)
        prompt["as_image"] = node("MaskToImage", mask=["guide", 1])
        prompt["save"] = node("TestSaveTensor", image=["as_image", 0], file="weight.npy")
        diffbir_server.run(prompt)
        shown[space] = np.load(diffbir_server.base / "output" / "weight.npy")[..., 0]
        assert shown[space].shape == (1, 64, 60)
    # Left of what the padding can reach.
    assert np.abs(shown["rgb"] - weight[:, 0, :, :60].numpy())[..., :58].max() < 1e-6
    assert np.abs(shown["latent"] - pooled[:, 0, :, :60].numpy())[..., :56].max() < 1e-6


def test_mask_keeps_and_invents(
    diffbir_server: Server, image: Array, target: Array, plain: Array
) -> None:
    half = np.zeros((1, 64, 64), np.float32)
    half[..., :32] = 1
    prompt = with_mask(diffbir_server, guided(restoration(diffbir_server, image)), half)
    kept = latent_of(diffbir_server, prompt)
    assert np.abs(kept - target)[..., :4].max() < 1e-4
    assert np.abs(kept - target)[..., 4:].mean() > 0.1
    nothing = with_mask(
        diffbir_server, guided(restoration(diffbir_server, image)), np.zeros_like(half)
    )
    assert np.array_equal(latent_of(diffbir_server, nothing), plain)
    grey = with_mask(
        diffbir_server, guided(restoration(diffbir_server, image)), np.full_like(half, 0.5)
    )
    unmasked = latent_of(diffbir_server, guided(restoration(diffbir_server, image)))
    assert np.abs(latent_of(diffbir_server, grey) - unmasked).max() < 1e-5


def test_each_image_of_a_batch_has_its_own_guidance(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, image[:, ::-1], 1 - image])
    prompt = guided(restoration(diffbir_server, batch), scale=0.01, loss="w_mse")
    together = latent_of(diffbir_server, prompt)
    alone = latent_of(
        diffbir_server, guided(restoration(diffbir_server, image), scale=0.01, loss="w_mse")
    )
    # The sampler draws the noise of the batch's first image as for an image alone.
    assert np.abs(together[:1] - alone).max() < 1e-3
    keep = np.ones((1, 64, 64), np.float32)
    kept = latent_of(
        diffbir_server, with_mask(diffbir_server, guided(restoration(diffbir_server, batch)), keep)
    )
    targets = stage1_latent(diffbir_server, batch)
    assert np.abs(targets - targets[:1]).max() > 0.01
    assert np.abs(kept - targets).max() < 1e-4


def test_start_and_end_limit_it(diffbir_server: Server, image: Array) -> None:
    sampling = {"steps": 4}

    def run(**inputs: Any) -> Array:
        prompt = restoration(diffbir_server, image, sampling=sampling)
        return latent_of(diffbir_server, guided(prompt, **inputs) if inputs else prompt)

    plain = run()
    whole = run(scale=0.005)
    first = run(scale=0.005, start_percent=0.0, end_percent=0.0)
    last = run(scale=0.005, start_percent=1.0, end_percent=1.0)
    between = run(scale=0.005, start_percent=0.01, end_percent=0.02)
    assert np.array_equal(between, plain)
    for limited in (first, last):
        assert not np.array_equal(limited, plain)
        assert not np.array_equal(limited, whole)
    assert not np.array_equal(first, last)


def test_repeats_pull_further(diffbir_server: Server, image: Array, target: Array) -> None:
    once, thrice = (
        distance(
            latent_of(
                diffbir_server,
                guided(restoration(diffbir_server, image), scale=0.002, repeats=repeats),
            ),
            target,
        )
        for repeats in (1, 3)
    )
    assert thrice < once


def test_picture_between_multiples_of_64(diffbir_server: Server, image: Array) -> None:
    """Guidance pads as DiffBIR Conditioning does; a stock latent without the padding fits too."""
    odd = image[:, :50, :44]
    prompt = guided(restoration(diffbir_server, odd))
    assert latent_of(diffbir_server, prompt).shape == (1, 4, 8, 8)
    prompt["sample"]["inputs"]["latent_image"] = ["empty", 0]
    prompt["empty"] = node("EmptyLatentImage", width=48, height=56, batch_size=1)
    for name in ("positive", "negative"):
        prompt["sample"]["inputs"][name] = [name, 0]
    assert latent_of(diffbir_server, prompt).shape == (1, 4, 7, 6)


def test_rgb_comes_closer_through_the_decoder(diffbir_server: Server, image: Array) -> None:
    write_vae(diffbir_server.base / "models")
    distances = []
    for scale in (0.0, 0.05, 0.2):
        prompt = restoration(diffbir_server, image, sampling={"steps": 3})
        prompt["vae"]["inputs"]["vae_name"] = "sd.safetensors"
        prompt = guided(prompt, scale=scale, space="rgb", loss="mse")
        prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
        prompt["save"] = node("TestSaveTensor", image=["decode", 0], file="rgb.npy")
        diffbir_server.run(prompt)
        distances.append(distance(np.load(diffbir_server.base / "output" / "rgb.npy"), image))
    assert distances[0] > distances[1] > distances[2], distances


def test_rgb_in_tiles_equals_the_whole_picture(diffbir_server: Server, image: Array) -> None:
    """There and back through the decoder; the result moves by rounding only."""
    write_vae(diffbir_server.base / "models")
    wide = np.concatenate([image, image[:, :, ::-1]], axis=2)

    def run(tile_size: int, scale: float = 0.5) -> Array:
        prompt = restoration(diffbir_server, wide, sampling={"steps": 2})
        prompt["vae"]["inputs"]["vae_name"] = "sd.safetensors"
        rgb = {"space": "rgb", "loss": "w_mse", "tile_size": tile_size}
        return latent_of(diffbir_server, guided(prompt, scale=scale, **rgb))

    whole, tiles = run(0), run(64)
    assert 0 < np.abs(tiles - whole).max() < 1e-4 * np.abs(whole).max()
    assert np.abs(whole - run(0, 0.0)).max() > 0.01 * np.abs(whole).max()


def test_wrong_inputs_are_said_in_a_sentence(diffbir_server: Server, image: Array) -> None:
    def failure(prompt: Prompt) -> str:
        with pytest.raises(Failed) as failed:
            diffbir_server.run(prompt)
        return str(failed.value)

    tiny = failure(guided(restoration(diffbir_server, image), space="rgb"))
    assert "choose the space latent" in tiny
    other = guided(restoration(diffbir_server, image))
    other["other"] = node("TestLoadTensor", file=unique_copy(diffbir_server, image.repeat(2, 1)))
    other["guide"]["inputs"]["image"] = ["other", 0]
    assert "should have 64 x 64 pixels" in failure(other)
    narrow = with_mask(
        diffbir_server,
        guided(restoration(diffbir_server, image)),
        np.ones((1, 64, 32), np.float32),
    )
    assert "proportions of the image, 64 x 64, but 32 x 64 came" in failure(narrow)
