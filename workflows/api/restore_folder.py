"""Restore the pictures of a folder in a running ComfyUI; the results keep the names.

python restore_folder.py PICTURES RESULTS [--server 127.0.0.1:8188] [--workflow Restore_photo.json]

Needs aiohttp, which every environment of ComfyUI has.
"""

import argparse
import asyncio
import copy
import json
import uuid
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


async def restored(web: aiohttp.ClientSession, workflow: dict[str, Any], picture: Path) -> bytes:
    """The PNG that the workflow makes of a picture."""
    form = aiohttp.FormData({"subfolder": "restore_folder", "overwrite": "true"})
    form.add_field("image", picture.read_bytes(), filename=picture.name)
    uploaded = await (await web.post("/upload/image", data=form)).json()
    prompt = copy.deepcopy(workflow)
    for node in prompt.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = f"{uploaded['subfolder']}/{uploaded['name']}"
    client = uuid.uuid4().hex
    async with web.ws_connect("/ws", params={"clientId": client}) as events:
        answer = await web.post("/prompt", json={"prompt": prompt, "client_id": client})
        queued = await answer.json()
        if not answer.ok:
            raise RuntimeError(f"ComfyUI refuses the workflow: {json.dumps(queued)}")
        await end_of(events, queued["prompt_id"], picture.name)
    history = await (await web.get(f"/history/{queued['prompt_id']}")).json()
    outputs = history[queued["prompt_id"]]["outputs"].values()
    images = [image for output in outputs for image in output.get("images", [])]
    saved = [image for image in images if image["type"] == "output"]
    if len(saved) != 1:
        raise RuntimeError(f"The workflow should save one picture, but it saved {len(saved)}.")
    return await (await web.get("/view", params=saved[0])).read()


async def end_of(events: aiohttp.ClientWebSocketResponse, prompt_id: str, name: str) -> None:
    """Show the progress of a prompt until it has ended."""
    async for event in events:
        if event.type is not aiohttp.WSMsgType.TEXT:  # previews are binary
            continue
        message = json.loads(event.data)
        kind, data = message["type"], message["data"]
        if data.get("prompt_id") != prompt_id:
            continue
        if kind == "progress":
            print(f"{name}: {data['value']} of {data['max']}", end="\r", flush=True)
        elif kind in ("execution_error", "execution_interrupted"):
            raise RuntimeError(data.get("exception_message", "The run was cancelled.").strip())
        elif kind == "executing" and data["node"] is None:  # behind it the history has the prompt
            return
    raise RuntimeError("ComfyUI closed the connection")


async def main() -> int:
    """Restore what is not there yet; how many pictures failed decides the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, default=HERE / "Restore_photo.json")
    options = parser.parse_args()
    workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    options.results.mkdir(parents=True, exist_ok=True)
    failed = 0
    async with aiohttp.ClientSession(f"http://{options.server}") as web:
        for picture in sorted(options.pictures.iterdir()):
            target = options.results / f"{picture.stem}.png"
            if picture.suffix.lower() not in ENDINGS or target.exists():
                continue
            try:
                target.write_bytes(await restored(web, workflow, picture))
                print(f"{picture.name} -> {target}")
            except (RuntimeError, aiohttp.ClientError) as error:
                failed += 1
                print(f"{picture.name}: {error}")
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
