"""A real ComfyUI: found, started, spoken to over HTTP, and left without anything of a test.

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
from progress import GivenUp, bounded

PACK = Path(__file__).resolve().parents[2]
PACK_PARTS = ("__init__.py", "pyproject.toml", "bir_core", "nodes", "workflows")
Prompt = dict[str, dict[str, Any]]
# The servers that a `with` holds.
RUNNING: list["Server"] = []
# How ComfyUI begins a binary message with a text for a node.
TEXT_EVENT = (3).to_bytes(4, "big")
# Whether a part of a test has failed, in the stash of its item.
FAILED = pytest.StashKey[bool]()


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
    """The server did not queue a prompt; `errors` are the messages of its nodes, `details` what
    these say of each input by (kind of node, input)."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self.errors = json.dumps(answer)
        self.details = {
            (entry["class_type"], error["extra_info"].get("input_name")): error["details"]
            for entry in answer.get("node_errors", {}).values()
            for error in entry["errors"]
        }
        super().__init__(self.errors)


class Failed(Exception):
    """A node raised an error, or the run was cancelled; the message is what the user reads."""

    def __init__(self, kind: str, details: dict[str, Any]) -> None:
        self.kind = kind
        self.node_type = details.get("node_type")
        self.exception_type = details.get("exception_type")
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
        self.touched = False  # by the test that runs
        self.listeners: list[Messages] = []
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
        self.start()
        RUNNING.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        RUNNING.remove(self)
        self.stop()

    def start(self) -> None:
        """Start ComfyUI with an empty log, and wait until it answers."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        environment.pop("PYTHONPATH", None)
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        try:
            with bounded("the first answer of ComfyUI", self.process.pid):
                while self.process.poll() is None and not self.answers():
                    time.sleep(0.2)
        finally:
            if self.process.poll() is not None:
                pytest.fail(f"ComfyUI did not start:\n{self.log()[-3000:]}", pytrace=False)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """The same server anew: folder and port stay, what its process has kept is gone."""
        self.stop()
        self.start()

    def settle(self, failed: bool) -> None:
        """Leave nothing of the test that has ended, in which a `failed` one may have left anything:
        damaged networks in the cache, limits, a state that no next test expects."""
        while self.listeners:
            self.listeners.pop().close()
        if self.process.poll() is not None or (failed and self.touched):
            self.restart()
        else:
            try:
                self.cancel_all()
            except (GivenUp, OSError):
                self.restart()
        self.touched = False

    def cancel_all(self) -> None:
        """Empty the queue and wait until the prompt that runs has ended, cancelled or not."""
        with bounded("the end of all prompts", self.process.pid):
            for pause in pauses():
                queue = json.loads(self.request("/queue"))
                if not queue["queue_running"] and not queue["queue_pending"]:
                    return
                self.request("/queue", {"clear": True})
                self.request("/interrupt", {})  # each time: what only starts now forgets it
                time.sleep(pause)

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def answers(self) -> bool:
        try:
            self.request("/system_stats")
        except urllib.error.URLError:
            return False
        return True

    def request(self, path: str, content: dict[str, Any] | None = None) -> bytes:
        """GET, or POST of a content; for as long as it takes, see `bounded`."""
        self.touched = True
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            text: bytes = answer.read()
            return text

    def fetch(self, path: str) -> bytes:
        with bounded(f"an answer to {path}", self.process.pid):
            return self.request(path)

    def get(self, path: str) -> Any:
        return json.loads(self.fetch(path))

    def post(self, path: str, content: dict[str, Any]) -> Any:
        with bounded(f"an answer to {path}", self.process.pid):
            text = self.request(path, content)
        return json.loads(text) if text else None

    def queue(self, prompt: Prompt, client_id: str = "tests") -> str:
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client_id})
        except urllib.error.HTTPError as error:
            raise Refused(json.loads(error.read())) from error
        if answer["node_errors"]:  # ComfyUI runs the rest without the nodes that it refuses
            raise Refused(answer)
        prompt_id: str = answer["prompt_id"]
        return prompt_id

    def wait(self, prompt_id: str) -> dict[str, Any]:
        """The outputs of a prompt by node id, once it has finished."""
        entry = self.ended(prompt_id)
        for kind, details in entry["status"]["messages"]:
            if kind in ("execution_error", "execution_interrupted"):
                raise Failed(kind, details)
        outputs: dict[str, Any] = entry["outputs"]
        return outputs

    def ended(self, prompt_id: str) -> dict[str, Any]:
        """The entry of a prompt in the history, once it is there."""
        path = f"/history/{prompt_id}"
        with bounded(f"the end of the prompt {prompt_id}", self.process.pid):
            ticks = pauses()
            while prompt_id not in (history := json.loads(self.request(path))):
                time.sleep(next(ticks))
        entry: dict[str, Any] = history[prompt_id]
        return entry

    def run(self, prompt: Prompt) -> dict[str, Any]:
        return self.wait(self.queue(prompt))

    def messages(self, client_id: str) -> "Messages":
        listener = Messages(self, client_id)
        self.listeners.append(listener)
        return listener


def pauses() -> Iterator[float]:
    """Seconds to sleep between two questions: about a tenth of the time that has gone by, so that
    questions cost little, and of a standing server not a sign of life."""
    pause = 0.01
    while True:
        yield pause
        pause = min(1.1 * pause, 1.0)


class Messages:
    """The messages that the server sends to one client, but for pictures: a websocket, read only.
    The texts that it shows on nodes come as messages of the type progress_text."""

    def __init__(self, server: Server, client_id: str) -> None:
        self.server = server
        server.touched = True
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.stream = self.socket.makefile("rb")
        with bounded("a websocket", server.process.pid):
            while self.stream.readline().strip():
                pass

    def __enter__(self) -> "Messages":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            with bounded("a message over the websocket", self.server.process.pid):
                kind, payload = self.frame()
            if kind == 1:
                yield json.loads(payload)
            elif payload[:4] == TEXT_EVENT:
                length = int.from_bytes(payload[4:8], "big")
                name, text = payload[8 : 8 + length].decode(), payload[8 + length :].decode()
                yield {"type": "progress_text", "data": {"node": name, "text": text}}

    def frame(self) -> tuple[int, bytes]:
        """Kind and content of the next frame."""
        kind, length = self.bytes(2)
        if length >= 126:
            length = int.from_bytes(self.bytes(2 if length == 126 else 8), "big")
        return kind & 0x0F, self.bytes(length)

    def bytes(self, count: int) -> bytes:
        got = self.stream.read(count)
        if len(got) < count:
            raise ConnectionError("Expected a message, but the server ended; see its log.")
        return got


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
