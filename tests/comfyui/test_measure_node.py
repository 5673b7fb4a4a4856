"""BIRMeasure: the numbers of bir_core, maps and sheets, and what is not there."""

from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy

from bir_core.evaluation.one_picture import NUMBERS, Measured, measure
from bir_core.images import from_channels_last

NO_LPIPS = "absent"
FIRST_NUMBER = 3


@pytest.fixture
def image() -> Array:
    """(2, 48, 100, 3) of 8 bits."""
    drawn = np.random.default_rng(8).integers(0, 256, (2, 48, 100, 3))
    return (drawn / 255).astype(np.float32)


def other(image: Array, seed: int = 1) -> Array:
    noise = np.random.default_rng(seed).normal(0, 0.05, image.shape)
    return np.clip(image + noise, 0, 1).astype(np.float32)


def graph(server: Server, image: Array, **inputs: Any) -> Prompt:
    """Arrays among the inputs become images."""
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "measure": node("BIRMeasure", image=["image", 0]),
    }
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            prompt[name] = node("TestLoadTensor", file=unique_copy(server, value))
            value = [name, 0]
        prompt["measure"]["inputs"][name] = value
    return prompt


def number(server: Server, prompt: Prompt, name: str) -> float:
    output = FIRST_NUMBER + list(NUMBERS).index(name)
    prompt["number"] = node("PreviewAny", source=["measure", output])
    return float(server.run(prompt)["number"]["text"][0])


def picture(server: Server, prompt: Prompt, output: int) -> Array:
    prompt["save"] = node("TestSaveTensor", image=["measure", output], file="measured.npy")
    server.run(prompt)
    result: Array = np.load(server.base / "output" / "measured.npy")
    return result


def expected(image: Array, **inputs: Any) -> Measured:
    tensors = {
        name: from_channels_last(torch.from_numpy(value))
        if isinstance(value, np.ndarray)
        else value
        for name, value in inputs.items()
    }
    return measure(from_channels_last(torch.from_numpy(image)), lpips=NO_LPIPS, **tensors)


def test_numbers_are_those_of_bir_core(server: Server, image: Array) -> None:
    reference, lq = other(image), image[:, ::4, ::4].copy()
    prompt = graph(server, image, reference=reference, low_quality=lq, border=3, tile=32, overlap=8)
    each = [
        expected(image[one], reference=reference[one], lq=lq[one], border=3, tile=32, overlap=8)
        for one in (slice(0, 1), slice(1, 2))
    ]
    text = server.run(prompt)["measure"]["text"][0]
    for name in sorted(set(NUMBERS) - {"lpips"}):
        mean = sum(found.values[name] for found in each) / 2
        assert number(server, prompt, name) == pytest.approx(mean, abs=1e-5)
        assert all(NUMBERS[name].shown(found.values[name]) in text for found in each)
    assert "image 1:" in text


@pytest.mark.parametrize(
    ("name", "value"), [("border", 9), ("tile", 16), ("overlap", 3)], ids=lambda value: str(value)
)
def test_each_setting_counts(server: Server, image: Array, name: str, value: int) -> None:
    settings = {"reference": other(image[:1]), "border": 0, "tile": 32, "overlap": 8}
    texts = [
        server.run(graph(server, image[:1], **{**settings, **change}))["measure"]["text"][0]
        for change in ({}, {name: value})
    ]
    assert texts[0] != texts[1]


def test_difference_and_its_gain(server: Server, image: Array) -> None:
    reference = other(image[:1])
    largest = np.abs(image - reference).max(-1, keepdims=True)
    for gain in (1.0, 4.0):
        shown = picture(server, graph(server, image, reference=reference, gain=gain), 1)
        assert np.abs(shown - np.clip(largest * gain, 0, 1)).max() < 1e-6


def test_sheets_show_what_there_is(server: Server, image: Array) -> None:
    widths = []
    for inputs in (
        {},
        {"low_quality": image[:, ::2, ::2].copy()},
        {"low_quality": image[:, ::2, ::2].copy(), "reference": other(image)},
    ):
        sheets = picture(server, graph(server, image, **inputs), 2)
        assert sheets.shape[0] == 2 and not np.array_equal(sheets[0], sheets[1])
        widths.append(sheets.shape[2])
    assert widths[0] < widths[1] < widths[2]


def test_what_is_not_there_says_why(server: Server, image: Array) -> None:
    text = server.run(graph(server, image[:1]))["measure"]["text"][0]
    assert "PSNR Y not measured: there is no reference" in text
    for output, reason in ((FIRST_NUMBER, "there is no reference"), (1, "neither is connected")):
        prompt = graph(server, image[:1])
        prompt["wanted"] = node("PreviewAny", source=["measure", output])
        with server.messages("measuring") as messages:
            server.queue(prompt, "measuring")
            error = next(one["data"] for one in messages if one["type"] == "execution_error")
        assert error["node_id"] == "wanted" and reason in error["exception_message"]


def test_what_cannot_be_compared_is_refused(server: Server, image: Array) -> None:
    for inputs, part in (
        ({"reference": image[:, :40]}, "like the image"),
        ({"low_quality": image[:, :, :40]}, "proportions"),
        ({"reference": other(image[[0, 1, 0]])}, "for each of the 2 images, but 3 came"),
    ):
        arrays = {name: value.copy() for name, value in inputs.items()}
        with pytest.raises(Failed, match=part):
            server.run(graph(server, image, **arrays))
