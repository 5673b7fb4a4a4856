"""A mask means the same on the command line, in Python and in the nodes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, latent_of, restoration
from comfyui.harness import Failed, Server, node
from comfyui.test_diffbir_guidance import guided, with_mask
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
