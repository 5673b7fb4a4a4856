"""BIRLoadFolder: each picture by itself, and results under the names that they came with."""

import os
from pathlib import Path

import numpy as np
import pytest
from comfyui.harness import Failed, Prompt, Refused, Server, node
from PIL import Image

PICTURES = {"b c.png": (20, 12), "a.jpg": (9, 30), "deeper/d.webp": (16, 16), "no.txt": None}


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    place = server.base / "input" / tmp_path.name
    for name, size in PICTURES.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if size is None:
            path.write_text("not a picture")
        else:
            colour = 40 * list(PICTURES).index(name)
            Image.new("RGB", size, (colour, 100, 200)).save(path)
    return place


def copied(folder: Path, prefix: str, **inputs: object) -> Prompt:
    return {
        "load": node("BIRLoadFolder", folder=folder.name, **inputs),
        "prefix": node("StringConcatenate", string_a=prefix, string_b=["load", 1], delimiter="/"),
        "save": node("SaveImage", images=["load", 0], filename_prefix=["prefix", 0]),
    }


@pytest.mark.parametrize("recursive", [False, True])
def test_results_keep_the_names(server: Server, folder: Path, recursive: bool) -> None:
    outputs = server.run(copied(folder, folder.name, recursive=recursive))
    saved = [Path(each["subfolder"], each["filename"]) for each in outputs["save"]["images"]]
    wanted = ["a", "b c"] + (["deeper/d"] if recursive else [])
    assert [path.as_posix() for path in saved] == [f"{folder.name}/{n}_00001_.png" for n in wanted]
    sizes = [Image.open(server.base / "output" / path).size for path in saved]
    assert sizes == [(9, 30), (20, 12)] + ([(16, 16)] if recursive else [])


def test_alpha_is_kept(server: Server, folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    drawn = np.random.default_rng(5).integers(0, 256, (7, 9, 4), dtype=np.uint8)
    drawn[:3, :, 3] = 0
    Image.fromarray(drawn, "RGBA").save(folder / "see.png")
    outputs = server.run(copied(folder, folder.name))
    (saved,) = outputs["save"]["images"]
    path = server.base / "output" / saved["subfolder"] / saved["filename"]
    assert np.array_equal(np.asarray(Image.open(path)), drawn)


def test_a_file_that_is_written_anew_is_read_anew(server: Server, folder: Path) -> None:
    prompt = copied(folder, folder.name)
    assert len(server.run(prompt)["save"]["images"]) == 2
    Image.new("RGB", (5, 5)).save(folder / "new.png")
    assert len(server.run(prompt)["save"]["images"]) == 3
    os.utime(folder / "new.png", (1, 1))
    (_, _, last) = server.run(prompt)["save"]["images"]
    assert last["filename"] == "new_00002_.png"


def test_what_cannot_be_loaded_is_a_sentence(server: Server, folder: Path) -> None:
    with pytest.raises(Refused):
        server.run(copied(folder / "absent", "x"))
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    (folder / "broken.png").write_bytes(b"nothing")
    with pytest.raises(Failed, match=r"broken\.png"):
        server.run(copied(folder, "x"))
    (folder / "broken.png").unlink()
    with pytest.raises(Failed, match="Expected pictures"):
        server.run(copied(folder, "x"))
