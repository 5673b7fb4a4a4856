"""The restoration module and Crop to Picture on the real server."""

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, restoration
from comfyui.diffbir_models import swinir
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.models import CONFIGS, random_model

from bir_core import load_model
from bir_core.compact.restore import restore_compact
from bir_core.diffbir.stage1 import restore_stage1, stage1_sizes
from bir_core.diffbir.versions import official_order
from bir_core.diffir.restore import restore


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 40, 56, 3)"""
    return np.random.default_rng(1).random((1, 40, 56, 3), dtype=np.float32)


def stage1(server: Server, image: Array, model: str = "swinir.safetensors", **inputs) -> Prompt:
    defaults = {"task": "sr", "version": "v2.1", "upscale_by": 2.0, "short_side": 0}
    return {
        "model": node("UpscaleModelLoader", model_name=model),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "stage1": node(
            "BIRRestorationModule",
            upscale_model=["model", 0],
            image=["image", 0],
            **{**defaults, **inputs},
        ),
        "save": node("TestSaveTensor", image=["stage1", 0], file="stage1.npy"),
    }


def picture_of(server: Server, prompt: Prompt) -> Array:
    output = server.base / "output" / "stage1.npy"
    output.unlink(missing_ok=True)
    server.run(prompt)
    picture: Array = np.load(output)
    assert picture.dtype == np.float32
    return picture


def outside_comfyui(image: Array, task: str, version: str, padding: str, side: int) -> Array:
    pictures = torch.from_numpy(image).movedim(-1, 1)
    order = official_order(task, version)
    sizes = stage1_sizes(*pictures.shape[-2:], order, 2.0, side)
    restored = restore_stage1(pictures, swinir(), order, sizes, padding=padding)
    result: Array = restored.movedim(1, -1).numpy()
    assert result.min() < 0 or result.max() > 1  # as in the official code
    return result


@pytest.mark.parametrize(
    ("task", "version", "padding", "side"),
    [
        ("sr", "v2.1", "reflect", 0),
        ("face", "v1", "black", 0),
        ("denoise", "v2.1", "black", 96),
        ("sr", "v2.1", "symmetric", 0),
    ],
)
def test_node_equals_the_library(
    diffbir_server: Server, image: Array, task: str, version: str, padding: str, side: int
) -> None:
    choices = {"task": task, "version": version, "padding": padding, "short_side": side}
    ours = picture_of(diffbir_server, stage1(diffbir_server, image, **choices))
    assert ours.shape == ((1, 96, 134, 3) if side else (1, 80, 112, 3))
    np.testing.assert_allclose(
        ours, outside_comfyui(image, task, version, padding, side), atol=2e-5
    )


@pytest.mark.parametrize("version", ["v1", "v2", "v2.1"])
@pytest.mark.parametrize("task", ["sr", "denoise", "face"])
def test_a_model_that_enlarges_serves_every_order(
    diffbir_server: Server, image: Array, task: str, version: str
) -> None:
    prompt = stage1(diffbir_server, image, "sr_x4.safetensors", task=task, version=version)
    assert picture_of(diffbir_server, prompt).shape == (1, 80, 112, 3)


def test_a_compact_module_goes_through_in_strips_whatever_the_tile(
    diffbir_server: Server, image: Array
) -> None:
    choices = {"task": "sr", "version": "v2.1", "upscale_by": 2.0, "short_side": 0}
    network = load_model("builtin-x1")
    pictures = torch.from_numpy(image).movedim(-1, 1)
    sizes = stage1_sizes(*pictures.shape[-2:], official_order("sr", "v2.1"), 2.0, 0)
    expected = restore_stage1(
        pictures, lambda x: restore_compact(x, network), official_order("sr", "v2.1"), sizes
    )
    for tile in (0, 64):
        prompt = stage1(diffbir_server, image, "bir_x1.safetensors", tile=tile, **choices)
        ours = picture_of(diffbir_server, prompt)
        np.testing.assert_allclose(ours, expected.movedim(1, -1).numpy(), atol=1e-5)


def test_diffir_as_stage_1_sees_the_whole_picture(diffbir_server: Server, image: Array) -> None:
    choices = {"version": "v2", "upscale_by": 4.0, "tile": 64}
    prompt = stage1(diffbir_server, image.repeat(3, axis=2), "sr_x4.safetensors", **choices)
    ours = picture_of(diffbir_server, prompt)
    model = random_model(CONFIGS["sr_x4"], list(CONFIGS).index("sr_x4"))
    wide = torch.from_numpy(image.repeat(3, axis=2)).movedim(-1, 1)
    expected = restore(wide, model, seed=0).movedim(1, -1).numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_each_picture_of_a_batch_is_as_if_alone(diffbir_server: Server, image: Array) -> None:
    batch = np.concatenate([image, 1 - image, image[:, ::-1]])
    together = picture_of(diffbir_server, stage1(diffbir_server, batch))
    for index in range(3):
        alone = picture_of(diffbir_server, stage1(diffbir_server, batch[index : index + 1].copy()))
        np.testing.assert_array_equal(alone[0], together[index])


def test_tiles_cover_any_picture(diffbir_server: Server) -> None:
    large = np.random.default_rng(2).random((1, 150, 210, 3), dtype=np.float32)
    choices = {"upscale_by": 1.0, "padding": "reflect"}
    whole, tiled, wide = (
        picture_of(diffbir_server, stage1(diffbir_server, large, **choices, **tiles))
        for tiles in ({}, {"tile": 128}, {"tile": 128, "overlap": 96})
    )
    assert tiled.shape == whole.shape == large.shape
    # The attention of the network reaches beyond a tile, so this is near, not equal.
    assert 0 < np.abs(wide - whole).mean() < 0.1
    assert 0 < np.abs(tiled - whole).mean() < 0.1
    with pytest.raises(Failed, match="multiple of 64 pixels"):
        diffbir_server.run(stage1(diffbir_server, large, tile=100))


def test_alpha_is_carried(diffbir_server: Server, image: Array) -> None:
    # Above 0: what is hidden would get the colours around it.
    alpha = np.linspace(0.01, 1, 56, dtype=np.float32)[None, None, :, None].repeat(40, axis=1)
    with_alpha = np.concatenate([image, alpha], axis=-1)
    ours = picture_of(diffbir_server, stage1(diffbir_server, with_alpha))
    assert ours.shape == (1, 80, 112, 4)
    np.testing.assert_array_equal(
        ours[..., :3], picture_of(diffbir_server, stage1(diffbir_server, image))
    )
    assert np.all(np.diff(ours[0, 40, :, 3]) > -0.01)


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 90)])
def test_tiny_pictures(diffbir_server: Server, size: tuple[int, int]) -> None:
    tiny = np.random.default_rng(3).random((1, *size, 3), dtype=np.float32)
    side = 64 if size[0] == size[1] else 0
    ours = picture_of(diffbir_server, stage1(diffbir_server, tiny, short_side=side))
    assert ours.shape[1:3] == ((64, 64) if side else (2, 180))


def test_long_thin_picture_is_said(diffbir_server: Server) -> None:
    thin = np.zeros((1, 1, 5000, 3), np.float32)
    with pytest.raises(Failed, match="512 x 2560000; crop it") as failure:
        diffbir_server.run(stage1(diffbir_server, thin, short_side=512))
    assert failure.value.node_type == "BIRRestorationModule"


def test_a_result_that_cannot_fit_is_said_before_the_work(diffbir_server: Server) -> None:
    prompt = stage1(diffbir_server, np.zeros((1, 1, 1, 3), np.float32), upscale_by=16.0)
    prompt["image"] = node("EmptyImage", width=8192, height=8192, batch_size=1, color=0)
    with pytest.raises(Failed, match=r"needs 618\.5 GB of .* enlarge it \d") as failure:
        diffbir_server.run(prompt)
    assert failure.value.node_type == "BIRRestorationModule"


def test_both_stages_return_to_the_size_asked_for(diffbir_server: Server, image: Array) -> None:
    """Stage 1 enlarges to its short side, stage 2 pads, the two crops undo it."""
    prompt = restoration(diffbir_server, image)
    first = stage1(diffbir_server, image, short_side=72)
    prompt |= {"upscaler": first["model"], "stage1": first["stage1"]}
    prompt["stage1"]["inputs"]["upscale_model"] = ["upscaler", 0]
    prompt["conditioning"]["inputs"]["image"] = ["stage1", 0]
    prompt["stage1"]["inputs"]["upscale_by"] = 1.0
    prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
    prompt["crop"] = node("BIRCrop", image=["decode", 0], latent=["sample", 0])
    prompt["return"] = node("BIRCrop", image=["crop", 0], size=["stage1", 1])
    prompt["at_once"] = node(
        "BIRCrop", image=["decode", 0], latent=["conditioning", 2], size=["stage1", 1]
    )
    for name in ("stage1", "decode", "crop", "return", "at_once"):
        prompt[f"save_{name}"] = node("TestSaveTensor", image=[name, 0], file=f"{name}.npy")
    diffbir_server.run(prompt)
    outputs = diffbir_server.base / "output"
    pictures = {
        name[5:]: np.load(outputs / f"{name[5:]}.npy") for name in prompt if "save_" in name
    }
    assert pictures["stage1"].shape == pictures["crop"].shape == (1, 72, 100, 3)
    assert pictures["decode"].shape == (1, 128, 128, 3)
    np.testing.assert_array_equal(pictures["crop"], pictures["decode"][:, :72, :100])
    assert pictures["return"].shape == image.shape
    np.testing.assert_array_equal(pictures["return"], pictures["at_once"])


def test_progress_of_the_tiles(diffbir_server: Server) -> None:
    large = np.random.default_rng(4).random((2, 200, 200, 3), dtype=np.float32)
    steps = []
    with diffbir_server.messages("stage1") as messages:
        prompt = stage1(diffbir_server, large, upscale_by=1.0, tile=64)
        prompt_id = diffbir_server.queue(prompt, "stage1")
        for message in messages:
            if message["type"] == "progress" and message["data"]["node"] == "stage1":
                steps.append((message["data"]["value"], message["data"]["max"]))
            if message["type"] in ("execution_success", "execution_error"):
                break
    diffbir_server.wait(prompt_id)
    values = [value / maximum for value, maximum in steps]
    assert values == sorted(values) and values[-1] == 1
    assert len(set(values)) > 1  # ComfyUI throttles the messages
