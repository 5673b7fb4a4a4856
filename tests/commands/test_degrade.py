import argparse
import json
from pathlib import Path

import pytest
import torch
from command_line import run_here, save_small_model

from bir_core.commands import degrade as command
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, read_picture, write_picture


def call(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args([str(word) for word in words]))


def make_picture(path: Path, *, height=21, width=26, seed=0, **more) -> Path:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255
    write_picture(path, Picture(image=image, **more))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three pictures of different formats and sizes."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    make_picture(pictures / "a.png", seed=1)
    make_picture(pictures / "b.webp", seed=2, height=17)
    make_picture(pictures / "c.jpg", seed=3, width=40)
    return pictures


def test_a_picture_is_what_the_function_makes(tmp_path):
    source = make_picture(tmp_path / "a.png")
    assert call(source, tmp_path / "b.png", "--preset", "simple_x4", "--seed", "9") == 0
    generator = torch.Generator().manual_seed(9)
    hq = read_picture(source).image
    expected = degrade(hq, get_preset("simple_x4"), generator=generator).lq
    torch.testing.assert_close(read_picture(tmp_path / "b.png").image, expected)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    source = make_picture(tmp_path / "a.png")
    for name, seed in (("b", 1), ("c", 1), ("d", 2)):
        call(source, tmp_path / f"{name}.png", "--seed", str(seed))
    results = [(tmp_path / f"{name}.png").read_bytes() for name in "bcd"]
    assert results[0] == results[1] != results[2]


def test_a_folder_gives_each_picture_the_next_seed(tmp_path, folder):
    out = tmp_path / "deep" / "out"
    assert call(folder, out, "--preset", "simple_x1", "--seed", "5") == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png"]
    call(folder / "c.jpg", tmp_path / "alone.png", "--preset", "simple_x1", "--seed", "7")
    assert (out / "c.png").read_bytes() == (tmp_path / "alone.png").read_bytes()


def test_the_scale_replaces_that_of_the_preset(tmp_path):
    source = make_picture(tmp_path / "a.png", height=20, width=31)
    call(source, tmp_path / "b.png", "--preset", "realesrgan_x4", "--scale", "2")
    assert read_picture(tmp_path / "b.png").image.shape == (1, 3, 10, 15)


def test_alpha_grey_and_depth(tmp_path):
    alpha = torch.zeros(1, 1, 20, 24)
    alpha[..., 12:] = 1
    source = make_picture(tmp_path / "a.png", height=20, width=24, alpha=alpha, bits=16)
    call(source, tmp_path / "b.png", "--preset", "simple_x4")
    result = read_picture(tmp_path / "b.png")
    assert result.bits == 8
    assert torch.equal(result.alpha, alpha[..., ::4, ::4])

    source = make_picture(tmp_path / "grey.png", is_grey=True)
    call(source, tmp_path / "grey_out.png", "--preset", "simple_x1")
    assert read_picture(tmp_path / "grey_out.png").is_grey


def test_every_drawn_value_is_written(tmp_path, folder):
    record = tmp_path / "draws.json"
    call(folder, tmp_path / "out", "--preset", "realesrgan_x2", "--seed", "5", "--draws", record)
    written = json.loads(record.read_text())
    assert written["preset"] == "realesrgan_x2"
    assert list(written["pictures"]) == ["a.png", "b.webp", "c.jpg"]
    entry = written["pictures"]["b.webp"]
    assert entry["output"] == "b.png" and entry["seed"] == 6
    hq = read_picture(folder / "b.webp").image
    generator = torch.Generator().manual_seed(6)
    draws = degrade(hq, get_preset("realesrgan_x2"), generator=generator).draws
    assert set(entry["draws"]) == set(draws)
    assert entry["draws"]["first_jpeg_quality"] == draws["first_jpeg_quality"].tolist()
    assert entry["draws"]["final_kernels"] == draws["final_kernels"]


def test_existing_files_are_kept_unless_overwrite(tmp_path, folder):
    out = tmp_path / "out"
    out.mkdir()
    (out / "c.png").write_bytes(b"precious")
    with pytest.raises(BIRError, match="exists and is kept.*--overwrite"):
        call(folder, out)
    assert [path.name for path in out.iterdir()] == ["c.png"]
    assert (out / "c.png").read_bytes() == b"precious"
    assert call(folder, out, "--overwrite") == 0
    assert (out / "c.png").read_bytes() != b"precious"


def test_the_record_of_draws_is_kept_too(tmp_path):
    source = make_picture(tmp_path / "a.png")
    record = tmp_path / "draws.json"
    record.write_text("precious")
    with pytest.raises(BIRError, match="exists and is kept"):
        call(source, tmp_path / "b.png", "--draws", record)
    assert record.read_text() == "precious" and not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("target", ["a.png", "../pictures/a.png"])
def test_an_input_is_never_replaced(tmp_path, target):
    (tmp_path / "pictures").mkdir()
    source = make_picture(tmp_path / "pictures" / "a.png")
    before = source.read_bytes()
    with pytest.raises(BIRError, match="inputs are never replaced"):
        call(source, tmp_path / "pictures" / target, "--overwrite")
    with pytest.raises(BIRError, match="inputs are never replaced"):
        call(source.parent, source.parent, "--overwrite")
    with pytest.raises(BIRError, match="inputs are never replaced"):
        call(source, tmp_path / "b.png", "--draws", source, "--overwrite")
    with pytest.raises(BIRError, match="file of their own"):
        call(source, tmp_path / "b.png", "--draws", tmp_path / "b.png")
    assert source.read_bytes() == before


def test_names_that_would_collide_are_refused(tmp_path, folder):
    make_picture(folder / "a.jpg")
    with pytest.raises(BIRError, match="a.jpg and a.png would both become a.png"):
        call(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        (["--preset", "nope"], "one of bicubic_x2, .* but 'nope' came"),
        (["--scale", "99"], "at least 99 pixels, but 26 x 21 came"),
    ],
)
def test_bad_options_leave_nothing_behind(tmp_path, words, message):
    source = make_picture(tmp_path / "a.png")
    with pytest.raises(BIRError, match=message):
        call(source, tmp_path / "b.png", *words)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("words", [["--seed", "-1"], ["--scale", "0"], ["--scale", "x"]])
def test_bad_numbers_are_refused_by_the_parser(tmp_path, words, capsys):
    with pytest.raises(SystemExit):
        call(tmp_path / "a.png", tmp_path / "b.png", *words)
    assert f"but {words[1]} came" in capsys.readouterr().err


def test_an_existing_folder_takes_the_result_of_a_picture(tmp_path):
    source = make_picture(tmp_path / "a.webp")
    (tmp_path / "out").mkdir()
    call(source, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]


def test_bad_paths_are_answered_in_one_sentence(tmp_path):
    source = make_picture(tmp_path / "a.png")
    with pytest.raises(BIRError, match="found nothing; check the path"):
        call(tmp_path / "missing.png", tmp_path / "b.png")
    with pytest.raises(BIRError, match="it has none"):
        (tmp_path / "empty").mkdir()
        call(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(BIRError, match="cannot be made"):
        (tmp_path / "pictures").mkdir()
        make_picture(tmp_path / "pictures" / "b.png")
        call(tmp_path / "pictures", source)
    with pytest.raises(BIRError, match="drawn values .* failed"):
        call(source, tmp_path / "c.png", "--draws", tmp_path / "no" / "draws.json")


def test_holes_come_with_their_masks(tmp_path, folder):
    out, masks = tmp_path / "out", tmp_path / "masks"
    assert call(folder, out, "--preset", "masks_train", "--mask", masks, "--seed", "3") == 0
    for index, name in enumerate("abc"):
        source = next(folder.glob(f"{name}.*"))
        image = read_picture(source).image
        generator = torch.Generator().manual_seed(3 + index)
        expected = degrade(image, get_preset("masks_train"), generator=generator).lq[:, 3:]
        mask = read_picture(masks / f"{name}.png")
        assert mask.is_grey
        assert torch.equal(mask.image[:, :1], expected)
        torch.testing.assert_close(read_picture(out / f"{name}.png").image, image)


def test_holes_of_a_test_come_with_its_square(tmp_path, folder):
    picture, mask = tmp_path / "t.png", tmp_path / "m.png"
    call(folder / "a.png", picture, "--preset", "masks_thin_256", "--mask", mask, "--seed", "2")
    generator = torch.Generator().manual_seed(2)
    image = read_picture(folder / "a.png").image
    expected = degrade(image, get_preset("masks_thin_256"), generator=generator)
    assert torch.equal(read_picture(mask).image[:, :1], expected.lq[:, 3:])
    result = read_picture(picture).image
    torch.testing.assert_close(result, expected.hq, atol=0.51 / 255, rtol=0)


def test_masks_without_a_place_and_places_without_masks_are_sentences(tmp_path):
    source = make_picture(tmp_path / "a.png")
    out = tmp_path / "b.png"
    with pytest.raises(BIRError, match="place for the masks of masks_train, but none came"):
        call(source, out, "--preset", "masks_train")
    with pytest.raises(BIRError, match="holes or damages the surface for --mask, but simple_x4"):
        call(source, out, "--mask", tmp_path / "m.png")
    with pytest.raises(BIRError, match="place of their own for the masks"):
        call(source, out, "--preset", "masks_train", "--mask", out)
    with pytest.raises(BIRError, match="a.png is both"):
        call(source, out, "--preset", "masks_train", "--mask", source, "--overwrite")
    assert not out.exists()


@pytest.mark.parametrize("preset", ["old_photo", "foreign_old_photo"])
def test_old_photographs_come_with_their_damage_if_asked(tmp_path, folder, preset):
    source, out, mask = folder / "a.png", tmp_path / "o.png", tmp_path / "m.png"
    call(source, out, "--preset", preset, "--seed", "2")
    call(source, tmp_path / "again.png", "--preset", preset, "--seed", "2", "--mask", mask)
    assert out.read_bytes() == (tmp_path / "again.png").read_bytes()
    generator = torch.Generator().manual_seed(2)
    expected = degrade(read_picture(source).image, get_preset(preset), generator=generator)
    assert torch.equal(read_picture(mask).image[:, :1], expected.damage)


def test_holes_can_be_filled_and_measured(tmp_path, folder):
    model = save_small_model(tmp_path / "model.safetensors", task="inpainting")
    squares, masks, filled = (tmp_path / name for name in ("squares", "masks", "filled"))
    run = [
        ("degrade", folder, squares, "--preset", "masks_thin_256", "--mask", masks),
        ("restore", squares, filled, "--mask", masks, "--model", model, "--device", "cpu"),
        ("evaluate", squares, "--results", filled, "--metric", "psnr_rgb"),
    ]
    finished = [run_here(*arguments) for arguments in run]
    assert [each.returncode for each in finished] == [0, 0, 0], finished[-1].stderr
    for name in ("a.png", "b.png", "c.png"):
        assert name in finished[-1].stdout
        before, after = (read_picture(place / name).image for place in (squares, filled))
        known = read_picture(masks / name).image == 0
        assert torch.equal(before[known], after[known])
        assert not torch.equal(before, after)


def test_a_bad_picture_does_not_stop_the_folder(folder, tmp_path):
    (folder / "b.webp").write_text("no picture")
    (folder / "d.gif").write_text("another format")
    draws = tmp_path / "draws.json"
    done = run_here("degrade", folder, tmp_path / "out", "--draws", draws)
    assert done.returncode == 2
    left_out, failed, last = done.stderr.splitlines()
    assert "(.gif 1)" in left_out and "b.webp, but it cannot be decoded" in failed
    assert "Expected 3 usable pictures, but 1 could not be degraded" in last
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]
    # The others are drawn as if nothing had failed.
    assert json.loads(draws.read_text())["pictures"]["c.jpg"]["seed"] == 2
    (folder / "b.webp").unlink()
    make_picture(folder / "b.webp", seed=2, height=17)
    (folder / "d.gif").unlink()
    assert call(folder, tmp_path / "whole") == 0
    for name in ("a.png", "c.png"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
