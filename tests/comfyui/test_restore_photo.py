"""Restore Photo on the real server: it becomes the nodes that a user would connect."""

import itertools
import json
import os
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Refused, Server, node, unique_copy

from bir_core import load_model, restore
from bir_core.diffbir.versions import VERSIONS

SHARP = {"method": "one network", "method.model": "bir_x4_sharp.safetensors"}
NUMBERS = itertools.count()
FILES: dict[str, Any] = {
    "control_net": "mini_v2.safetensors",
    "checkpoint": "base.safetensors",
    "restoration_module": "bir_x1.safetensors",
    "task": "sr",
    "seed": 5,
}


@pytest.fixture(scope="module")
def image() -> Array:
    return np.random.default_rng(0).random((1, 20, 28, 3), np.float32)


def run(server: Server, image: Array, **inputs: Any) -> Array:
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "photo": node(
            "BIRRestorePhoto",
            image=["image", 0],
            **{**SHARP, "enlarge_by": 4.0, "fidelity": 0.5, **inputs},
        ),
        "save": node("TestSaveTensor", image=["photo", 0], file="photo.npy"),
    }
    server.run(prompt)
    result: Array = np.load(server.base / "output" / "photo.npy")
    return result


def by_the_package(image: Array, name: str) -> Array:
    picture = restore(torch.from_numpy(image).movedim(-1, 1), load_model(name))
    result: Array = picture.movedim(1, -1).numpy()
    return result


def expanded(server: Server, method: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """The nodes that it becomes, which of them gives the result, and the fingerprint."""
    given = {"image": ["image", 0], "method": method, "enlarge_by": 2.0, "fidelity": 0.5}
    prompt = {
        # The space makes it another text, so that it is expanded each time.
        "expand": node("TestExpand", inputs=json.dumps(given | inputs) + " " * next(NUMBERS)),
        "show": node("PreviewAny", source=["expand", 0]),
    }
    (text,) = server.run(prompt)["show"]["text"]
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_control_net_that_is_written_anew_is_seen(diffbir_server: Server) -> None:
    method = {"method": "DiffBIR", **FILES}
    file = diffbir_server.base / "models" / "controlnet" / FILES["control_net"]
    before = expanded(diffbir_server, method)["fingerprint"]
    assert expanded(diffbir_server, method)["fingerprint"] == before
    later = file.stat().st_mtime_ns + 10**9
    os.utime(file, ns=(later, later))
    assert expanded(diffbir_server, method)["fingerprint"] != before


def test_one_network_is_that_of_the_package(server: Server, image: Array) -> None:
    ours = run(server, image)
    np.testing.assert_allclose(ours, by_the_package(image, "builtin-x4-sharp"), atol=1e-5)


def test_each_widget_changes_the_picture(server: Server, image: Array) -> None:
    plain = run(server, image)
    assert run(server, image, enlarge_by=1.5).shape == (1, 30, 42, 3)
    assert run(server, image, enlarge_by=1.0).shape == image.shape
    others = [
        run(server, image, fidelity=0.8),
        run(server, image, fidelity=1.0),
        run(server, image, **{"method.model": "bir_x4.safetensors"}),
    ]
    for other in others:
        assert np.abs(other - plain).max() > 0.01
    # Nearer to the photograph, the more faithful it is to be.
    small = [np.abs(each[:, 2::4, 2::4] - image).mean() for each in (plain, others[0], others[1])]
    assert small[0] > small[1] > small[2]


def test_alpha_is_kept(server: Server, image: Array) -> None:
    alpha = np.ones((1, 20, 28, 1), np.float32)
    alpha[:, :5] = 0
    ours = run(server, np.concatenate([image, alpha], -1), fidelity=0.9)
    assert ours.shape == (1, 80, 112, 4)
    assert ours[0, 4, 50, 3] < 0.01 and ours[0, 60, 50, 3] > 0.99


def test_lists_show_what_fits(diffbir_server: Server) -> None:
    info = diffbir_server.get("/object_info/BIRRestorePhoto")["BIRRestorePhoto"]
    options = {
        option["key"]: option["inputs"]["required"]
        for option in info["input"]["required"]["method"][1]["options"]
    }
    networks = options["one network"]["model"][1]["options"]
    assert {"bir_x1.safetensors", "bir_x4_sharp.safetensors", "sr_x4.safetensors"} <= set(networks)
    assert "swinir.safetensors" in networks
    refused = {"stage1.safetensors", "inpainting.safetensors", "truncated.safetensors"}
    assert not refused & set(networks)
    control_nets = options["DiffBIR"]["control_net"][1]["options"]
    assert "mini_v2.safetensors" in control_nets and "stock.safetensors" not in control_nets


def test_a_list_without_files_is_said(server: Server, image: Array) -> None:
    method = {f"method.{name}": value for name, value in FILES.items()}
    info = server.get("/object_info/BIRRestorePhoto")["BIRRestorePhoto"]
    option = info["input"]["required"]["method"][1]["options"][1]["inputs"]["required"]
    assert option["checkpoint"][1]["options"] == ["no file found"]
    method["method.checkpoint"] = "no file found"
    method["method.control_net"] = option["control_net"][1]["options"][0]
    with pytest.raises(Failed, match="put the files into the folders") as failure:
        run(server, image, **{"method": "DiffBIR", **method})
    assert failure.value.exception_type == "ValueError"


def test_a_file_that_is_not_in_the_list_is_refused(server: Server, image: Array) -> None:
    with pytest.raises(Refused):
        run(server, image, **{"method.model": "stage1.safetensors"})


@pytest.mark.parametrize(
    ("control_net", "version"),
    [("mini_v2.safetensors", "v2"), ("mini_DiffBIR_v2.1.safetensors", "v2.1")],
)
def test_diffbir_takes_what_the_authors_set(
    diffbir_server: Server, control_net: str, version: str
) -> None:
    method = {"method": "DiffBIR", **FILES, "control_net": control_net}
    found = expanded(diffbir_server, method)["nodes"]
    texts = [
        entry["inputs"]["text"]
        for entry in found.values()
        if entry["class_type"] == "CLIPTextEncode"
    ]
    assert tuple(texts) == VERSIONS[version].prompts
    (sampler,) = (e["inputs"] for e in found.values() if e["class_type"] == "DiffBIRSampler")
    assert (sampler["steps"], sampler["cfg"], sampler["seed"]) == (0, -1, 5)
    assert (sampler["strength"], sampler["guidance"]) == (1, 0)
    assert "ImageBlend" not in {entry["class_type"] for entry in found.values()}


def test_what_diffbir_becomes_runs_and_fidelity_draws_it_to_the_cleaned_picture(
    diffbir_server: Server, image: Array
) -> None:
    """With the small base in the place of a checkpoint, which has no text encoder."""
    results = {}
    for fidelity in (0.0, 0.5, 1.0):
        method = {"method": "DiffBIR", **FILES}
        found = expanded(diffbir_server, method, fidelity=fidelity)
        prompt: Prompt = {
            "image": node("TestLoadTensor", file=unique_copy(diffbir_server, image)),
            "vae": node("VAELoader", vae_name="tiny.safetensors"),
            "result": node("TestSaveTensor", image=found["result"], file="result.npy"),
        }
        for key, entry in found["nodes"].items():
            kind, inputs = entry["class_type"], entry["inputs"]
            if kind == "CheckpointLoaderSimple":
                base = key
                entry = node("UNETLoader", unet_name="sd21.safetensors", weight_dtype="default")
            elif kind == "CLIPTextEncode":
                entry = node("TestZeroConditioning", value=len(inputs["text"]) / 100)
            elif kind == "BIRRestorationModule":
                inputs["short_side"] = 0
                prompt["clean"] = node("TestSaveTensor", image=["crop", 0], file="clean.npy")
                prompt["crop"] = node("BIRCrop", image=[key, 0], size=[key, 1])
            elif kind == "DiffBIRSampler":
                inputs |= {"steps": 2, "tile_size": 0}
            prompt[key] = entry
        for entry in prompt.values():
            for name, value in entry["inputs"].items():
                if value == [base, 2]:
                    entry["inputs"][name] = ["vae", 0]
        diffbir_server.run(prompt)
        output = diffbir_server.base / "output"
        results[fidelity] = np.load(output / "result.npy"), np.load(output / "clean.npy")
    assert all(result.shape == (1, 40, 56, 3) for result, _ in results.values())
    distances = [float(np.abs(result - clean).mean()) for result, clean in results.values()]
    assert np.abs(results[0.0][0] - results[0.5][0]).max() > 1e-4
    assert distances[2] < distances[1]
