"""`bir inspect --cost`: tables, JSON, options of a run, and what is refused."""

import json

import pytest
from command_line import run_here, save_small_model
from PIL import Image


def cost(*words):
    done = run_here("inspect", *words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def test_a_table_by_part_and_what_the_paper_prints():
    lines = cost("realsr_x4", "--cost").splitlines()
    assert lines[0] == "diffir_s2 realsr_x4, 256x256"
    assert any(line.startswith("| all | 24,971,206 | 722.5 |") for line in lines)
    assert any("0.74 T" in line for line in lines)
    assert any(line.startswith("| G.refinement |") for line in lines)
    assert "RePaint" not in "".join(lines)


def test_the_size_is_of_the_picture(tmp_path):
    path = save_small_model(tmp_path / "small.pth")
    words = ("--json", "--cost")
    small, large = (
        json.loads(cost(path, *words, size))["networks"][0] for size in ("64x32", "64x64")
    )
    assert (small["width"], small["height"]) == (64, 32)
    for name in ("multiply_adds", "read", "written"):
        sums = sum(part[name] for part in small["parts"].values())
        assert small["total"][name] == sums < large["total"][name]
    assert small["printed_multiply_adds"] is None


def test_inpainting_stands_beside_repaint():
    text = cost("inpainting", "--cost")
    assert "2410 calls" in text and "1.12 T" in text and "2699 T" in text
    assert f"{2698.67e12 / 50.56e9:.0f}"[:3] in text


def test_a_run(tmp_path):
    text = cost("diffbir-v2.1", "--cost", "128x128")
    assert text.startswith("diffbir-v2.1, 128x128 -> 512x512\n")
    assert "| sd_unet | 20 | 865,910,724 | 8043 |" in text and "10795 T for 512x512" in text
    numbers = json.loads(
        cost("diffbir-v2.1", "--cost", "128x128", "--json", "--steps", "5", "--upscale", "2")
    )
    assert numbers["stages"]["sd_unet"]["calls"] == 10
    assert numbers["total"]["multiply_adds"] == sum(
        stage["multiply_adds"] for stage in numbers["stages"].values()
    )
    assert numbers["repaint_network_calls"] == 2410


def test_a_file_of_the_name_of_a_network_comes_first(tmp_path, monkeypatch):
    save_small_model(tmp_path / "deblur")
    monkeypatch.chdir(tmp_path)
    assert cost("deblur", "--cost", "64x64").startswith("diffir_s2 custom")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("absent", "--cost"), "choose of builtin-x4-sharp"),
        (("absent.pth", "--cost"), "absent.pth"),
        (("deblur", "--cost", "--steps", "3"), "leave the option out, or name a run"),
        (("builtin-x4", "--steps", "3"), "Expected --cost with --steps"),
        (("diffbir-v2.1", "--cost", "--steps", "0"), "steps"),
        (("diffbir-v2.1", "--cost", "--tile", "100"), "multiple of 64"),
        (("realsr_x4",), "found nothing of the name"),
    ],
)
def test_what_is_refused(words, sentence):
    done = run_here("inspect", *words)
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.count("\n") == 1


def test_a_picture_has_no_cost(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    done = run_here("inspect", tmp_path / "photo.png", "--cost")
    assert done.returncode == 2 and "is a picture" in done.stderr


@pytest.mark.parametrize("size", ["256", "0x9", "axb", "3x"])
def test_a_size_is_two_numbers(size):
    with pytest.raises(SystemExit):
        run_here("inspect", "builtin-x4", "--cost", size)
