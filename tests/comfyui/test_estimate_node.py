"""BIREstimate: what bir_core says of each image of a batch, and what it chooses, as links."""

import json

import numpy as np
import pytest
import torch
from comfyui.harness import Failed, Prompt, Server, node, unique_copy

from bir_core.choosing import choose
from bir_core.choosing.batches import of_batch
from bir_core.diffbir.fidelity import of_fidelity
from bir_core.estimate import estimate
from bir_core.images import from_channels_last

# Places of the outputs.
CHOICE, RESTORE, MODEL, ENLARGE_BY, REDUCE_TO, CLEAN_FIRST, CLEANING_MODEL = range(8, 15)
TASK, FIDELITY, STRENGTH, GUIDANCE, BLENDING, NOISE_AUG = range(15, 21)


def test_it_says_what_bir_core_says(server: Server) -> None:
    random = np.random.default_rng(3)
    image = (random.integers(0, 256, (2, 60, 90, 3)) / 255).astype(np.float32)
    image[1] = image[1] * 0.2 + 0.4
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "estimate": node("BIREstimate", image=["image", 0]),
        "report": node("PreviewAny", source=["estimate", 0]),
        "numbers": node("PreviewAny", source=["estimate", 1]),
        "noise": node("PreviewAny", source=["estimate", 3]),
    }
    shown = server.run(prompt)
    pictures = from_channels_last(torch.from_numpy(image))
    expected = [estimate(one[None]).numbers() for one in pictures]
    numbers = json.loads(shown["numbers"]["text"][0])
    for found, wanted in zip(numbers, expected, strict=True):
        for name, value in wanted.items():
            assert found[name] == (
                value if value is None else pytest.approx(value, rel=1e-3, abs=1e-3)
            )
    mean = sum(float(each["noise_sigma"]) for each in numbers) / 2
    assert float(shown["noise"]["text"][0]) == pytest.approx(mean)
    report = shown["report"]["text"][0]
    assert "image 1:\nblur:" in report and report.count("contrast:") == 2


def noisy(height: int, width: int, count: int = 1) -> np.ndarray:
    """Slopes under colour noise of sigma 20, in steps of 8 bit."""
    random = np.random.default_rng(5)
    slopes = np.linspace(0.2, 0.8, width)[None, None, :, None].repeat(height, 1)
    noise = random.normal(0, 20 / 255, (count, height, width, 3))
    return ((slopes + noise).clip(0, 1) * 255).round().astype(np.float32) / 255


@pytest.mark.parametrize("count, scale", [(1, 0.0), (2, 2.0)])
def test_the_choice_of_bir_core(server: Server, count: int, scale: float) -> None:
    image = noisy(90, 600, count)
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "estimate": node("BIREstimate", image=["image", 0], scale=scale),
        **{
            f"show{place}": node("PreviewAny", source=["estimate", place])
            for place in range(CHOICE, NOISE_AUG + 1)
        },
    }
    shown = server.run(prompt)
    found = of_batch([estimate(one[None]) for one in from_channels_last(torch.from_numpy(image))])
    choice = choose(found, 90, 600, scale=scale or None)
    diffbir, parts = choice.diffbir, of_fidelity(choice.diffbir.fidelity)
    said = [shown[f"show{place}"]["text"][0] for place in range(CHOICE, NOISE_AUG + 1)]
    assert said[0].splitlines()[-1].startswith(f"{choice.model}: ")
    assert said[1] == str(not choice.is_nothing) == "True"
    assert said[2].startswith(("bir_", "diffir_")) and said[2].endswith(".safetensors")
    assert [float(said[3]), float(said[4])] == [choice.scale, 1 / choice.reduce]
    assert said[5] == str(choice.clean is not None)
    assert said[6].endswith(".safetensors") and said[7] == diffbir.task
    numbers = (diffbir.fidelity, parts.strength, parts.guidance, parts.blending, diffbir.noise_aug)
    assert [float(each) for each in said[8:]] == pytest.approx(list(numbers))


def test_its_names_and_numbers_connect(server: Server) -> None:
    """To the stock loader and resizing, and to our nodes."""
    image = noisy(40, 60)
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "estimate": node("BIREstimate", image=["image", 0], scale=2.0),
        "scaled": node(
            "ImageScaleBy",
            image=["image", 0],
            upscale_method="bicubic",
            scale_by=["estimate", REDUCE_TO],
        ),
        "loader": node("UpscaleModelLoader", model_name=["estimate", CLEANING_MODEL]),
        "module": node(
            "BIRRestorationModule",
            upscale_model=["loader", 0],
            image=["scaled", 0],
            task=["estimate", TASK],
            version="v2",
            upscale_by=["estimate", ENLARGE_BY],
            short_side=0,
        ),
        "photo": node(
            "BIRRestorePhoto",
            image=["image", 0],
            method="one network",
            enlarge_by=["estimate", ENLARGE_BY],
            fidelity=["estimate", FIDELITY],
            **{"method.model": ["estimate", MODEL]},
        ),
        "shown": node("PreviewAny", source=["module", 1]),
        "save": node("TestSaveTensor", image=["photo", 0], file="chosen.npy"),
    }
    server.run(prompt)
    assert np.load(server.base / "output" / "chosen.npy").shape == (1, 80, 120, 3)


def test_a_scale_below_1_is_refused(server: Server) -> None:
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, noisy(8, 8))),
        "estimate": node("BIREstimate", image=["image", 0], scale=0.5),
    }
    with pytest.raises(Failed, match="a scale of 1 or more"):
        server.run(prompt)
