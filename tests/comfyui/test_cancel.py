"""Progress while an image is restored, and cancelling in the middle."""

import numpy as np
from comfyui.cancelling import cancel_at, progress_of
from comfyui.harness import Prompt, Server, node, unique_copy
from numpy.typing import NDArray

Array = NDArray[np.float32]
MODEL = "deblur.safetensors"
# Convolutions of the longest piece between two looks at the cancel button: the second sweep of a
# block, here over all rows at once. The eight blocks have 12 each.
SWEEP = 8
IN_THE_MIDDLE = 60


def restoration(server: Server, image: Array) -> Prompt:
    return {
        "load": node("DiffIRLoader", model_name=MODEL),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "restore": node("DiffIRRestore", model=["load", 0], image=["image", 0], seed=0, strip=0),
        "save": node("TestSaveTensor", image=["restore", 0], file="cancelled.npy"),
    }


def stock_restoration(server: Server, image: Array) -> Prompt:
    return {
        "load": node("UpscaleModelLoader", model_name=MODEL),
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "restore": node("ImageUpscaleWithModel", upscale_model=["load", 0], image=["image", 0]),
        "save": node("TestSaveTensor", image=["restore", 0], file="cancelled.npy"),
    }


def test_progress_rises_to_its_end(server: Server, picture: Array) -> None:
    said = []
    with server.messages("progress") as messages:
        prompt_id = server.queue(restoration(server, picture.repeat(2, axis=0)), "progress")
        for message in messages:
            said.append(message)
            if message["type"] in ("execution_success", "execution_error"):
                break
    server.wait(prompt_id)
    values = [value / maximum for value, maximum in progress_of(said, "restore")]
    assert values == sorted(values)
    assert values[-1] == 1
    assert len(set(values)) > 40  # each of the two images passes 16 sweeps, and more


def output_after(server: Server, prompt: Prompt) -> tuple[int, bool]:
    """Cancel a prompt in the middle: the convolutions that began after, and whether it saved."""
    output = server.base / "output" / "cancelled.npy"
    output.unlink(missing_ok=True)
    _, after = cancel_at(server, prompt, "load", IN_THE_MIDDLE)
    return after, output.exists()


def test_cancel_reacts_within_a_block(server: Server, picture: Array) -> None:
    after, saved = output_after(server, restoration(server, picture))
    assert after <= SWEEP and not saved
    # The model is as before.
    output = server.base / "output" / "cancelled.npy"
    server.run(restoration(server, picture))
    assert output.exists()


def test_cancel_reaches_the_stock_node(server: Server, picture: Array) -> None:
    after, saved = output_after(server, stock_restoration(server, picture))
    assert after <= SWEEP and not saved
