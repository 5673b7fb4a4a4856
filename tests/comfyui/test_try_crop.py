"""Try a Crop on the real server: a piece with noise, prompts and stage 1 of the whole."""

from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, latent_of, one_node, restored
from comfyui.harness import Prompt, Server, node, unique_copy
from comfyui.test_diffbir_tiling import with_second_control
from comfyui.test_restore_photo import FILES, expanded, run

from bir_core.images import from_channels_last, resize, to_channels_last

# In tiles that do not overlap, each tile is what it would be alone.
TILES = {"tile_size": 64, "overlap": 0}
# The middle of this box on a picture of 180 x 60 is that of its middle third.
MIDDLE = {"x": 70, "y": 10, "width": 40, "height": 40}


@pytest.fixture(scope="module")
def photo() -> Array:
    """(1, 60, 180, 3): 64 x 192 pixels with its padding, the result of a stage 1."""
    rows, columns = np.mgrid[0:60, 0:180].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def tried(prompt: Prompt, *keys: str, side: int = 64, place: Any = MIDDLE) -> Prompt:
    """A prompt with a piece, chosen on its image, for these nodes."""
    prompt["piece"] = node("BIRTryCrop", image=["image", 0], place=place, side=side)
    for key in keys:
        prompt[key]["inputs"]["piece"] = ["piece", 0]
    return prompt


def with_latent(prompt: Prompt) -> Prompt:
    prompt["latent"] = node("TestSaveLatent", latent=["sample", 1], file="latent.npy")
    return prompt


def test_a_piece_of_everything_is_the_whole(diffbir_server: Server, photo: Array) -> None:
    more = {"guidance": 0.02, "blending": 0.3, "tile_size": 64, "overlap": 32}
    plain = restored(diffbir_server, one_node(diffbir_server, photo, **more))
    piece = tried(one_node(diffbir_server, photo, **more), "sample", side=192)
    assert np.array_equal(restored(diffbir_server, piece), plain)


@pytest.mark.parametrize("sampler", ["dpmpp_3m_sde", "ddpm"])
def test_a_tile_alone_is_sampled_as_in_the_whole(
    diffbir_server: Server, photo: Array, sampler: str
) -> None:
    """Its start and all its steps have the noise of its place, and another control net the part of
    its hint; ours is left out, since the VAE sees the piece otherwise than the whole."""

    def prompt() -> Prompt:
        options = {"sampler_name": sampler, "strength": 0.0, **TILES}
        prompt = one_node(diffbir_server, photo, **options)
        prompt["conditioning"] = prompt["sample"]
        with_second_control(diffbir_server, prompt, 1 - photo)
        del prompt["conditioning"]
        return with_latent(prompt)

    whole = latent_of(diffbir_server, prompt())
    part = latent_of(diffbir_server, tried(prompt(), "sample"))
    assert whole.shape == (1, 4, 8, 24) and part.shape == (1, 4, 8, 8)
    assert np.abs(part - whole[..., 8:16]).max() < 1e-5 * np.abs(whole).max()


def test_a_piece_is_near_the_whole(diffbir_server: Server, photo: Array) -> None:
    """In tiles that overlap and without, where random networks look far; nearer than with another
    noise."""
    for more in ({"tile_size": 64, "overlap": 32}, {"tile_size": 0, "noise_aug": 50}):
        options = {"guidance": 0.02, **more}
        whole = restored(diffbir_server, one_node(diffbir_server, photo, **options))
        part, other = (
            restored(
                diffbir_server,
                tried(one_node(diffbir_server, photo, **options, seed=seed), "sample"),
            )
            for seed in (3, 4)
        )
        assert part.shape == (1, 60, 64, 3)
        off = np.abs(part - whole[:, :, 64:128]).mean()
        assert off < 0.8 * np.abs(other - whole[:, :, 64:128]).mean()


def test_crop_to_picture_takes_the_same_piece(diffbir_server: Server, photo: Array) -> None:
    """Of stage 1 at another size than the one asked for, with alpha. What is kept is stage 1."""
    alpha = np.linspace(0.01, 1, 30 * 90, dtype=np.float32).reshape(1, 30, 90, 1)
    small = np.concatenate([photo[:, ::2, ::2], alpha], -1)
    prompt = one_node(diffbir_server, photo)
    prompt["photo"] = node("TestLoadTensor", file=unique_copy(diffbir_server, small))
    prompt["module"] = node("UpscaleModelLoader", model_name="bir_x1.safetensors")
    prompt["clean"] = node(
        "BIRRestorationModule",
        upscale_model=["module", 0],
        image=["photo", 0],
        task="sr",
        version="v2",
        upscale_by=1.0,
        short_side=60,
    )
    ones = np.ones((1, 60, 180), np.float32)
    prompt["mask"] = node("TestLoadTensor", file=unique_copy(diffbir_server, ones))
    sizes = {"image": ["clean", 0], "size": ["clean", 1]}
    prompt["sample"]["inputs"] |= {**sizes, "mask": ["mask", 1], "color_fix": "none"}
    prompt["before"] = node("BIRCrop", **sizes)
    prompt["save_before"] = node("TestSaveTensor", image=["before", 0], file="before.npy")
    tried(prompt, "sample", "before")
    after = restored(diffbir_server, prompt)
    before = np.load(diffbir_server.base / "output" / "before.npy")
    assert after.shape == before.shape == (1, 30, 32, 4)
    assert np.abs(after - before).max() < 1e-5
    assert np.abs(after[..., 3:] - alpha[:, :, 32:64]).max() < 1e-5


def test_restore_photo_tries_a_piece(diffbir_server: Server, photo: Array) -> None:
    small = photo[:, ::4, ::4].copy()
    whole = run(diffbir_server, small)
    image = node("TestLoadTensor", file=unique_copy(diffbir_server, small))
    place = {"x": 20, "y": 0, "width": 10, "height": 10}
    prompt = {
        "image": image,
        "photo": node(
            "BIRRestorePhoto",
            image=["image", 0],
            **{"method": "one network", "method.model": "bir_x4_sharp.safetensors"},
            enlarge_by=4.0,
            fidelity=0.5,
        ),
        "save": node("TestSaveTensor", image=["photo", 0], file="photo.npy"),
    }
    diffbir_server.run(tried(prompt, "photo", place=place))
    part = np.load(diffbir_server.base / "output" / "photo.npy")
    assert np.array_equal(part, whole[:, :, 64:128])
    method = {"method": "DiffBIR", **FILES}
    found = expanded(diffbir_server, method, piece=["piece", 0])["nodes"]
    (sampler,) = (e["inputs"] for e in found.values() if e["class_type"] == "DiffBIRSampler")
    assert sampler["piece"] == ["piece", 0]


def test_restore_photo_takes_a_mask(diffbir_server: Server, photo: Array) -> None:
    """One network has nothing to invent with: what is kept is the enlarged photograph."""
    small = photo[:, ::4, ::4].copy()
    mask = np.zeros(small.shape[:3], np.float32)
    mask[..., :20] = 1
    plain = run(diffbir_server, small)
    prompt = {
        "image": node("TestLoadTensor", file=unique_copy(diffbir_server, small)),
        "mask": node("TestLoadTensor", file=unique_copy(diffbir_server, mask)),
        "photo": node(
            "BIRRestorePhoto",
            image=["image", 0],
            mask=["mask", 1],
            **{"method": "one network", "method.model": "bir_x4_sharp.safetensors"},
            enlarge_by=4.0,
            fidelity=0.5,
        ),
        "save": node("TestSaveTensor", image=["photo", 0], file="photo.npy"),
    }
    diffbir_server.run(prompt)
    kept = np.load(diffbir_server.base / "output" / "photo.npy")
    assert np.abs(kept - plain)[:, :, 90:].max() < 1e-6
    enlarged = resize(from_channels_last(torch.from_numpy(small)), 60, 180).clamp(0, 1)
    assert np.abs(kept - to_channels_last(enlarged).numpy())[:, :, :70].max() < 1e-5
    method = {"method": "DiffBIR", **FILES}
    found = expanded(diffbir_server, method, mask=["mask", 1], painted="invent")["nodes"]
    (sampler,) = (e["inputs"] for e in found.values() if e["class_type"] == "DiffBIRSampler")
    assert (sampler["mask"], sampler["painted"]) == (["mask", 1], "invent")
