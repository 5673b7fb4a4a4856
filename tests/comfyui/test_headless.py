"""The program of `workflows/api`, against the real server."""

import os
from pathlib import Path

import numpy as np
from comfyui.harness import PACK, Server
from PIL import Image
from progress import run

PROGRAM = PACK / "workflows" / "api" / "restore_folder.py"


def restore_folder(comfyui: tuple[Path, str], server: Server, *arguments: Path) -> tuple[int, str]:
    """By ComfyUI's Python."""
    address = server.url.removeprefix("http://")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    line = [comfyui[1], PROGRAM, *arguments, "--server", address]
    done = run(line, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_folder_is_restored_and_keeps_its_names(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    pictures.mkdir()
    for place, name in enumerate(("b.jpg", "a.png")):
        noise = np.random.default_rng(place).integers(0, 255, (12, 16, 3), np.uint8)
        Image.fromarray(noise).save(pictures / name)
    (pictures / "notes.txt").write_text("no picture")
    code, said = restore_folder(comfyui, server, pictures, results)
    assert code == 0, said
    assert sorted(path.name for path in results.iterdir()) == ["a.png", "b.png"]
    assert "b.jpg -> " in said
    contents = {path.name: path.read_bytes() for path in results.iterdir()}
    with Image.open(results / "a.png") as restored:
        assert restored.size == (64, 48)
    # What is there is not made again.
    code, said = restore_folder(comfyui, server, pictures, results)
    assert code == 0 and "->" not in said
    assert contents == {path.name: path.read_bytes() for path in results.iterdir()}


def test_a_picture_that_fails_is_said_and_the_rest_is_done(
    comfyui: tuple[Path, str], server: Server, tmp_path: Path
) -> None:
    pictures, results = tmp_path / "pictures", tmp_path / "results"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (8, 8), "red").save(pictures / "b.png")
    code, said = restore_folder(comfyui, server, pictures, results)
    assert code == 1 and "a.png: " in said and "Traceback" not in said
    assert [path.name for path in results.iterdir()] == ["b.png"]
