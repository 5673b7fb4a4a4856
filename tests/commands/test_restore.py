import json
from dataclasses import replace

import pytest
import torch
from command_line import run_bir, save_small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from bir_core.checkpoints import load_model
from bir_core.cli import main
from bir_core.diffir.restore import restore
from bir_core.images import resize
from bir_core.pictures.files import Picture, read_picture, write_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "x1": save_small_model(folder / "x1.safetensors"),
        "x2": save_small_model(folder / "x2.safetensors", scale=2),
        "x4": save_small_model(folder / "x4.safetensors", scale=4),
        "inpainting": save_small_model(folder / "inpainting.safetensors", task="inpainting"),
    }


def random_picture(height=12, width=10, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(0, 256, (1, 3, height, width), generator=generator)
    return Picture(steps.float() / 255, **more)


def bir(*arguments):
    return main([str(argument) for argument in arguments])


@settings(max_examples=25)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    kind=st.sampled_from(["x1", "x2", "x4"]),
    bits=st.sampled_from([8, 16]),
    grey=st.booleans(),
    alpha=st.booleans(),
)
def test_any_size_and_kind(models, tmp_path_factory, height, width, kind, bits, grey, alpha):
    folder = tmp_path_factory.mktemp("any")
    picture = random_picture(height, width, bits=bits, is_grey=grey, icc=None if grey else SRGB)
    if alpha:
        picture = replace(picture, alpha=picture.image[:, :1].clone())
    write_picture(folder / "in.png", picture)
    assert bir("restore", folder / "in.png", folder / "out.png", "--model", models[kind]) == 0
    got = read_picture(folder / "out.png")
    scale = int(kind[1])
    assert got.image.shape == (1, 3, scale * height, scale * width)
    assert (got.is_grey, got.bits, got.icc) == (grey, bits, picture.icc)
    if not alpha:
        assert got.alpha is None
    else:
        expected = resize(picture.alpha, scale * height, scale * width).clamp(0, 1)
        assert (got.alpha - expected).abs().max() <= 0.51 / 255


def test_equals_the_function(models, tmp_path):
    """The command adds nothing of its own to the samples."""
    picture = random_picture(bits=16)
    write_picture(tmp_path / "in.tif", picture)
    model = load_model(models["x4"])
    arguments = ("--model", models["x4"], "--seed", 5, "--strip", 1)
    assert bir("restore", tmp_path / "in.tif", tmp_path / "out.tif", *arguments) == 0
    expected = restore(read_picture(tmp_path / "in.tif").image, model, seed=5, strip=1)
    got = read_picture(tmp_path / "out.tif").image
    assert (got - expected).abs().max() <= 0.51 / 65535
    assert expected.std() > 0.01


def test_same_seed_same_bytes_in_any_folder(models, tmp_path):
    alone, folder = tmp_path / "alone", tmp_path / "folder"
    alone.mkdir()
    folder.mkdir()
    for index in range(3):
        write_picture(folder / f"{index}.png", random_picture(seed=index))
    write_picture(alone / "2.png", random_picture(seed=2))
    arguments = ("--model", models["x1"], "--bits", 16, "--seed")
    assert bir("restore", alone, tmp_path / "a", *arguments, 3) == 0
    assert bir("restore", folder, tmp_path / "b", *arguments, 3) == 0
    assert bir("restore", folder / "2.png", tmp_path / "c.png", *arguments, 3) == 0
    first = (tmp_path / "a" / "2.png").read_bytes()
    assert (tmp_path / "b" / "2.png").read_bytes() == first
    assert (tmp_path / "c.png").read_bytes() == first
    assert bir("restore", folder / "2.png", tmp_path / "d.png", *arguments, 4) == 0
    assert (tmp_path / "d.png").read_bytes() != first


def test_folder(models, tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "new" / "out"
    (source / "sub").mkdir(parents=True)
    write_picture(source / "a.png", random_picture(4, 5))
    write_picture(source / "B.JPG", random_picture(6, 7))
    write_picture(source / "sub" / "c.tif", random_picture(8, 9))
    (source / "notes.txt").write_text("no picture")
    assert bir("restore", source, output, "--model", models["x1"]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["B.JPG", "a.png"]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{output / 'B.JPG'}  7x6 -> 7x6", f"{output / 'a.png'}  5x4 -> 5x4"]

    options = ("--model", models["x1"], "--recursive", "--overwrite", "--format", "webp")
    assert bir("restore", source, output, *options) == 0
    assert read_picture(output / "sub" / "c.webp").image.shape == (1, 3, 8, 9)


def test_output_inside_the_input_folder_is_not_restored_again(models, tmp_path):
    write_picture(tmp_path / "a.png", random_picture())
    options = ("--model", models["x1"], "--recursive", "--overwrite")
    for _ in range(2):
        assert bir("restore", tmp_path, tmp_path / "out", *options) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_resume_restores_what_is_missing(models, tmp_path, capsys):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in "abc":
        write_picture(source / f"{name}.png", random_picture())
    line = ("restore", source, output, "--model", models["x1"])
    assert bir(*line) == 0
    (output / "b.png").unlink()
    (output / "c.png").write_bytes(b"kept")
    (output / ".b-part-abcd1234.png").write_bytes(b"half")
    capsys.readouterr()
    assert bir(*line, "--resume") == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 of 3 pictures are restored already",
        f"{output / 'b.png'}  10x12 -> 10x12",
    ]
    assert sorted(path.name for path in output.iterdir()) == ["a.png", "b.png", "c.png"]
    assert (output / "c.png").read_bytes() == b"kept"
    assert bir(*line, "--resume") == 0
    assert capsys.readouterr().out == "3 of 3 pictures are restored already\n"
    assert bir(*line) == 2


def test_picture_into_an_existing_folder(models, tmp_path):
    write_picture(tmp_path / "a.png", random_picture())
    (tmp_path / "out").mkdir()
    arguments = ("--model", models["x1"], "--format", "jpg", "--quality", 30)
    assert bir("restore", tmp_path / "a.png", tmp_path / "out", *arguments) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.jpg"]


def test_bits(models, tmp_path):
    write_picture(tmp_path / "a.png", random_picture())
    arguments = ("--model", models["x1"], "--bits", 16)
    assert bir("restore", tmp_path / "a.png", tmp_path / "b.png", *arguments) == 0
    assert read_picture(tmp_path / "b.png").bits == 16


def test_inpainting_changes_the_hole_only(models, tmp_path):
    picture = random_picture(11, 13)
    hole = torch.zeros(1, 3, 11, 13)
    hole[..., 3:7, 4:9] = 1
    write_picture(tmp_path / "in.png", picture)
    write_picture(tmp_path / "mask.png", Picture(hole, is_grey=True))
    arguments = ("--model", models["inpainting"], "--mask", tmp_path / "mask.png")
    assert bir("restore", tmp_path / "in.png", tmp_path / "out.png", *arguments) == 0
    got = read_picture(tmp_path / "out.png").image
    assert torch.equal(got * (1 - hole), picture.image * (1 - hole))
    assert not torch.equal(got, picture.image)


def test_masks_of_a_folder(models, tmp_path):
    for name in ("in", "masks", "in/sub", "masks/sub"):
        (tmp_path / name).mkdir()
    holes = {}
    for index, name in enumerate(("a", "sub/b")):
        hole = torch.zeros(1, 3, 8, 8)
        hole[..., index : index + 2, :] = 1
        holes[name] = hole
        write_picture(tmp_path / "in" / f"{name}.png", random_picture(8, 8))
        write_picture(tmp_path / "masks" / f"{name}.tif", Picture(hole, is_grey=True))
    options = ("--model", models["inpainting"], "--mask", tmp_path / "masks", "--recursive")
    assert bir("restore", tmp_path / "in", tmp_path / "out", *options) == 0
    for name, hole in holes.items():
        got = read_picture(tmp_path / "out" / f"{name}.png").image
        changed = (got != random_picture(8, 8).image).any(1).any(-1)[0]
        assert torch.equal(changed, hole[0, 0, :, 0] == 1)


def test_bfloat16_is_near_float32(models, tmp_path):
    write_picture(tmp_path / "in.png", random_picture(24, 24))
    for dtype in ("float32", "bfloat16"):
        arguments = ("--model", models["x1"], "--dtype", dtype, "--bits", 16)
        assert bir("restore", tmp_path / "in.png", tmp_path / f"{dtype}.png", *arguments) == 0
    single = read_picture(tmp_path / "float32.png").image
    half = read_picture(tmp_path / "bfloat16.png").image
    assert 0 < (single - half).abs().max() < 0.1


def test_progress_bars_on_a_terminal_only(models, tmp_path, monkeypatch, capsys):
    (tmp_path / "in").mkdir()
    for index in range(2):
        write_picture(tmp_path / "in" / f"{index}.png", random_picture())
    assert bir("restore", tmp_path / "in", tmp_path / "quiet", "--model", models["x1"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert bir("restore", tmp_path / "in", tmp_path / "shown", "--model", models["x1"]) == 0
    shown = capsys.readouterr().err
    assert "pictures: 100%" in shown
    assert "1.png: " in shown


def test_inspect(models, capsys):
    assert bir("inspect", models["x2"], "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["architecture"] == "diffir_s2"
    assert (facts["task"], facts["scale"], facts["dtype"]) == ("sr", 2, "float32")
    assert facts["config"]["num_blocks"] == [1, 1, 1, 1]
    parameters = sum(weight.numel() for weight in load_model(models["x2"]).parameters())
    assert facts["parameters"] == parameters
    assert bir("inspect", models["x2"]) == 0
    text = capsys.readouterr().out
    assert f"{parameters:,}" in text
    assert "num_blocks:" in text


def test_process(models, tmp_path):
    """The same as a process: exit code, and nothing on stderr when it is no terminal."""
    write_picture(tmp_path / "a.png", random_picture(1, 1))
    done = run_bir("restore", tmp_path / "a.png", tmp_path / "b.png", "--model", models["x4"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'b.png'}  1x1 -> 4x4\n"
    help_text = run_bir("restore", "--help")
    assert help_text.returncode == 0
    assert "--strip ROWS" in help_text.stdout
