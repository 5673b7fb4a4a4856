"""`bir prepare` from the command line."""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import torch
from command_line import ROOT, command, environment, run_here

from bir_core.pictures.files import Picture, read_picture, write_picture


def picture(path: Path, height: int, width: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255
    write_picture(path, Picture(image))
    return path


@pytest.fixture
def div2k(tmp_path) -> Path:
    """Three of the 800 pictures, one of which no square fits into."""
    for number, height in ((1, 482), (2, 490), (3, 100)):
        picture(tmp_path / "div2k" / "DIV2K_train_HR" / f"{number:04d}.png", height, 724, number)
    return tmp_path / "div2k"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_pairs_and_going_on(tmp_path, div2k):
    out = tmp_path / "out"
    done = run_here("prepare", "div2k", div2k, out, "--partial")
    assert done.returncode == 0, done.stderr
    assert "div2k: 3 pictures, 18 files; 1 smaller than a square" in done.stdout
    assert "2 made now, 0 were there" in done.stdout
    # Three squares in a row of 724 pixels; one row in 480 of 482, and two in 488 of 490.
    squares = [f"0001_s{n:03d}.png" for n in (1, 2, 3)] + [
        f"0002_s{n:03d}.png" for n in range(1, 7)
    ]
    assert names(out) == sorted(f"{kind}/{name}" for kind in ("hq", "lq") for name in squares)
    assert read_picture(out / "lq" / "0001_s001.png").image.shape[-2:] == (120, 120)
    again = run_here("prepare", "div2k", div2k, out, "--partial")
    assert "0 made now, 2 were there" in again.stdout
    other = run_here("prepare", "div2k", div2k, out, "--partial", "--scale", "2")
    assert other.returncode == 2 and "begun with the same settings" in other.stderr


def test_a_killed_run_goes_on_to_the_same_files(tmp_path, div2k):
    for number in range(4, 12):
        picture(div2k / "DIV2K_train_HR" / f"{number:04d}.png", 700, 700, number)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_here("prepare", "div2k", div2k, whole, "--partial").returncode == 0
    words = command("prepare", "div2k", div2k, killed, "--partial", "--workers", "1")
    process = subprocess.Popen(words, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and not names(killed):
        pass
    process.kill()
    process.wait()
    expected = {name: (whole / name).read_bytes() for name in names(whole)}
    there = [name for name in names(killed) if not Path(name).name.startswith(".")]
    assert all((killed / name).read_bytes() == expected[name] for name in there)
    done = run_here("prepare", "div2k", div2k, killed, "--partial")
    assert done.returncode == 0, done.stderr
    assert {name: (killed / name).read_bytes() for name in names(killed)} == expected


def test_what_is_missing_is_a_sentence(tmp_path, div2k):
    for words in ((tmp_path / "out",), ("--check",)):
        done = run_here("prepare", "div2k", div2k, *words)
        assert done.returncode == 2
        assert "0004.png, 0005.png, 0006.png, 0007.png, 0008.png and 792 more are" in done.stderr
    assert not (tmp_path / "out").exists()


def test_check_writes_nothing(tmp_path, div2k):
    before = sorted(tmp_path.rglob("*"))
    done = run_here("prepare", "div2k", div2k, "--check", "--partial")
    assert done.returncode == 0 and "div2k: 3 pictures" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_ffhq_is_made_smaller_and_compared_with_the_list(tmp_path):
    folder = tmp_path / "ffhq"
    good = picture(folder / "images1024x1024" / "00000" / "00000.png", 1024, 1024)
    picture(folder / "images1024x1024" / "00000" / "00001.png", 1024, 1024, 1)
    entries = {
        str(number): {"image": {"file_path": f"x/{number:05d}.png", "file_md5": md5}}
        for number, md5 in ((0, _md5(good)), (1, "0" * 32))
    }
    (folder / "ffhq-dataset-v2.json").write_text(json.dumps(entries))
    out = tmp_path / "out"
    done = run_here("prepare", "ffhq", folder, out, "--partial")
    assert done.returncode == 2 and "00001.png to have the MD5" in done.stderr
    assert names(out) == ["00000.png"]
    assert read_picture(out / "00000.png").image.shape[-2:] == (512, 512)
    checked = run_here("prepare", "ffhq", folder, "--check", "--partial")
    assert checked.returncode == 2 and "hashes of 2 pictures compared" in checked.stdout


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_gopro_has_squares_to_train_and_whole_pairs_to_test(tmp_path):
    for half in ("train", "test"):
        for seed, kind in enumerate(("sharp", "blur")):
            picture(tmp_path / "in" / half / "GOPR1" / kind / "000047.png", 720, 1280, seed)
    out = tmp_path / "out"
    done = run_here("prepare", "gopro", tmp_path / "in", out, "--partial")
    assert done.returncode == 0, done.stderr
    train = [f"train/{k}/GOPR1_000047_s{n:03d}.png" for k in ("hq", "lq") for n in range(1, 9)]
    assert names(out) == sorted([*train, *(f"test/{k}/GOPR1_000047.png" for k in ("hq", "lq"))])


def test_frames_and_laion(tmp_path):
    for number in range(6):
        picture(tmp_path / "clip" / f"{number}.png", 8, 8, number)
    done = run_here("prepare", "frames", tmp_path / "clip", tmp_path / "a", "--frames", "3")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "a") == ["hq/clip_1.png", "hq/clip_4.png", "lq/clip_1.png"] + [
        "lq/clip_4.png"
    ]
    picture(tmp_path / "laion" / "00000" / "a.png", 8, 8)
    (tmp_path / "laion" / "00000" / "a.txt").write_text("a red house")
    words = ("prepare", "laion", tmp_path / "laion", tmp_path / "b", "--least-side", "8")
    for _ in range(2):
        done = run_here(*words)
        assert done.returncode == 0 and "of 1 pictures 1 kept" in done.stdout


@pytest.mark.parametrize(
    "words, message",
    [
        (("div2k", "in"), "either OUTPUT or --check, but neither came"),
        (("div2k", "in", "out", "--check"), "but both came"),
        (("div2k", "absent", "out"), "in a folder at absent"),
        (("div2k", "in", "in/out"), "not within in"),
        (("div2k", "in", "out", "--gamma", "2"), "no --gamma for div2k"),
        (("ffhq", "in", "out", "--scale", "2"), "no --scale for ffhq"),
        (("frames", "in", "--check"), "published set for --check"),
        (("laion", "in", "out", "--partial"), "published set for --partial"),
    ],
)
def test_commands_that_make_no_sense_are_refused(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    done = run_here("prepare", *words)
    assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "out").exists()
