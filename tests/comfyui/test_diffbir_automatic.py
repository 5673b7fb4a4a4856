"""A graph cannot be wrong without a word: what stands on automatic follows the control net."""

import json
import os
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array, latent_of, one_node, restoration, restored
from comfyui.diffbir_models import CONFIG, control_weights, unet_weights
from comfyui.harness import Failed, Prompt, Server, node
from diffbir_models import taught
from safetensors.torch import save_file

from bir_core.models import file_named
from bir_core.networks.unet import SDUNet

V2, V21, UNKNOWN = "mini_v2.safetensors", "mini_DiffBIR_v2.1.safetensors", "mine.safetensors"
EPS, V = {"sampling": "eps", "zsnr": False}, {"sampling": "v_prediction", "zsnr": True}


@pytest.fixture(scope="module")
def image() -> Array:
    """(1, 64, 64, 3)"""
    return np.random.default_rng(5).random((1, 64, 64, 3), dtype=np.float32)


def with_base(prompt: Prompt, **setting: Any) -> Prompt:
    """The model as ModelSamplingDiscrete sets it."""
    prompt["base"] = node("ModelSamplingDiscrete", model=["model", 0], **setting)
    for entry in prompt.values():
        if entry["class_type"] in ("DiffBIRSampler", "DiffBIRConditioning", "KSampler"):
            entry["inputs"]["model"] = ["base", 0]
    return prompt


def reported(server: Server, prompt: Prompt, name: str = "sample", output: int = 2) -> str:
    """The report of a node as its output gives it, which stands on the node too."""
    prompt["preview"] = node("PreviewAny", source=[name, output])
    outputs = server.run(prompt)
    (text,) = outputs["preview"]["text"]
    # A node that was executed for an earlier prompt shows it since then.
    assert outputs.get(name, {"text": [text]})["text"] == [text]
    return str(text)


@pytest.mark.parametrize(("control", "right"), [(V2, EPS), (V21, V)])
def test_the_sampler_sets_the_model(
    diffbir_server: Server, image: Array, control: str, right: dict[str, Any]
) -> None:
    expected = restored(
        diffbir_server,
        with_base(one_node(diffbir_server, image, control, sampling="as connected"), **right),
    )
    for setting in ({}, EPS, V, {**V, "zsnr": False}, {**EPS, "sampling": "lcm"}):
        prompt = one_node(diffbir_server, image, control)
        if setting:
            with_base(prompt, **setting)
        assert np.array_equal(restored(diffbir_server, prompt), expected)


@pytest.mark.parametrize(("control", "wrong"), [(V2, V), (V21, EPS), (V21, {**V, "zsnr": False})])
def test_as_connected_is_as_connected_and_said(
    diffbir_server: Server, image: Array, control: str, wrong: dict[str, Any]
) -> None:
    def run(sampling: str) -> tuple[Array, str]:
        prompt = with_base(one_node(diffbir_server, image, control, sampling=sampling), **wrong)
        text = reported(diffbir_server, prompt)
        return np.load(diffbir_server.base / "output" / "restored.npy"), text

    connected, doubt = run("as connected")
    automatic, sure = run("automatic")
    assert not np.allclose(connected, automatic, atol=1e-3)
    assert "Doubtful" in doubt and "wants" in doubt
    assert "Doubtful" not in sure and sure.startswith("DiffBIR v2")


OFFICIAL = {
    V2: {"steps": 50, "cfg": 4.0, "sampler_name": "ddpm", "scheduler": "spaced"},
    V21: {"steps": 10, "cfg": 8.0, "sampler_name": "dpmpp_3m_sde", "scheduler": "edm"},
}
AUTOMATIC = {"steps": 0, "cfg": -1.0, "sampler_name": "automatic", "scheduler": "automatic"}


@pytest.mark.parametrize("control", [V2, V21])
def test_settings_on_automatic_are_the_authors(
    diffbir_server: Server, image: Array, control: str
) -> None:
    automatic = one_node(diffbir_server, image, control, **AUTOMATIC)
    text = reported(diffbir_server, automatic)
    picture = np.load(diffbir_server.base / "output" / "restored.npy")
    official = one_node(diffbir_server, image, control, **OFFICIAL[control])
    assert np.array_equal(picture, restored(diffbir_server, official))
    assert all(
        f"{value:g}" if isinstance(value, float) else str(value) in text
        for value in OFFICIAL[control].values()
    )
    assert "Doubtful" not in text


def test_one_setting_may_be_automatic_and_another_not(diffbir_server: Server, image: Array) -> None:
    def run(**inputs: Any) -> Array:
        return restored(diffbir_server, one_node(diffbir_server, image, V21, **inputs))

    settings = {"steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal"}
    plain = run(**settings)
    for name, automatic in AUTOMATIC.items():
        one = run(**{**settings, name: automatic})
        # Of a sampler of their own the authors have a schedule.
        assert np.array_equal(one, run(**{**settings, name: OFFICIAL[V21][name]}))
        assert not np.allclose(one, plain, atol=1e-3), name
    by_sampler = {**settings, "sampler_name": "ddpm"}
    assert np.array_equal(
        run(**{**by_sampler, "scheduler": "automatic"}),
        run(**{**by_sampler, "scheduler": "spaced"}),
    )


@pytest.mark.parametrize(
    ("sampler", "scheduler", "doubt"),
    [
        ("dpmpp_2m_sde", "spaced", "dpmpp_2m_sde walk down edm, not spaced"),
        ("ddpm", "edm", "ddpm walk down spaced, not edm"),
        ("dpmpp_2m_sde", "edm", None),
        ("ddpm", "spaced", None),
        ("euler", "normal", None),
    ],
)
def test_schedules_of_another_sampler_are_said(
    diffbir_server: Server, image: Array, sampler: str, scheduler: str, doubt: str | None
) -> None:
    chosen = {"sampler_name": sampler, "scheduler": scheduler}
    text = reported(diffbir_server, one_node(diffbir_server, image, **chosen))
    assert (doubt in text) if doubt else ("Doubtful" not in text)


@pytest.mark.parametrize("setting", [EPS, V])
def test_an_unknown_version_is_said_and_the_base_decides(
    diffbir_server: Server, image: Array, setting: dict[str, Any]
) -> None:
    prompt = with_base(
        one_node(diffbir_server, image, UNKNOWN, **{**AUTOMATIC, "steps": 2}), **setting
    )
    text = reported(diffbir_server, prompt)
    assert "Doubtful: neither the control" in text and "trained_on" in text
    assert "Doubtful: neither the control" in reported(diffbir_server, prompt, "control", 1)
    assert ("steps of dpmpp_3m_sde" if setting == V else "steps of ddpm") in text


def test_settings_that_follow_from_nothing_are_refused(
    diffbir_server: Server, image: Array
) -> None:
    strange = {"sampling": "eps", "zsnr": True}
    prompt = with_base(one_node(diffbir_server, image, UNKNOWN, cfg=-1.0), **strange)
    with pytest.raises(Failed, match="choose trained_on in Load DiffBIR ControlNet"):
        diffbir_server.run(prompt)


@pytest.mark.parametrize(
    ("trained_on", "cfg"), [("v1", 1), ("v2", 4), ("v2.1", 8), ("v1, v2 (eps)", 4)]
)
def test_the_loader_may_be_told_the_version(
    diffbir_server: Server, image: Array, trained_on: str, cfg: int
) -> None:
    prompt = one_node(diffbir_server, image, UNKNOWN, cfg=-1.0)
    prompt["control"]["inputs"]["trained_on"] = trained_on
    text = reported(diffbir_server, prompt)
    assert f"cfg {cfg}." in text and "Doubtful" not in text


@pytest.mark.parametrize(("parameterization", "version"), [("v", "v2.1"), ("eps", "v2")])
def test_files_of_our_training_say_the_base_themselves(
    diffbir_server: Server, image: Array, parameterization: str, version: str
) -> None:
    header = {"training": json.dumps({"recipe": {"parameterization": parameterization}})}
    file = diffbir_server.base / "models" / "controlnet" / f"own_{parameterization}.safetensors"
    save_file(control_weights(), file, header)
    text = reported(diffbir_server, one_node(diffbir_server, image, file.name))
    assert text.startswith(f"DiffBIR {version} on") and "Doubtful" not in text


def test_the_loader_says_the_licence_of_a_published_file(
    diffbir_server: Server, image: Array
) -> None:
    folder = diffbir_server.base / "models" / "controlnet" / "published"
    folder.mkdir()
    known = file_named("v2.pth")
    torch.save(control_weights(), folder / known.name)
    prompt = one_node(diffbir_server, image, f"published{os.sep}{known.name}")
    text = reported(diffbir_server, prompt, "control", 1)
    assert text == f"IRControlNet of DiffBIR v2. {known.description}"
    assert known.licence in text and text.endswith("commercial use: unknown.")


@pytest.fixture(scope="module")
def bases(diffbir_server: Server) -> dict[str, str]:
    """Files of bases that give the noise back, and that give always the same, by what they
    predict."""
    names = {"eps": "noise.safetensors", "v": "flat.safetensors"}
    targets = {"eps": lambda noise: noise, "v": lambda noise: torch.full_like(noise, 0.3)}
    for predicts, name in names.items():
        network = SDUNet(CONFIG).eval().requires_grad_(False)
        network.load_state_dict(unet_weights())
        weights = taught(network, targets[predicts]).state_dict()
        file = diffbir_server.base / "models" / "diffusion_models" / name
        save_file({f"model.diffusion_model.{key}": value for key, value in weights.items()}, file)
    return names


def on(prompt: Prompt, base: str) -> Prompt:
    prompt["model"]["inputs"]["unet_name"] = base
    return prompt


@pytest.mark.parametrize(("predicts", "like", "version"), [("v", V21, "v2.1"), ("eps", V2, "v2")])
def test_the_base_says_what_the_file_of_the_control_net_does_not(
    diffbir_server: Server,
    image: Array,
    bases: dict[str, str],
    predicts: str,
    like: str,
    version: str,
) -> None:
    settings = {**AUTOMATIC, "steps": 2}
    prompt = on(one_node(diffbir_server, image, UNKNOWN, **settings), bases[predicts])
    text = reported(diffbir_server, prompt)
    picture = np.load(diffbir_server.base / "output" / "restored.npy")
    assert text.startswith(f"DiffBIR {version} on") and f"the model predicts {predicts}" in text
    named = on(one_node(diffbir_server, image, like, **settings), bases[predicts])
    assert np.array_equal(picture, restored(diffbir_server, named))


@pytest.mark.parametrize(("control", "predicts"), [(V2, "v"), (V21, "eps")])
def test_a_base_that_was_trained_otherwise_is_refused_or_said(
    diffbir_server: Server, image: Array, bases: dict[str, str], control: str, predicts: str
) -> None:
    prompt = on(one_node(diffbir_server, image, control), bases[predicts])
    with pytest.raises(Failed, match=f"but this model predicts {predicts}; load"):
        diffbir_server.run(prompt)
    connected = one_node(diffbir_server, image, control, sampling="as connected")
    text = reported(diffbir_server, on(connected, bases[predicts]))
    assert "Doubtful: DiffBIR v2" in text and f"the model predicts {predicts}" in text


def with_stage1(prompt: Prompt, connected: bool, **inputs: Any) -> Prompt:
    prompt["upscaler"] = node("UpscaleModelLoader", model_name="swinir.safetensors")
    prompt["stage1"] = node(
        "BIRRestorationModule",
        upscale_model=["upscaler", 0],
        image=["image", 0],
        **{"task": "denoise", "upscale_by": 2.0, "short_side": 0, **inputs},
    )
    if connected:
        prompt["stage1"]["inputs"]["control_net"] = ["control", 0]
    prompt["sample"]["inputs"]["image"] = ["stage1", 0]
    prompt["first"] = node("TestSaveTensor", image=["stage1", 0], file="first.npy")
    return prompt


def test_stage_1_takes_the_version_from_the_control_net(
    diffbir_server: Server, image: Array
) -> None:
    def run(control: str, version: str, connected: bool = True) -> tuple[Array, str]:
        prompt = with_stage1(
            one_node(diffbir_server, image, control), connected, version=version,
            short_side=96, upscale_by=1.0,
        )  # fmt: skip
        text = reported(diffbir_server, prompt, "stage1")
        return np.load(diffbir_server.base / "output" / "first.npy"), text

    v2, v21 = run(V2, "v2"), run(V21, "v2.1")
    assert not np.allclose(v2[0], v21[0], atol=1e-3)
    for control, expected in ((V2, v2), (V21, v21)):
        picture, text = run(control, "automatic")
        assert np.array_equal(picture, expected[0])
        assert text == expected[1] and "Doubtful" not in text
    assert "Doubtful: stage 1 of DiffBIR v2 for a control net of v2.1" in run(V21, "v2")[1]
    assert "No control net is connected" in run(V2, "automatic", False)[1]
    assert "Doubtful: neither" in run(UNKNOWN, "automatic")[1]


@pytest.mark.parametrize(("control", "right"), [(V2, EPS), (V21, V)])
def test_conditioning_sets_the_model_for_any_sampler(
    diffbir_server: Server, image: Array, control: str, right: dict[str, Any]
) -> None:
    expected = with_base(restoration(diffbir_server, image, control=control), **right)
    for setting in (EPS, V):
        prompt = with_base(restoration(diffbir_server, image, control=control), **setting)
        prompt["sample"]["inputs"]["model"] = ["conditioning", 3]
        latent = latent_of(diffbir_server, prompt)
        assert np.array_equal(latent, latent_of(diffbir_server, expected))
        assert "Doubtful" not in reported(diffbir_server, prompt, "conditioning", 4)


def test_conditioning_without_a_model_says_what_the_base_needs(
    diffbir_server: Server, image: Array
) -> None:
    prompt = restoration(diffbir_server, image, control=V21)
    text = reported(diffbir_server, prompt, "conditioning", 4)
    assert "ModelSamplingDiscrete (v_prediction, zsnr on)" in text
    prompt["sample"]["inputs"]["model"] = ["conditioning", 3]
    with diffbir_server.messages("blocked") as messages:
        diffbir_server.queue(prompt, "blocked")
        error = next(one["data"] for one in messages if one["type"] == "execution_error")
    assert "connect the base model to DiffBIR Conditioning" in error["exception_message"]


def test_a_stock_sampler_shows_that_the_base_is_another(
    diffbir_server: Server, image: Array
) -> None:
    prompt = with_base(restoration(diffbir_server, image, control=V21), **EPS)
    with diffbir_server.messages("doubt") as messages:
        diffbir_server.queue(prompt, "doubt")
        said = []
        for message in messages:
            if message["type"] == "progress_text":
                said.append((message["data"]["node"], message["data"]["text"]))
            if message["type"] == "execution_success":
                break
    (text,) = (text for name, text in said if name == "sample")
    assert "expects a base with v-prediction" in text and text.endswith(".")
