"""Cancels a prompt in the middle of its work, at a call of a network and not after a time; and what
nodes tell as they work."""

from typing import Any

import pytest
from comfyui.harness import Failed, Prompt, Server, node


def hold_at(prompt: Prompt, loader: str, call: int) -> None:
    """Stop a prompt at call number `call` of the network that the node `loader` loads, until it is
    cancelled: see TestHold."""
    for each in prompt.values():
        for name, value in each["inputs"].items():
            if value == [loader, 0]:
                each["inputs"][name] = ["hold", 0]
    prompt["hold"] = node("TestHold", network=[loader, 0], call=call)


def cancel_at(
    server: Server, prompt: Prompt, loader: str, call: int
) -> tuple[list[dict[str, Any]], int]:
    """Run a prompt up to call number `call` of the network that the node `loader` loads, and cancel
    it there.

    Returns:
        The messages that came before, and the number of calls that began after.
    """
    hold_at(prompt, loader, call)
    said = []
    with server.messages("cancel") as messages:
        prompt_id = server.queue(prompt, "cancel")
        for message in messages:
            assert message["type"] not in ("execution_success", "execution_error"), message
            if message["type"] == "test_held":
                break
            said.append(message)
    server.post("/interrupt", {})
    with pytest.raises(Failed) as failure:
        server.wait(prompt_id)
    assert failure.value.kind == "execution_interrupted"
    counts = server.get("/test_hold")
    assert counts["before"] == call
    return said, counts["after"]


def progress_of(messages: list[dict[str, Any]], name: str) -> list[tuple[int, int]]:
    """(done, in all) as the messages tell it of a node."""
    steps = (message["data"] for message in messages if message["type"] == "progress")
    return [(step["value"], step["max"]) for step in steps if step["node"] == name]


def told(server: Server, prompt: Prompt, name: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The texts and the progress of a node."""
    said = []
    with server.messages("texts") as messages:
        server.queue(prompt, "texts")
        for message in messages:
            assert message["type"] != "execution_error", message
            said.append(message)
            if message["type"] == "execution_success":
                break
    texts = [one["data"] for one in said if one["type"] == "progress_text"]
    return [one["text"] for one in texts if one["node"] == name], progress_of(said, name)
