"""BIRFindScratches in the real server, with a network that takes bright pixels for damage."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Prompt, Server, node, unique_copy
from command_line import run_here
from finders import bright_finder, save_bright_finder

from bir_core.estimate.scratches import damage_mask, find_damage, load_finder, shown_damage
from bir_core.images import from_channels_last
from bir_core.pictures.files import Picture, read_picture, write_picture

NAME = "bright.safetensors"


@pytest.fixture(scope="module")
def folder(server: Server) -> Iterator[Path]:
    """The server's folder of detectors, with a file that finds and one that does not."""
    folder = server.base / "models" / "detection"
    folder.mkdir(parents=True, exist_ok=True)
    save_bright_finder(folder / NAME)
    (folder / "other.safetensors").write_text("no network")
    yield folder
    (folder / NAME).unlink(missing_ok=True)
    (folder / "other.safetensors").unlink()


@pytest.fixture
def scans() -> Array:
    """(2, 45, 62, 3) of 8 bits, each with bright pixels of its own."""
    values = np.random.default_rng(3).integers(0, 220, (2, 45, 62, 3))
    values[0, 10:30, 20] = 255
    values[1, 5, :] = 250
    return (values / 255).astype(np.float32)


def found(server: Server, image: Array, **inputs: Any) -> tuple[Array, Array]:
    """Mask (B, H, W) and preview (B, H, W, 3)."""
    given = {"threshold": 0.5, "grow": 2, "model_name": NAME, **inputs}
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "find": node("BIRFindScratches", image=["image", 0], **given),
        "shown": node("MaskToImage", mask=["find", 0]),
        "mask": node("TestSaveTensor", image=["shown", 0], file="mask.npy"),
        "preview": node("TestSaveTensor", image=["find", 1], file="preview.npy"),
    }
    server.run(prompt)
    output = server.base / "output"
    return np.load(output / "mask.npy")[..., 0], np.load(output / "preview.npy")


@pytest.mark.parametrize("grow", [0, 3])
def test_equals_bir_core(server: Server, folder: Path, scans: Array, grow: int) -> None:
    mask, preview = found(server, scans, grow=grow)
    pictures = from_channels_last(torch.from_numpy(scans))
    expected = damage_mask(find_damage(pictures, bright_finder()), 0.5, grow)
    assert expected.any() and np.array_equal(mask, expected[:, 0].numpy())
    shown = shown_damage(pictures, expected).movedim(1, -1).numpy()
    np.testing.assert_allclose(preview, shown, atol=1e-6)


def test_equals_the_command(server: Server, folder: Path, scans: Array, tmp_path: Path) -> None:
    source = tmp_path / "scan.png"
    write_picture(source, Picture(from_channels_last(torch.from_numpy(scans[:1]))))
    options = ("--model", folder / NAME, "--device", "cpu")
    assert run_here("scratches", source, tmp_path / "mask.png", *options).returncode == 0
    mask, _ = found(server, scans)
    assert np.array_equal(mask[0], read_picture(tmp_path / "mask.png").image[0, 0].numpy())


def test_alpha_and_single_pixels_are_taken(server: Server, folder: Path, scans: Array) -> None:
    opaque = np.concatenate([scans, np.ones_like(scans[..., :1])], axis=-1)
    assert np.array_equal(found(server, opaque)[0], found(server, scans)[0])
    assert found(server, np.ones((1, 1, 1, 3), np.float32))[0].tolist() == [[[1.0]]]


def test_automatic_is_the_network_of_the_pack(server: Server, scans: Array) -> None:
    pictures = from_channels_last(torch.from_numpy(scans))
    expected = damage_mask(find_damage(pictures, load_finder()), 0.5, 0)
    mask, _ = found(server, scans, model_name="automatic", grow=0)
    assert np.array_equal(mask, expected[:, 0].numpy())
