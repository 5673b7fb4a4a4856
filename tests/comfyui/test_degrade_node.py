"""BIRDegrade: what `bir degrade` makes of the same picture and seed."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from command_line import run_here

from bir_core.degradations import get_preset
from bir_core.degradations.pictures import degrade_picture
from bir_core.images import from_channels_last
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.seeds import SEEDS

LAST = SEEDS - 1


def degraded(server: Server, image: Array, **inputs: Any) -> dict[str, Any]:
    """The outputs by name, IMAGE and MASK as arrays."""
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "degrade": node("BIRDegrade", image=["image", 0], **inputs),
        "hole": node("MaskToImage", mask=["degrade", 2]),
        "text": node("PreviewAny", source=["degrade", 3]),
    }
    sources = {"image": ["degrade", 0], "original": ["degrade", 1], "hole": ["hole", 0]}
    for name, source in sources.items():
        prompt[f"save_{name}"] = node("TestSaveTensor", image=source, file=f"{name}.npy")
    outputs = server.run(prompt)
    arrays = {name: np.load(server.base / "output" / f"{name}.npy") for name in sources}
    return {**arrays, "drawn": json.loads(outputs["text"]["text"][0])}


@pytest.fixture
def image() -> Array:
    """(2, 41, 54, 3) of 8 bits."""
    drawn = np.random.default_rng(8).integers(0, 256, (2, 41, 54, 3))
    return (drawn / 255).astype(np.float32)


@pytest.mark.parametrize(
    "preset",
    [
        *("simple_x4", "realesrgan_x2_usm", "diffbir_v2.1", "codeformer", "masks_thin_256"),
        *("bicubic_x4", "motion_blur", "defocus", "varying", "film_grain"),
    ],
)
def test_equals_the_command(server: Server, image: Array, tmp_path, preset: str) -> None:
    source = tmp_path / "in.png"
    write_picture(source, Picture(from_channels_last(torch.from_numpy(image[:1]))))
    mask = ["--mask", tmp_path / "mask.png"] if preset.startswith("masks") else []
    done = run_here(
        *("degrade", source, tmp_path / "out.png", "--preset", preset, "--seed", LAST),
        *("--draws", tmp_path / "draws.json", *mask),
    )
    assert done.returncode == 0, done.stderr
    ours = degraded(server, image, preset=preset, seed=LAST)
    written = read_picture(tmp_path / "out.png").image.movedim(1, -1).numpy()
    assert ours["image"].shape == (2, *written.shape[1:])
    assert np.abs(np.rint(ours["image"][:1] * 255) - np.rint(written * 255)).max() == 0
    drawn = json.loads((tmp_path / "draws.json").read_text())["pictures"]["in.png"]
    assert ours["drawn"]["images"][0] == {"seed": LAST, "draws": drawn["draws"]}
    assert ours["drawn"]["images"][1]["seed"] == 0
    if mask:
        hole = read_picture(tmp_path / "mask.png").image.movedim(1, -1).numpy()
        assert np.array_equal(ours["hole"][:1], hole) and 0 < hole.mean() < 1
    else:
        assert ours["hole"].shape == ours["image"].shape and not ours["hole"].any()


def test_original_covers_the_same_part(server: Server, image: Array) -> None:
    ours = degraded(server, image, preset="clean_x4", seed=0)
    assert ours["image"].shape == (2, 10, 13, 3)
    assert np.array_equal(ours["original"], image[:, :40, :52])


def test_each_image_is_as_if_alone(server: Server, image: Array) -> None:
    together = degraded(server, image, preset="simple_x1", seed=3)
    alone = degraded(server, image[1:], preset="simple_x1", seed=4)
    assert np.array_equal(together["image"][1:], alone["image"])
    assert not np.array_equal(
        together["image"], degraded(server, image, preset="simple_x1", seed=4)["image"]
    )


def test_scale_and_alpha(server: Server, image: Array) -> None:
    alpha = np.ones((2, 41, 54, 1), np.float32)
    alpha[:, :, 26:] = 0.5
    with_alpha = np.concatenate([image, alpha], -1)
    ours = degraded(server, with_alpha, preset="clean_x1", seed=0, scale=2)
    assert ours["image"].shape == (2, 20, 27, 4)
    assert np.abs(ours["image"][..., 3] - alpha[:, :40:2, ::2, 0]).max() < 1e-6
    with pytest.raises(Failed, match="scale"):
        degraded(server, image, preset="masks_thin_256", seed=0, scale=2)


def test_old_photographs_come_with_their_damage(server: Server) -> None:
    drawn = np.random.default_rng(8).integers(0, 256, (2, 160, 200, 3))
    image = (drawn / 255).astype(np.float32)
    preset = get_preset("foreign_old_photo")
    pictures = from_channels_last(torch.from_numpy(image))
    expected = [
        degrade_picture(picture[None], None, preset, seed=seed)
        for seed, picture in enumerate(pictures)
    ]
    ours = degraded(server, image, preset="foreign_old_photo", seed=0)
    for index, each in enumerate(expected):
        assert each.mask is not None
        assert np.array_equal(ours["hole"][index, ..., 0], each.mask[0, 0].numpy())
    assert ours["hole"].any()
