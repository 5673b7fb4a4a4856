"""No test can leave anything to the next: what a test may do wrong, and what its end makes of it.

The first tests of a pair leave something behind and call what the end of a test calls, `settle`.
"""

import urllib.error
from collections.abc import Iterator

import numpy as np
import pytest
from comfyui.cancelling import hold_at
from comfyui.harness import Prompt, Server, node, unique_copy
from numpy.typing import NDArray

Array = NDArray[np.float32]


@pytest.fixture
def without_end(server: Server, picture: Array) -> Prompt:
    """A prompt that stands still until it is cancelled."""
    prompt = quick(server, picture)
    hold_at(prompt, "load", 1)
    return prompt


def quick(server: Server, picture: Array) -> Prompt:
    return {
        "load": node("DiffIRLoader", model_name="sr_x1.safetensors"),
        "image": node("TestLoadTensor", file=unique_copy(server, picture)),
        "restore": node("DiffIRRestore", model=["load", 0], image=["image", 0], seed=0, strip=0),
        "save": node("TestSaveTensor", image=["restore", 0], file="quick.npy"),
    }


@pytest.fixture
def process(server: Server, picture: Array) -> Iterator[int]:
    """Number of the server's process; afterwards the server works and has nothing to do."""
    yield server.process.pid
    queue = server.get("/queue")
    assert not queue["queue_running"] and not queue["queue_pending"]
    assert server.run(quick(server, picture)) == {}
    assert server.listeners == []


def test_prompts_that_a_test_leaves_are_cancelled(
    server: Server, process: int, without_end: Prompt
) -> None:
    prompts = [server.queue(without_end) for _ in range(3)]
    server.settle(failed=False)
    history = server.get("/history")
    assert history[prompts[0]]["status"]["messages"][-1][0] == "execution_interrupted"
    assert not any(prompt in history for prompt in prompts[1:])
    assert server.process.pid == process


def test_a_websocket_that_a_test_leaves_is_closed(
    server: Server, process: int, without_end: Prompt
) -> None:
    messages = server.messages("left")
    server.queue(without_end, "left")
    next(iter(messages))
    server.settle(failed=False)
    assert messages.socket.fileno() == -1
    assert server.process.pid == process


def test_a_hold_ends_with_its_prompt(server: Server, process: int, without_end: Prompt) -> None:
    """Also where the prompt is cancelled, or fails, before the work begins that is to be held."""
    del without_end["restore"], without_end["save"]
    without_end["show"] = node("PreviewAny", source=["hold", 0])
    server.run(without_end)


def test_a_server_that_died_is_started_again(server: Server, process: int) -> None:
    port = server.port
    server.process.kill()
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        server.get("/queue")
    server.settle(failed=False)
    assert server.process.pid != process and server.port == port


def test_after_a_failure_the_server_is_started_again(
    server: Server, process: int, without_end: Prompt
) -> None:
    """Once only, and only one that the failed test has used."""
    server.queue(without_end)
    server.settle(failed=True)
    again = server.process.pid
    assert again != process
    server.settle(failed=True)
    assert server.process.pid == again
