"""What users get wrong: one sentence each, and the next prompt works."""

from collections.abc import Callable

import numpy as np
import pytest
from comfyui.diffbir_graph import Array, latent_of, restoration, with_stock_apply
from comfyui.harness import Failed, Prompt, Server, node, unique_copy


@pytest.fixture
def image() -> Array:
    return np.random.default_rng(1).random((1, 64, 128, 3), dtype=np.float32)


def stock_net_in_our_place(prompt: Prompt) -> None:
    prompt["control"]["inputs"]["control_net_name"] = "stock.safetensors"


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
        (
            stock_net_in_our_place,
            "DiffBIRControlNetLoader",
            ["IRControlNet file", "belongs in Load ControlNet"],
        ),
        (stock_net_in_our_conditioning, "DiffBIRConditioning", ["use Apply ControlNet"]),
        (damaged_weights, "DiffBIRControlNetLoader", ["time_embed.0.bias", "NaN"]),
        (another_base, "KSampler", ["SD15 model", "load Stable Diffusion 2.1 base"]),
        (no_vae, "ControlNetApplyAdvanced", ["none came", "Load DiffBIR ControlNet"]),
        (vae_of_another_model, "DiffBIRConditioning", ["VAE", "Stable Diffusion 2.1"]),
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
    assert all(part in sentence for part in parts), sentence
    assert sentence.endswith(".") and "\n" not in sentence and sentence.count(". ") == 0
    assert not output.exists()
    latent_of(diffbir_server, restoration(diffbir_server, image))


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
