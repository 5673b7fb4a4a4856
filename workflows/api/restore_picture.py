"""Restore one picture in a running ComfyUI: upload it, queue it, follow it, fetch the result.

python restore_picture.py PICTURE RESULT.png [--server 127.0.0.1:8188]
    [--workflow Restore_photo.json] [--set 2.fidelity=0.8]

--set changes an input of a node of the workflow, by the node's number. Ctrl+C cancels the work in
ComfyUI as well. Needs aiohttp, which every environment of ComfyUI has.
"""

import argparse
import asyncio
import contextlib
import json
import uuid
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent


async def upload(web: aiohttp.ClientSession, picture: Path) -> str:
    """The name under which LoadImage finds the picture."""
    form = aiohttp.FormData({"subfolder": "restore_picture", "overwrite": "true"})
    form.add_field("image", picture.read_bytes(), filename=picture.name)
    uploaded = await (await web.post("/upload/image", data=form)).json()
    return f"{uploaded['subfolder']}/{uploaded['name']}"


async def queue(web: aiohttp.ClientSession, workflow: dict[str, Any], client: str) -> str:
    """The number that ComfyUI gives to the run."""
    answer = await web.post("/prompt", json={"prompt": workflow, "client_id": client})
    queued = await answer.json()
    if not answer.ok:
        raise RuntimeError(f"ComfyUI refuses the workflow: {json.dumps(queued)}")
    return queued["prompt_id"]


async def follow(
    events: aiohttp.ClientWebSocketResponse, prompt_id: str, workflow: dict[str, Any]
) -> None:
    """Show what is computed until the run has ended."""
    title = ""
    async for event in events:
        if event.type is not aiohttp.WSMsgType.TEXT:  # previews are binary
            continue
        message = json.loads(event.data)
        kind, data = message["type"], message["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "executing" and data["node"] is None:  # behind it the history has the run
            return
        if kind == "executing":
            node = workflow[data["display_node"]]
            title = node.get("_meta", {}).get("title", node["class_type"])
            print(title)
        elif kind == "progress":
            print(f"{title}: {data['value']} of {data['max']}")
        elif kind in ("execution_error", "execution_interrupted"):
            raise RuntimeError(data.get("exception_message", "The run was cancelled.").strip())
    raise RuntimeError("ComfyUI closed the connection.")


async def download(web: aiohttp.ClientSession, prompt_id: str) -> bytes:
    """The picture that the workflow has saved."""
    history = await (await web.get(f"/history/{prompt_id}")).json()
    outputs = history[prompt_id]["outputs"].values()
    images = [image for output in outputs for image in output.get("images", [])]
    saved = [image for image in images if image["type"] == "output"]
    if len(saved) != 1:
        raise RuntimeError(f"The workflow should save one picture, but it saved {len(saved)}.")
    return await (await web.get("/view", params=saved[0])).read()


async def restore(web: aiohttp.ClientSession, workflow: dict[str, Any], picture: Path) -> bytes:
    """The PNG that the workflow makes of a picture."""
    name = await upload(web, picture)
    for node in workflow.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = name
    client = uuid.uuid4().hex
    async with web.ws_connect("/ws", params={"clientId": client}) as events:
        prompt_id = await queue(web, workflow, client)
        try:
            await follow(events, prompt_id, workflow)
        except asyncio.CancelledError:  # Ctrl+C
            await web.post("/queue", json={"delete": [prompt_id]})
            await web.post("/interrupt", json={"prompt_id": prompt_id})
            raise
    return await download(web, prompt_id)


def change(workflow: dict[str, Any], setting: str) -> None:
    """Set an input: NODE.INPUT=VALUE, where VALUE is JSON, or else a text."""
    place, _, value = setting.partition("=")
    node, _, name = place.partition(".")
    if name not in workflow.get(node, {"inputs": {}})["inputs"]:
        raise RuntimeError(f"The workflow has no input {place}; its file says what there is.")
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(value)
    workflow[node]["inputs"][name] = value


async def main() -> int:
    """Restore the picture; the exit code is 1 if that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, default=HERE / "Restore_photo.json")
    parser.add_argument("--set", action="append", default=[], metavar="NODE.INPUT=VALUE")
    options = parser.parse_args()
    workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    try:
        for setting in options.set:
            change(workflow, setting)
        async with aiohttp.ClientSession(f"http://{options.server}") as web:
            options.result.write_bytes(await restore(web, workflow, options.picture))
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        print(f"{options.picture.name}: {error}")
        return 1
    print(f"{options.picture.name} -> {options.result}")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(asyncio.run(main()))
    except KeyboardInterrupt:
        raise SystemExit("cancelled") from None
