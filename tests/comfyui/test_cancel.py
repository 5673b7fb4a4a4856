"""Progress while an image is restored, and cancelling in the middle."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from comfyui.models import random_model
from numpy.typing import NDArray

from bir_core.checkpoints import save_checkpoint
from bir_core.networks.diffir_config import OFFICIAL_CONFIGS

Array = NDArray[np.float32]
# How long the longest piece between two looks at the cancel button may take here, with room for a
# busy machine; the whole run takes many times as long.
REACTION = 5.0


@pytest.fixture(scope="module")
def large_model(server: Server) -> str:
    """A deblurring network of the official size."""
    name = "large.safetensors"
    model = random_model(OFFICIAL_CONFIGS["deblur"], 0)
    save_checkpoint(model, server.base / "models" / "upscale_models" / name)
    return name


@pytest.fixture(scope="module")
def large_picture() -> Array:
    """(1, 768, 768, 3): a minute or more of work for the large model on a CPU."""
    return np.random.default_rng(0).random((1, 768, 768, 3), dtype=np.float32)


def restoration(server: Server, image: Array, model_name: str, seed: int) -> Prompt:
    return {
        "load": node("DiffIRLoader", model_name=model_name),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "restore": node("DiffIRRestore", model=["load", 0], image=["image", 0], seed=seed, strip=0),
        "save": node("TestSaveTensor", image=["restore", 0], file="cancelled.npy"),
    }


def stock_restoration(server: Server, image: Array, model_name: str) -> Prompt:
    return {
        "load": node("UpscaleModelLoader", model_name=model_name),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "restore": node("ImageUpscaleWithModel", upscale_model=["load", 0], image=["image", 0]),
        "save": node("TestSaveTensor", image=["restore", 0], file="cancelled.npy"),
    }


def test_progress_rises_to_its_end(server: Server, large_picture: Array) -> None:
    batch = large_picture[:, :320, :320].repeat(2, axis=0)
    steps = []
    with server.messages("progress") as messages:
        prompt = restoration(server, batch, "deblur.safetensors", 0)
        prompt_id = server.queue(prompt, "progress")
        for message in messages:
            if message["type"] == "progress" and message["data"]["node"] == "restore":
                steps.append((message["data"]["value"], message["data"]["max"]))
            if message["type"] in ("execution_success", "execution_error"):
                break
    server.wait(prompt_id)
    values = [value / maximum for value, maximum in steps]
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(set(values)) > 2  # ComfyUI throttles the messages: how many depends on the machine


def cancel_in_the_middle(server: Server, prompt: Prompt, wait_for: Callable[[dict], bool]) -> float:
    """Queue a prompt, cancel it once a message fits `wait_for`; returns the seconds it took."""
    output = server.base / "output" / "cancelled.npy"
    output.unlink(missing_ok=True)
    with server.messages("cancel") as messages:
        prompt_id = server.queue(prompt, "cancel")
        for message in messages:
            assert message["type"] not in ("execution_success", "execution_error"), message
            if wait_for(message):
                break
    start = time.monotonic()
    server.post("/interrupt", {})
    with pytest.raises(Failed) as failure:
        server.wait(prompt_id)
    assert failure.value.kind == "execution_interrupted"
    assert not output.exists()
    return time.monotonic() - start


def test_cancel_reacts_within_a_block(
    server: Server, large_model: str, large_picture: Array
) -> None:
    def under_way(message: dict) -> bool:
        data = message["data"]
        return message["type"] == "progress" and data["node"] == "restore" and data["value"] > 0

    prompt = restoration(server, large_picture, large_model, 0)
    assert cancel_in_the_middle(server, prompt, under_way) < REACTION


def test_cancel_reaches_the_stock_node(
    server: Server, large_model: str, large_picture: Array
) -> None:
    def under_way(message: dict) -> bool:
        return message["type"] == "executing" and message["data"]["node"] == "restore"

    prompt = stock_restoration(server, large_picture[:, :512, :512], large_model)
    assert cancel_in_the_middle(server, prompt, under_way) < REACTION
