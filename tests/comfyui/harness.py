"""A real ComfyUI: found, started, spoken to over HTTP.

ComfyUI is looked for in COMFYUI_PATH and in comfy-cli's usual places, its Python in COMFYUI_PYTHON
and in the environments that usually lie in its folder. Without it these tests are skipped.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

PACK = Path(__file__).resolve().parents[2]
PACK_PARTS = ("__init__.py", "pyproject.toml", "bir_core", "nodes", "workflows")
Prompt = dict[str, dict[str, Any]]


def find_comfyui() -> Path | None:
    home = Path.home()
    places = [os.environ.get("COMFYUI_PATH"), home / "comfy" / "ComfyUI", home / "ComfyUI"]
    return next((Path(p) for p in places if p and (Path(p) / "main.py").is_file()), None)


def find_python(comfyui: Path) -> str | None:
    chosen = os.environ.get("COMFYUI_PYTHON")
    if chosen:
        return chosen
    names = ("bin/python", "Scripts/python.exe", "python.exe")
    folders = [comfyui / ".venv", comfyui / "venv", comfyui.parent / "python_embeded"]
    candidates = [str(folder / name) for folder in folders for name in names]
    candidates.append(sys.executable)
    probe = "import torch, aiohttp, av"
    for candidate in candidates:
        if not Path(candidate).is_file():
            continue
        if subprocess.run([candidate, "-c", probe], capture_output=True).returncode == 0:
            return candidate
    return None


class Refused(Exception):
    """The server did not queue a prompt; `errors` are the messages of its nodes."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.errors = json.dumps(answer)
        super().__init__(self.errors)


class Failed(Exception):
    """A node raised an error, or the run was cancelled; the message is what the user reads."""

    def __init__(self, kind: str, details: dict[str, Any]) -> None:
        self.kind = kind
        self.node_type = details.get("node_type")
        super().__init__(details.get("exception_message", kind))


class Server:
    """A running ComfyUI with this folder among its custom nodes under the name `pack_name`."""

    def __init__(self, comfyui: Path, python: str, base: Path, pack_name: str) -> None:
        self.base = base
        self.pack_name = pack_name
        self.log_path = base / "server.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        for folder in ("custom_nodes", "input", "output", "models/upscale_models", "models/diffir"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(
            Path(__file__).with_name("probe_nodes.py"), base / "custom_nodes" / "probe_nodes.py"
        )
        self.command = [
            *(python, str(comfyui / "main.py"), "--cpu", "--port", str(self.port)),
            *("--base-directory", str(base), "--disable-api-nodes"),
            *("--database-url", f"sqlite:///{base / 'comfyui.sqlite'}"),
        ]

    def link_pack(self) -> None:
        pack = self.base / "custom_nodes" / self.pack_name
        try:
            pack.symlink_to(PACK, target_is_directory=True)
        except OSError:  # Windows without the right to make links
            copy_pack(pack)

    def __enter__(self) -> "Server":
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        deadline = time.monotonic() + 300  # a busy machine takes minutes
        while True:
            try:
                self.get("/system_stats")
                return self
            except urllib.error.URLError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    pytest.fail(f"ComfyUI did not start:\n{self.log()[-3000:]}", pytrace=False)
                time.sleep(0.2)

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait(30)

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def fetch(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            content: bytes = answer.read()
            return content

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def post(self, path: str, content: dict[str, Any]) -> Any:
        data = json.dumps(content).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def queue(self, prompt: Prompt, client_id: str = "tests") -> str:
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client_id})
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from error
        prompt_id: str = answer["prompt_id"]
        return prompt_id

    def wait(self, prompt_id: str, seconds: float = 120) -> dict[str, Any]:
        """The outputs of a prompt by node id, once it has finished."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry is not None:
                for kind, details in entry["status"]["messages"]:
                    if kind in ("execution_error", "execution_interrupted"):
                        raise Failed(kind, details)
                outputs: dict[str, Any] = entry["outputs"]
                return outputs
            time.sleep(0.02)
        raise TimeoutError(f"prompt {prompt_id} did not finish in {seconds} s")

    def run(self, prompt: Prompt) -> dict[str, Any]:
        return self.wait(self.queue(prompt))

    def messages(self, client_id: str) -> "Messages":
        return Messages(self.port, client_id)


class Messages:
    """The text messages that the server sends to one client: a websocket, read only."""

    def __init__(self, port: int, client_id: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        while self.stream.readline().strip():
            pass

    def __enter__(self) -> "Messages":
        return self

    def __exit__(self, *exception: object) -> None:
        self.stream.close()
        self.socket.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            kind, length = self.stream.read(2)
            if length >= 126:
                length = int.from_bytes(self.stream.read(2 if length == 126 else 8), "big")
            payload = self.stream.read(length)
            if kind & 0x0F == 1:
                yield json.loads(payload)


def copy_pack(target: Path) -> None:
    """The files of the pack that ComfyUI needs, as a folder of its own."""
    target.mkdir()
    for part in PACK_PARTS:
        source = PACK / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / part)


def unique_copy(server: Server, array: NDArray[np.float32]) -> str:
    """Save an array in the input folder under a name that no prompt has used."""
    name = f"{time.monotonic_ns()}.npy"
    np.save(server.base / "input" / name, array)
    return name


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """A node of a prompt."""
    return {"class_type": class_type, "inputs": inputs}
