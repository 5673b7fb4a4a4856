"""A mask means the same on the command line, in Python and in the nodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, latent_of, one_node, restoration, restored
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.test_diffbir_guidance import guided, with_mask
from comfyui.test_diffbir_tiling import with_second_control
from command_line import run_here
from PIL import Image

from bir_core import load_model, restore
from bir_core.images import from_channels_last, to_channels_last
from bir_core.pictures.files import read_picture


@pytest.mark.parametrize("transparent", [False, True])
def test_soft_masks_show_the_same_hole(
    restore_in_comfyui: Callable[..., Array], server: Server, tmp_path: Path, transparent: bool
) -> None:
    """Every shade of grey, and half of it transparent: the hole begins at one half of both."""
    shades = np.arange(256, dtype=np.uint8).reshape(8, 32)
    opacity = np.full_like(shades, 255)
    opacity[:, 16:] = 51 if transparent else 255
    Image.fromarray(np.stack([shades, opacity], -1)).save(tmp_path / "mask.png")
    photograph = np.random.default_rng(5).integers(0, 256, (8, 32, 3), np.uint8)
    Image.fromarray(photograph).save(tmp_path / "photo.png")
    path = server.base / "models" / "diffir" / "inpainting.safetensors"
    done = run_here(
        *("restore", tmp_path / "photo.png", tmp_path / "out.png"),
        *("--model", path, "--mask", tmp_path / "mask.png", "--bits", 16),
    )
    assert done.returncode == 0, done.stderr
    image, mask = photograph[None] / np.float32(255), (shades / np.float32(255))[None]
    mask = mask * opacity / np.float32(255)
    with torch.no_grad():
        python = restore(
            from_channels_last(torch.from_numpy(image)),
            load_model(path),
            mask=torch.from_numpy(mask)[:, None],
        )
    package = to_channels_last(python).numpy()
    filled = (np.abs(package - image) > 1e-6).any(-1)[0]
    assert not filled[mask[0] < 0.5].any()
    assert filled[mask[0] >= 0.5].mean() > 0.9
    assert filled[:, 16:].any() != transparent
    in_graph = restore_in_comfyui(image, "inpainting.safetensors", mask)
    np.testing.assert_allclose(in_graph, package, atol=1e-5)
    from_file = to_channels_last(read_picture(tmp_path / "out.png").image)
    np.testing.assert_allclose(from_file.numpy(), package, atol=1e-4)


def test_nothing_painted_is_no_mask(diffbir_server: Server) -> None:
    """Load Image gives 64 x 64 zeros for a picture without transparency, whatever its size."""
    Image.effect_noise((48, 40), 40).convert("RGB").save(diffbir_server.base / "input" / "un.png")
    prompt = {
        "load": node("DiffIRLoader", model_name="inpainting.safetensors"),
        "image": node("LoadImage", image="un.png"),
        "restore": node(
            "DiffIRRestore", model=["load", 0], image=["image", 0], mask=["image", 1], seed=0
        ),
        "save": node("TestSaveTensor", image=["restore", 0], file="restored.npy"),
    }
    with pytest.raises(Failed, match="paint the hole with Open in MaskEditor"):
        diffbir_server.run(prompt)
    prompt["load"]["inputs"]["model_name"] = "deblur.safetensors"
    diffbir_server.run(prompt)
    picture = np.random.default_rng(6).random((1, 64, 128, 3), np.float32)
    prompt = guided(restoration(diffbir_server, picture))
    plain = latent_of(diffbir_server, prompt)
    unpainted = with_mask(diffbir_server, prompt, np.zeros((1, 64, 64), np.float32))
    assert np.array_equal(latent_of(diffbir_server, unpainted), plain)
    everywhere = with_mask(diffbir_server, prompt, np.zeros((1, 64, 128), np.float32))
    assert not np.array_equal(latent_of(diffbir_server, everywhere), plain)


@pytest.mark.parametrize("kind", ["DiffBIRGuidance", "DiffBIRSampler"])
def test_masks_for_another_batch_are_refused(diffbir_server: Server, kind: str) -> None:
    picture = np.random.default_rng(6).random((3, 64, 64, 3), np.float32)
    prompt = guided(restoration(diffbir_server, picture))
    with_mask(diffbir_server, prompt, np.ones((2, 64, 64), np.float32))
    if kind == "DiffBIRSampler":
        prompt = {
            **{name: prompt[name] for name in ("model", "vae", "positive", "negative", "control")},
            **{name: prompt[name] for name in ("image", "mask")},
            "sample": node(
                kind,
                **{name: [name, 0] for name in ("model", "positive", "negative", "vae", "image")},
                **{"control_net": ["control", 0], "mask": ["mask", 1], "seed": 0, "steps": 1},
                **{"cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "strength": 1.0},
                **{"guidance": 0.01, "tile_size": 0, "color_fix": "none"},
            ),
            "save": node("TestSaveTensor", image=["sample", 0], file="restored.npy"),
        }
    with pytest.raises(Failed, match="one for each of the 3 images, but 2 came"):
        diffbir_server.run(prompt)


@pytest.fixture(scope="module")
def photo() -> Array:
    """(1, 60, 96, 3): 64 x 128 pixels with its padding, the result of a stage 1."""
    rows, columns = np.mgrid[0:60, 0:96].astype(np.float32)
    waves = [np.sin(rows / (9 + 2 * c)) * np.cos(columns / (13 - 3 * c)) for c in range(3)]
    return (np.stack(waves, -1) * 0.4 + 0.5).astype(np.float32)[None]


def thirds(*values: float) -> Array:
    """A mask (1, 60, 96) of three columns."""
    columns = np.repeat(np.array(values, np.float32), 32)
    return np.broadcast_to(columns, (1, 60, 96)).copy()


def masked(server: Server, prompt: Prompt, mask: Array, *keys: str, **inputs: Any) -> Prompt:
    """A prompt with a mask in these nodes."""
    prompt["mask"] = node("TestLoadTensor", file=unique_copy(server, mask))
    for key in keys:
        prompt[key]["inputs"] |= {"mask": ["mask", 1], **inputs}
    return prompt


def single_nodes(server: Server, photo: Array, guidance: float, blending: float) -> Prompt:
    prompt = guided(restoration(server, photo), scale=guidance, loss="w_mse")
    prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
    prompt["crop"] = node("BIRCrop", image=["decode", 0], latent=["conditioning", 2])
    prompt["fix"] = node(
        "BIRColorFix",
        image=["crop", 0],
        reference=["image", 0],
        method="wavelet",
        blending=blending,
    )
    prompt["save"] = node("TestSaveTensor", image=["fix", 0], file="restored.npy")
    return prompt


@pytest.mark.parametrize("guidance", [0.0, 0.02])
def test_the_sampler_masks_as_the_single_nodes(
    diffbir_server: Server, photo: Array, guidance: float
) -> None:
    mask = np.random.default_rng(3).random((1, 60, 96), np.float32)
    prompt = single_nodes(diffbir_server, photo, guidance, 0.3)
    masked(diffbir_server, prompt, mask, "conditioning", "guide", "fix")
    theirs = restored(diffbir_server, prompt)
    one = one_node(diffbir_server, photo, guidance=guidance, blending=0.3)
    ours = restored(diffbir_server, masked(diffbir_server, one, mask, "sample"))
    assert np.array_equal(ours, theirs)
    for left_out in ("conditioning", "guide", "fix"):
        del prompt[left_out]["inputs"]["mask"]
        assert not np.array_equal(restored(diffbir_server, prompt), theirs), left_out
        prompt[left_out]["inputs"]["mask"] = ["mask", 1]


@pytest.mark.parametrize("tile_size", [0, 64])
def test_keep_restore_and_invent(diffbir_server: Server, photo: Array, tile_size: int) -> None:
    plain_prompt = one_node(diffbir_server, photo, tile_size=tile_size, overlap=32)
    plain = restored(diffbir_server, plain_prompt)

    def run(mask: Array, **inputs: Any) -> Array:
        prompt = one_node(diffbir_server, photo, tile_size=tile_size, overlap=32)
        return restored(diffbir_server, masked(diffbir_server, prompt, mask, "sample", **inputs))

    mixed = run(thirds(1, 0.5, 0))
    assert np.array_equal(mixed[:, :, :32], photo[:, :, :32].clip(0, 1))
    assert np.abs(plain - photo)[:, :, :32].max() > 0.05
    assert np.abs(mixed - plain)[:, :, 64:].max() > 1e-3
    assert np.abs(run(thirds(0.5, 0.5, 0.5)) - plain).max() < 1e-5
    # What is painted, by a name of its own.
    for painted, values in (("keep", thirds(1, 0.5, 0.5)), ("invent", thirds(0, 0.5, 0.5))):
        by_name = run(thirds(1, 0, 0), painted=painted)
        assert np.array_equal(by_name, run(values)), painted
        assert np.abs(run(thirds(0, 0, 0), painted=painted) - plain).max() < 1e-5
    weaker = one_node(diffbir_server, photo, tile_size=tile_size, overlap=32, strength=0.6)
    invented = run(thirds(0, 0, 0), guidance=0.05, blending=0.5)
    assert np.abs(invented - restored(diffbir_server, weaker)).max() < 1e-4


def test_masks_of_a_batch_and_in_tiles_are_each_as_if_alone(
    diffbir_server: Server, photo: Array
) -> None:
    """In DiffBIR Conditioning, whose samplers take a batch at once; beside a second control net,
    which the mask leaves alone."""
    batch = np.concatenate([photo, 1 - photo])
    masks = np.random.default_rng(8).random((2, 60, 96), np.float32)

    def run(images: Array, masks: Array | None, seed: int, tile: bool) -> Array:
        prompt = restoration(diffbir_server, images, sampling={"seed": seed})
        with_second_control(diffbir_server, prompt, photo)
        if masks is not None:
            masked(diffbir_server, prompt, masks, "conditioning")
        if tile:
            prompt["tile"] = node(
                "DiffBIRTiledDiffusion",
                model=["model", 0],
                tile_size=64,
                overlap=32,
                tile_batch=2,
            )
            prompt["sample"]["inputs"]["model"] = ["tile", 0]
        return latent_of(diffbir_server, prompt)

    for tile in (False, True):
        first = run(batch, masks, 3, tile)[:1]
        scale = np.abs(first).max()
        assert np.abs(first - run(photo, masks[:1], 3, tile)).max() < 1e-5 * scale
        assert np.abs(first - run(photo, None, 3, tile)).max() > 1e-4 * scale


def test_the_mask_goes_with_a_latent_that_is_resized(diffbir_server: Server, photo: Array) -> None:
    """A latent that is resized before sampling: the mask goes with its image."""
    prompt = restoration(diffbir_server, photo)
    prompt["larger"] = node(
        "LatentUpscaleBy",
        samples=["conditioning", 2],
        upscale_method="nearest-exact",
        scale_by=2.0,
    )
    prompt["sample"]["inputs"]["latent_image"] = ["larger", 0]
    plain = latent_of(diffbir_server, prompt)
    assert plain.shape == (1, 4, 16, 32)
    masked(diffbir_server, prompt, thirds(0.5, 0.5, 0.5), "conditioning")
    assert np.abs(latent_of(diffbir_server, prompt) - plain).max() < 1e-5
    masked(diffbir_server, prompt, thirds(0, 0, 0), "conditioning")
    assert np.abs(latent_of(diffbir_server, prompt) - plain).max() > 1e-3
