"""What users get wrong: one sentence each, and the next prompt works."""

from collections.abc import Callable

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, one_node, restoration, with_stock_apply
from comfyui.harness import Failed, Prompt, Refused, Server, node, unique_copy


@pytest.fixture
def image() -> Array:
    return np.random.default_rng(1).random((1, 64, 128, 3), dtype=np.float32)


def ours_behind_the_stock_loader(prompt: Prompt) -> None:
    prompt["control"] = node("ControlNetLoader", control_net_name="mini_v2.safetensors")


def stock_net_in_our_conditioning(prompt: Prompt) -> None:
    prompt["control"] = node("ControlNetLoader", control_net_name="stock.safetensors")


def damaged_weights(prompt: Prompt) -> None:
    prompt["control"]["inputs"]["control_net_name"] = "nan.safetensors"


def another_base(prompt: Prompt) -> None:
    prompt["model"]["inputs"]["unet_name"] = "sd15.safetensors"


def no_vae(prompt: Prompt) -> None:
    with_stock_apply(prompt)
    del prompt["conditioning"]["inputs"]["vae"]


def vae_of_another_model(prompt: Prompt) -> None:
    prompt["vae"]["inputs"]["vae_name"] = "pixel_space"


def image_of_another_aspect(prompt: Prompt) -> None:
    with_stock_apply(prompt)
    prompt["empty"]["inputs"]["height"] = 128


def area_behind_the_stock_apply(prompt: Prompt) -> None:
    with_stock_apply(prompt)
    prompt["area"] = node(
        "ConditioningSetArea",
        conditioning=["conditioning", 0],
        **{"x": 64, "y": 0, "width": 64, "height": 64, "strength": 1.0},
    )
    prompt["sample"]["inputs"]["positive"] = ["area", 0]


def flow_sampling(prompt: Prompt) -> None:
    prompt["flow"] = node("ModelSamplingSD3", model=["model", 0], shift=3.0)
    prompt["sample"]["inputs"]["model"] = ["flow", 0]


def schedule_of_a_flow_model(prompt: Prompt) -> None:
    flow_sampling(prompt)
    prompt["sigmas"] = node("DiffBIRScheduler", model=["flow", 0], steps=3, denoise=1.0)
    prompt["sampler"] = node("KSamplerSelect", sampler_name="euler")
    prompt["sample"] = node(
        "SamplerCustom",
        model=["model", 0],
        add_noise=True,
        noise_seed=0,
        cfg=1.0,
        positive=["conditioning", 0],
        negative=["conditioning", 1],
        sampler=["sampler", 0],
        sigmas=["sigmas", 0],
        latent_image=["conditioning", 2],
    )


@pytest.mark.parametrize(
    ("change", "node_type", "parts"),
    [
        (stock_net_in_our_conditioning, "DiffBIRConditioning", ["use Apply ControlNet"]),
        (damaged_weights, "DiffBIRControlNetLoader", ["time_embed.0.bias", "NaN"]),
        (another_base, "KSampler", ["SD15 model", "load Stable Diffusion 2.1 base"]),
        (no_vae, "ControlNetApplyAdvanced", ["none came", "Load DiffBIR ControlNet"]),
        (
            vae_of_another_model,
            "DiffBIRConditioning",
            ["3 channels at 1/1", "VAE of the base model"],
        ),
        (image_of_another_aspect, "KSampler", ["64 x 128", "128 x 128", "DiffBIR Conditioning"]),
        (area_behind_the_stock_apply, "KSampler", ["area of 8 x 8", "DiffBIR Conditioning"]),
        (flow_sampling, "KSampler", ["1000 trained timesteps", "ModelSamplingDiscrete"]),
        (schedule_of_a_flow_model, "DiffBIRScheduler", ["1000 trained timesteps"]),
    ],
)
def test_one_sentence(
    diffbir_server: Server,
    image: Array,
    change: Callable[[Prompt], None],
    node_type: str,
    parts: list[str],
) -> None:
    prompt = restoration(diffbir_server, image)
    change(prompt)
    output = diffbir_server.base / "output" / "latent.npy"
    output.unlink(missing_ok=True)
    with pytest.raises(Failed) as failure:
        diffbir_server.run(prompt)
    sentence = str(failure.value).strip()
    assert failure.value.node_type == node_type, sentence
    assert failure.value.exception_type == "ValueError"  # another shows a path to the user
    assert all(part in sentence for part in parts), sentence
    assert sentence.endswith(".") and "\n" not in sentence and sentence.count(". ") == 0
    assert not output.exists()
    latent_of(diffbir_server, restoration(diffbir_server, image))


@pytest.mark.parametrize(
    ("file", "parts"),
    [
        ("stock.safetensors", ["IRControlNet file", "belongs in Load ControlNet"]),
        ("absent.safetensors", ["absent.safetensors in models/controlnet", "choose another"]),
    ],
)
def test_a_wrong_file_is_refused_before_anything_runs(
    diffbir_server: Server, image: Array, file: str, parts: list[str]
) -> None:
    with pytest.raises(Refused) as refused:
        diffbir_server.queue(restoration(diffbir_server, image, control=file))
    sentence = refused.value.details["DiffBIRControlNetLoader", "control_net_name"]
    assert all(part in sentence for part in parts), sentence
    assert sentence.endswith(".") and "\n" not in sentence


def test_an_input_that_is_given_wrong_is_refused_beside_a_right_file(
    diffbir_server: Server, image: Array
) -> None:
    """ComfyUI's own check of the inputs that `validate_inputs` does not name."""
    with pytest.raises(Refused, match="weight_dtype"):
        diffbir_server.queue(restoration(diffbir_server, image, loader={"weight_dtype": "fp4"}))


@pytest.mark.parametrize(
    ("kind", "name", "inputs"),
    [
        ("BIRRestorationModule", "image", {"upscale_model": ["upscaler", 0], "task": "sr",
                                           "version": "v2.1", "upscale_by": 1.0}),
        ("BIRColorFix", "image", {"reference": ["image", 0], "method": "wavelet"}),
        ("BIRColorFix", "reference", {"image": ["image", 0], "method": "wavelet"}),
        ("BIRCrop", "image", {"latent": ["empty", 0]}),
        ("BIRVAEEncodeTiled", "pixels", {"vae": ["vae", 0], "tile_size": 64}),
        ("DiffBIRGuidance", "image", {"model": ["model", 0], "vae": ["vae", 0], "scale": 1.0,
                                      "space": "latent", "loss": "mse"}),
        ("DiffIRRestore", "image", {"model": ["diffir", 0], "seed": 0}),
    ],
)  # fmt: skip
def test_an_empty_batch_is_said(
    diffbir_server: Server, image: Array, kind: str, name: str, inputs: dict
) -> None:
    prompt = restoration(diffbir_server, image)
    prompt["nothing"] = node("TestLoadTensor", file=unique_copy(diffbir_server, image[:0]))
    prompt["empty"] = node("EmptyLatentImage", width=128, height=64, batch_size=1)
    prompt["upscaler"] = node("UpscaleModelLoader", model_name="swinir.safetensors")
    prompt["diffir"] = node("DiffIRLoader", model_name="sr_x1.safetensors")
    prompt["tried"] = node(kind, **inputs, **{name: ["nothing", 0]})
    prompt["show"] = node("PreviewAny", source=["tried", 0])
    for name in ("save", "sample", "conditioning"):
        del prompt[name]
    with pytest.raises(Failed, match="at least one picture") as failure:
        diffbir_server.run(prompt)
    assert failure.value.node_type == kind


def test_an_empty_batch_is_said_by_both_stages_of_sampling(
    diffbir_server: Server, image: Array
) -> None:
    for prompt, kind in (
        (restoration(diffbir_server, image[:0]), "DiffBIRConditioning"),
        (one_node(diffbir_server, image[:0]), "DiffBIRSampler"),
    ):
        with pytest.raises(Failed, match="at least one picture") as failure:
            diffbir_server.run(prompt)
        assert failure.value.node_type == kind


def test_our_file_behind_the_stock_loader_breaks_nothing(
    diffbir_server: Server, image: Array
) -> None:
    """ComfyUI's loader cannot be taught a sentence; it fails, and the right graph works after."""
    prompt = with_stock_apply(restoration(diffbir_server, image))
    ours_behind_the_stock_loader(prompt)
    with pytest.raises(Failed, match=r"input_hint_block\.0\.weight"):
        diffbir_server.run(prompt)
    latent_of(diffbir_server, restoration(diffbir_server, image))


@pytest.mark.parametrize(
    ("size", "latent"),
    [
        ((8, 8), (8, 8)),
        ((1, 1), (8, 8)),
        ((1, 500), (8, 64)),
        pytest.param((1, 5000), (8, 632), marks=pytest.mark.slow),
    ],
)
def test_tiny_and_thin_pictures_work(
    diffbir_server: Server, size: tuple[int, int], latent: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).random((1, *size, 3), dtype=np.float32)
    prompt = restoration(diffbir_server, image)
    prompt["decode"] = node("VAEDecode", samples=["sample", 0], vae=["vae", 0])
    prompt["crop"] = node("BIRCrop", image=["decode", 0], latent=["sample", 0])
    prompt["picture"] = node("TestSaveTensor", image=["crop", 0], file="picture.npy")
    assert latent_of(diffbir_server, prompt).shape == (1, 4, *latent)
    assert np.load(diffbir_server.base / "output" / "picture.npy").shape == (1, *size, 3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_and_alpha_pictures_work(diffbir_server: Server, image: Array, channels: int) -> None:
    picture = np.resize(image, (1, 64, 64, channels))
    assert latent_of(diffbir_server, restoration(diffbir_server, picture)).shape == (1, 4, 8, 8)


def crop(server: Server, image: Array, **inputs: list) -> Prompt:
    return {
        **restoration(server, image),
        "crop": node("BIRCrop", image=["image", 0], **inputs),
        "picture": node("TestSaveTensor", image=["crop", 0], file="picture.npy"),
    }


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        ({}, "neither latent nor size"),
        ({"latent": ["empty", 0]}, "comes from DiffBIR Conditioning"),
        ({"latent": ["conditioning", 2]}, "64 x 128"),
    ],
)
def test_crop_says_what_it_needs(
    diffbir_server: Server, image: Array, inputs: dict, part: str
) -> None:
    prompt = crop(diffbir_server, image, **inputs)
    prompt["empty"] = node("EmptyLatentImage", width=128, height=64, batch_size=1)
    # A picture that is not the one of the latent.
    small = np.zeros((1, 32, 32, 3), np.float32)
    prompt["small"] = node("TestLoadTensor", file=unique_copy(diffbir_server, small))
    prompt["crop"]["inputs"]["image"] = ["small", 0]
    with pytest.raises(Failed, match=part) as failure:
        diffbir_server.run(prompt)
    assert failure.value.node_type == "BIRCrop"
