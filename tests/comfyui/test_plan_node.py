"""BIRPlan: the forecast of bir_core for what its widgets say."""

from typing import Any

import numpy as np
import pytest
from comfyui.harness import Failed, Server, node, unique_copy

from bir_core.forecast import forecast
from bir_core.memory import CPU

GB = 10**9
INPUTS: dict[str, Any] = {
    **{"method": "DiffBIR v2.1", "width": 300, "height": 200, "upscale_by": 4.0},
    **{"memory": 24.0, "precision": "float32"},
}


def report(server: Server, **inputs: Any) -> str:
    prompt = {"plan": node("BIRPlan", **{**INPUTS, **inputs})}
    text: str = server.run(prompt)["plan"]["text"][0]
    return text


def test_equals_the_forecast(server: Server) -> None:
    found = forecast(
        "DiffBIR v2.1", 200, 300, device=CPU, memory=24 * GB, dtype="float32", tile=256, steps=9
    )
    text = report(server, tile_size=256, steps=9, seconds_per_step=1.5)
    assert text == found.text(1.5)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "DiffBIR v2"},
        {"method": "builtin-x2"},
        {"width": 500},
        {"height": 500},
        {"upscale_by": 2.0},
        {"tile_size": 256},
        {"steps": 7},
        {"precision": "float16"},
        {"memory": 3.0},
        {"seconds_per_step": 2.0},
        {"task": "denoise"},
    ],
    ids=lambda change: "-".join(change),
)
def test_each_input_counts(server: Server, change: dict[str, Any]) -> None:
    assert report(server, **change) != report(server)


def test_a_version_without_the_task_is_told(server: Server) -> None:
    with pytest.raises(Failed, match="Expected DiffBIR v2 or v2.1"):
        report(server, method="DiffBIR v1", task="unaligned_face")


def test_an_image_gives_its_size(server: Server) -> None:
    file = unique_copy(server, np.zeros((1, 120, 90, 3), np.float32))
    prompt = {
        "image": node("TestLoadTensor", file=file),
        "plan": node("BIRPlan", **INPUTS, image=["image", 0]),
    }
    text = server.run(prompt)["plan"]["text"][0]
    assert text == report(server, width=90, height=120)


def test_outputs_are_numbers(server: Server) -> None:
    prompt = {"plan": node("BIRPlan", **INPUTS, seconds_per_step=2.0)}
    for output in range(1, 6):
        prompt[str(output)] = node("PreviewAny", source=["plan", output])
    outputs = server.run(prompt)
    fits, needed, tiles, steps, seconds = (outputs[str(each)]["text"][0] for each in range(1, 6))
    found = forecast("DiffBIR v2.1", 200, 300, device=CPU, memory=24 * GB, dtype="float32")
    assert fits.lower() == str(found.plan.fits).lower()
    assert float(needed) == pytest.approx(found.plan.needed / GB)
    assert found.effort is not None
    assert (int(tiles), int(steps)) == (found.effort.tiles, 10)
    assert float(seconds) == 20 * found.effort.tiles


def test_all_of_the_memory_is_planned_with_by_default(server: Server) -> None:
    assert "GB of " in report(server, memory=0.0)
