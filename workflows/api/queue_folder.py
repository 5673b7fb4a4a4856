"""Queue the pictures of a folder in a running ComfyUI and go away; nothing but Python is needed.

python queue_folder.py PICTURES [--server 127.0.0.1:8188] [--workflow Restore_photo.json]

The results lie in ComfyUI's output folder, in restored/ under the names of the pictures, each with
a number behind it. Prints a line for each picture with the number of its run, which manage_queue.py
shows, cancels and fetches.
"""

import argparse
import json
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}


def answer_to(address: str, content: bytes, kind: str) -> dict[str, Any]:
    """The answer to a POST."""
    request = urllib.request.Request(address, content, {"Content-Type": kind})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def upload(server: str, picture: Path) -> str:
    """The name under which LoadImage finds the picture."""
    boundary = uuid.uuid4().hex
    fields = {"subfolder": "queue_folder", "overwrite": "true"}
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    filename = picture.name.replace('"', "%22")
    head = f'name="image"; filename="{filename}"\r\nContent-Type: image/*\r\n\r\n'.encode()
    parts.append(head + picture.read_bytes())
    line = f"--{boundary}".encode()
    body = b"".join(
        line + b"\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts
    )
    kind = f"multipart/form-data; boundary={boundary}"
    uploaded = answer_to(f"{server}/upload/image", body + line + b"--\r\n", kind)
    return f"{uploaded['subfolder']}/{uploaded['name']}"


def queue(server: str, workflow: dict[str, Any], picture: Path) -> str:
    """The number that ComfyUI gives to the run for a picture."""
    name = upload(server, picture)
    for node in workflow.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = name
        elif node["class_type"] == "SaveImage":
            node["inputs"]["filename_prefix"] = f"restored/{picture.stem}"
    content = json.dumps({"prompt": workflow}).encode()
    return answer_to(f"{server}/prompt", content, "application/json")["prompt_id"]


def main() -> int:
    """Queue all pictures; the exit code is 1 if ComfyUI refused one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--server", default="127.0.0.1:8188")
    parser.add_argument("--workflow", type=Path, default=HERE / "Restore_photo.json")
    options = parser.parse_args()
    workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    failed = 0
    for picture in sorted(options.pictures.iterdir()):
        if picture.suffix.lower() not in ENDINGS:
            continue
        try:
            prompt_id = queue(f"http://{options.server}", workflow, picture)
            print(f"{prompt_id} {picture.name}")
        except urllib.error.HTTPError as error:
            failed = 1
            print(f"{picture.name}: ComfyUI refuses it: {error.read().decode()}")
    return failed


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except OSError as error:
        raise SystemExit(str(error)) from None
