"""BIREstimate: what bir_core says of each image of a batch."""

import json

import numpy as np
import pytest
import torch
from comfyui.harness import Prompt, Server, node, unique_copy

from bir_core.estimate import estimate
from bir_core.images import from_channels_last


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
