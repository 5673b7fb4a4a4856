"""The stock Load Upscale Model and Upscale Image (using Model) run DiffIR through spandrel."""

import numpy as np
import pytest
import torch
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.models import CONFIGS, random_model
from numpy.typing import NDArray

import bir_core
from bir_core import load_model
from bir_core.checkpoints.files import model_file
from bir_core.diffir.restore import restore
from bir_core.weights import BUILTIN_NAMES, NAMES_APART

Array = NDArray[np.float32]


def upscale(server: Server, image: Array, model_name: str) -> Array:
    prompt: Prompt = {
        "load": node("UpscaleModelLoader", model_name=model_name),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "upscale": node("ImageUpscaleWithModel", upscale_model=["load", 0], image=["image", 0]),
        "save": node("TestSaveTensor", image=["upscale", 0], file="upscaled.npy"),
    }
    server.run(prompt)
    upscaled: Array = np.load(server.base / "output" / "upscaled.npy")
    return upscaled


@pytest.mark.parametrize("name", ["sr_x4", "sr_x2", "sr_x1", "deblur"])
def test_stock_nodes_run_diffir(server: Server, picture: Array, name: str) -> None:
    upscaled = upscale(server, picture, f"{name}.safetensors")
    model = random_model(CONFIGS[name], list(CONFIGS).index(name))
    expected = restore(torch.from_numpy(picture).movedim(-1, 1), model, seed=0).movedim(1, -1)
    np.testing.assert_allclose(upscaled, expected.numpy(), atol=1e-5)


def test_stock_nodes_are_deterministic(server: Server, picture: Array) -> None:
    first, second = (upscale(server, picture, "sr_x4.safetensors") for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_stock_loader_refuses_inpainting_and_names_ours(server: Server, picture: Array) -> None:
    source = server.base / "models" / "diffir" / "inpainting.safetensors"
    copy = server.base / "models" / "upscale_models" / "inpainting_copy.safetensors"
    copy.write_bytes(source.read_bytes())
    with pytest.raises(Failed, match="Load DiffIR Model"):
        upscale(server, picture, copy.name)


def test_stock_loader_refuses_stage_1(server: Server, picture: Array) -> None:
    with pytest.raises(Failed, match="stage 2") as failure:
        upscale(server, picture, "stage1.safetensors")
    assert failure.value.exception_type == "bir_core.errors.BIRError"  # and no path


@pytest.mark.parametrize("name", BUILTIN_NAMES)
def test_stock_nodes_offer_the_built_in_models(server: Server, picture: Array, name: str) -> None:
    file = model_file(name).name
    offered = server.get("/object_info/UpscaleModelLoader")["UpscaleModelLoader"]["input"]
    assert file in offered["required"]["model_name"][1]["options"]
    upscaled = upscale(server, picture, file)
    images = torch.from_numpy(picture).movedim(-1, 1)
    expected = torch.cat(
        [bir_core.restore(images[i : i + 1], load_model(name)) for i in range(len(images))]
    )
    np.testing.assert_allclose(upscaled, expected.movedim(1, -1).numpy(), atol=1e-5)


def test_built_in_files_are_not_twice_in_our_own_loader(server: Server) -> None:
    offered = server.get("/object_info/DiffIRLoader")["DiffIRLoader"]["input"]["required"]
    names = offered["model_name"][1]["options"]
    assert not {model_file(name).name for name in BUILTIN_NAMES} & set(names)
    assert "builtin: DiffIR x4 (small)" in names and "sr_x4.safetensors" in names


def test_what_judges_pictures_is_no_upscale_model(server: Server) -> None:
    offered = server.get("/object_info/UpscaleModelLoader")["UpscaleModelLoader"]["input"]
    names = set(offered["required"]["model_name"][1]["options"])
    assert {model_file(name).name for name in BUILTIN_NAMES} <= names
    assert not {model_file(name).name for name in NAMES_APART} & names
