"""The programs of `workflows/api`, and `comfy run`, against the real server."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from comfyui.cancelling import hold_at
from comfyui.harness import PACK, Prompt, Server, node, pauses
from PIL import Image
from progress import bounded, run

API = PACK / "workflows" / "api"
HELD_AT = 60  # of some hundred convolutions


def command(
    comfyui: tuple[Path, str], server: Server, name: str, *arguments: str | Path
) -> list[str]:
    """A program, by ComfyUI's Python."""
    address = server.url.removeprefix("http://")
    return [comfyui[1], str(API / name), "--server", address, *map(str, arguments)]


def environment() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}


def program(
    comfyui: tuple[Path, str], server: Server, name: str, *arguments: str | Path
) -> tuple[int, str]:
    """The exit code and all that was said."""
    done = run(command(comfyui, server, name, *arguments), env=environment())
    return done.returncode, done.stdout + done.stderr


def save_noise(path: Path) -> Path:
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (12, 16, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).save(path)
    return path


def write_held_workflow(folder: Path) -> Path:
    """A workflow that stops in the middle until it is cancelled."""
    prompt: Prompt = {
        "1": node("LoadImage", image="example.png"),
        "2": node("DiffIRLoader", model_name="deblur.safetensors"),
        "3": node("DiffIRRestore", model=["2", 0], image=["1", 0], seed=0, strip=0),
        "4": node("SaveImage", images=["3", 0], filename_prefix="held"),
    }
    hold_at(prompt, "2", HELD_AT)
    path = folder / "held.json"
    path.write_text(json.dumps(prompt))
    return path


def test_a_folder_is_restored_and_keeps_its_names(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    save_noise(pictures / "b.jpg")
    save_noise(pictures / "a.png")
    (pictures / "notes.txt").write_text("no picture")
    code, said = program(comfyui, server, "restore_folder.py", pictures, results)
    assert code == 0, said
    assert sorted(path.name for path in results.iterdir()) == ["a.png", "b.png"]
    assert "b.jpg -> " in said
    contents = {path.name: path.read_bytes() for path in results.iterdir()}
    with Image.open(results / "a.png") as restored:
        assert restored.size == (64, 48)
    # What is there is not made again.
    code, said = program(comfyui, server, "restore_folder.py", pictures, results)
    assert code == 0 and "->" not in said
    assert contents == {path.name: path.read_bytes() for path in results.iterdir()}


def test_a_picture_that_fails_is_said_and_the_rest_is_done(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    save_noise(pictures / "b.png")
    (pictures / "a.png").write_bytes(b"no picture")
    code, said = program(comfyui, server, "restore_folder.py", pictures, results)
    assert code == 1 and "a.png: " in said and "Traceback" not in said
    assert [path.name for path in results.iterdir()] == ["b.png"]


def test_one_picture_with_a_setting(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    picture, result = save_noise(tmp_path / "a.jpg"), tmp_path / "large.png"
    code, said = program(
        comfyui, server, "restore_picture.py", picture, result, "--set", "2.enlarge_by=2"
    )
    assert code == 0, said
    assert "Restore Photo" in said and f"a.jpg -> {result}" in said
    with Image.open(result) as restored:
        assert restored.size == (32, 24)


@pytest.mark.parametrize("setting", ["2.nothing=1", "99.image=1", "2.fidelity=7"])
def test_a_setting_that_does_not_fit_is_a_sentence(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path, setting: str
) -> None:
    picture, result = save_noise(tmp_path / "a.png"), tmp_path / "none.png"
    code, said = program(comfyui, server, "restore_picture.py", picture, result, "--set", setting)
    assert code == 1 and said.startswith("a.png: ") and "Traceback" not in said
    assert not result.exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("restore_picture.py", ["pictures/a.png", "none.png"]),
        ("restore_folder.py", ["pictures", "results"]),
        ("queue_folder.py", ["pictures"]),
        ("manage_queue.py", ["list"]),
    ],
)
def test_without_a_server_a_sentence_says_so(
    comfyui: tuple[Path, str], tmp_path: Path, name: str, arguments: list[str]
) -> None:
    save_noise(tmp_path / "pictures" / "a.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        line = [comfyui[1], API / name, "--server", f"127.0.0.1:{free.getsockname()[1]}"]
        done = run([*line, *arguments], env=environment(), cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and said.strip() and "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no Ctrl+C to one process")
def test_interrupting_the_program_cancels_the_run(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    picture, result = save_noise(tmp_path / "a.png"), tmp_path / "none.png"
    line = command(comfyui, server, "restore_picture.py", picture, result)
    line += ["--workflow", str(write_held_workflow(tmp_path))]
    with subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A shell may have started the tests in the background, where it ignores the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        with bounded("progress of the program", process.pid, server.process.pid):
            assert any(" of " in said for said in process.stdout)
        process.send_signal(signal.SIGINT)
        with bounded("the end of the program", process.pid, server.process.pid):
            _, message = process.communicate()
    assert process.returncode == 1 and message.strip() == "cancelled"
    assert not result.exists()
    with bounded("an empty queue", server.process.pid):
        for pause in pauses():
            if not json.loads(server.request("/queue"))["queue_running"]:
                return
            time.sleep(pause)


def test_a_folder_is_queued_and_fetched_later(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    save_noise(pictures / "a b.png")
    save_noise(pictures / "\u00fc.jpg")
    code, said = program(comfyui, server, "queue_folder.py", pictures)
    assert code == 0, said
    numbers = [line.split()[0] for line in said.splitlines()]
    assert [line.split(maxsplit=1)[1] for line in said.splitlines()] == ["a b.png", "\u00fc.jpg"]
    for number in numbers:
        server.wait(number)
        code, said = program(comfyui, server, "manage_queue.py", "fetch", number, results)
        assert code == 0, said
    names = sorted(path.name for path in results.iterdir())
    assert names == ["a b_00001_.png", "\u00fc_00001_.png"]
    kept = server.base / "output" / "restored"
    assert all((results / name).read_bytes() == (kept / name).read_bytes() for name in names)
    code, said = program(comfyui, server, "manage_queue.py", "fetch", "nothing", results)
    assert code == 1 and "Traceback" not in said


def test_the_queue_is_shown_and_cancelled(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    save_noise(server.base / "input" / "example.png")
    held = json.loads(write_held_workflow(tmp_path).read_text())
    with server.messages("headless") as messages:
        numbers = [server.queue(held, "headless"), server.queue(held, "headless")]
        assert any(message["type"] == "test_held" for message in messages)
    _, said = program(comfyui, server, "manage_queue.py", "list")
    lines = [f"running {numbers[0]} example.png", f"pending {numbers[1]} example.png"]
    assert said.splitlines() == lines
    assert program(comfyui, server, "manage_queue.py", "cancel", "all") == (0, "")
    assert server.ended(numbers[0])["status"]["status_str"] == "error"
    assert program(comfyui, server, "manage_queue.py", "list") == (0, "")


def test_comfy_run_restores_a_photo(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    places = [str(Path(python).parent) for python in (comfyui[1], sys.executable)]
    comfy = shutil.which("comfy") or shutil.which("comfy", path=os.pathsep.join(places))
    if comfy is None:
        pytest.skip("comfy-cli is not installed")
    save_noise(server.base / "input" / "example.png")
    output = server.base / "output"
    before = set(output.glob("Restore_photo*.png"))
    line = [comfy, "--skip-prompt", "run", "--workflow", API / "Restore_photo.json", "--wait"]
    line += ["--host", "127.0.0.1", "--port", server.port, "--timeout", 3600, "--json"]
    home = {**environment(), "HOME": str(tmp_path), "COMFY_NO_WATCH": "1"}
    done = run(line, env=home)
    assert done.returncode == 0, done.stdout + done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["type"] == "envelope" and last["ok"]
    (saved,) = set(output.glob("Restore_photo*.png")) - before
    with Image.open(saved) as restored:
        assert restored.size == (64, 48)
