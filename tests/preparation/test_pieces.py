"""Squares, sizes and pairs of published sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.pictures.sizes import picture_size
from bir_core.preparation.layout import Source
from bir_core.preparation.pieces import files_of, pieces_of, write_pieces
from bir_core.preparation.sets import SETS, Part, SubImages

SMALL = Part(folder="hq", source="hq.zip", cuts=SubImages(side=48, step=24))


def picture(path, height, width, seed=0, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (1, 3, height, width), generator=generator) / 255
    write_picture(path, Picture(image, **more), overwrite=True)
    return path


def make(source, pieces, folder, scale):
    """Results in a folder; what runs the jobs makes the folders."""
    for piece in pieces:
        for path in files_of(piece, source, folder, scale):
            path.parent.mkdir(parents=True, exist_ok=True)
    write_pieces(source, pieces, folder, scale)


def whole(path):
    return read_picture(path).image


@pytest.mark.parametrize(
    "length, expected",
    [
        (479, []),
        (480, [0]),
        (481, [0, 1]),
        (720, [0, 240]),
        (1356, [0, 240, 480, 720, 876]),
        (2040, [0, 240, 480, 720, 960, 1200, 1440, 1560]),
    ],
)
def test_squares_of_df2k(length, expected):
    """By hand: every 240 pixels while 480 fit, and a last one at the border."""
    (part, *_) = SETS["df2k"].parts
    assert part.cuts is not None and part.cuts.places(length) == expected


def test_gopro_gives_eight_squares():
    part = SETS["gopro"].parts[0]
    assert part.cuts is not None
    assert [part.cuts.places(side) for side in (720, 1280)] == [[0, 208], [0, 256, 512, 768]]


def test_squares_are_cut_from_the_picture_in_rows(tmp_path):
    path = picture(tmp_path / "0001.png", 60, 80)
    source = Source(SMALL, path, "0001")
    pieces = pieces_of(source, 1)
    make(source, pieces, tmp_path / "out", 1)
    boxes = [(top, left) for top in (0, 12) for left in (0, 24, 32)]
    names = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert names == [f"0001_s{number:03d}.png" for number in range(1, 7)]
    for name, (top, left) in zip(names, boxes, strict=True):
        expected = whole(path)[..., top : top + 48, left : left + 48]
        assert torch.equal(whole(tmp_path / "out" / name), expected)


def test_pairs_are_the_bicubic_preset_cut_alike(tmp_path):
    path = picture(tmp_path / "0001.png", 62, 83)
    source = Source(SMALL, path, "0001")
    make(source, pieces_of(source, 4), tmp_path / "out", 4)
    made = degrade(whole(path), get_preset("bicubic_x4"), generator=torch.Generator())
    assert len(list((tmp_path / "out" / "lq").iterdir())) == 6
    for number, (top, left) in enumerate(
        ((top, left) for top in (0, 12) for left in (0, 24, 32)), 1
    ):
        name = f"0001_s{number:03d}.png"
        hq, lq = (whole(tmp_path / "out" / kind / name) for kind in ("hq", "lq"))
        assert torch.equal(hq, made.hq[..., top : top + 48, left : left + 48])
        rows, columns = slice(top // 4, top // 4 + 12), slice(left // 4, left // 4 + 12)
        torch.testing.assert_close(lq, made.lq[..., rows, columns])


def test_a_partner_is_cut_at_the_same_places(tmp_path):
    hq = picture(tmp_path / "train" / "video" / "sharp" / "1.png", 50, 60, seed=1)
    lq = picture(tmp_path / "train" / "video" / "blur" / "1.png", 50, 60, seed=2)
    source = Source(replace(SMALL, output="train"), hq, "video_1", lq)
    pieces = pieces_of(source, 1)
    make(source, pieces, tmp_path / "out", 1)
    last = pieces[-1]
    for kind, origin in (("hq", hq), ("lq", lq)):
        made = whole(tmp_path / "out" / "train" / kind / last.name)
        assert torch.equal(made, whole(origin)[..., 2:50, 12:60])


def test_further_sizes_are_those_of_real_esrgan(tmp_path):
    """3/4, 1/2, 1/3 and a shorter side of 400, by Pillow's Lanczos filter."""
    path = picture(tmp_path / "0001.png", 810, 1220)
    part = SETS["df2k-multiscale"].parts[0]
    source = Source(part, path, "0001")
    sizes = {piece.name.split("_")[0]: piece.size for piece in pieces_of(source, 1)}
    # A third is 270 pixels high, which no square of 400 fits into.
    assert sizes == {"0001": (810, 1220), "0001T0": (607, 915), "0001T1": (405, 610)} | {
        "0001T3": (400, 602)
    }
    last = [piece for piece in pieces_of(source, 1) if piece.size == (400, 602)]
    assert [piece.box for piece in last] == [(0, left, 400, 400) for left in (0, 200, 202)]
    make(source, last, tmp_path / "out", 1)
    resized = Image.open(path).resize((602, 400), Image.Resampling.LANCZOS)
    expected = np.asarray(resized)[:, 202:602]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / last[-1].name)), expected)


def test_a_whole_picture_is_resized(tmp_path):
    part = Part(folder="f", source="f", size=(64, 64), side=32)
    source = Source(part, picture(tmp_path / "00000.png", 64, 64), "00000")
    make(source, pieces_of(source, 1), tmp_path / "out", 1)
    assert picture_size(tmp_path / "out" / "00000.png") == (32, 32)


def test_only_what_is_absent_is_made(tmp_path):
    source = Source(SMALL, picture(tmp_path / "1.png", 48, 100), "1")
    pieces = pieces_of(source, 2)
    make(source, pieces, tmp_path / "out", 2)
    files = [path for piece in pieces for path in files_of(piece, source, tmp_path / "out", 2)]
    before = {path: path.stat().st_mtime_ns for path in files}
    content = files[3].read_bytes()
    files[3].unlink()
    make(source, pieces, tmp_path / "out", 2)
    assert files[3].read_bytes() == content
    same = [path for path in files if path.stat().st_mtime_ns == before[path]]
    # The pair of the missing one is made anew.
    assert len(same) == len(files) - 2


def test_grey_stays_grey(tmp_path):
    path = picture(tmp_path / "1.png", 48, 48)
    image = whole(path).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    write_picture(path, Picture(image, is_grey=True), overwrite=True)
    source = Source(SMALL, path, "1")
    make(source, pieces_of(source, 1), tmp_path / "out", 1)
    assert read_picture(tmp_path / "out" / "1_s001.png").is_grey


def test_another_size_than_published_is_refused(tmp_path):
    path = picture(tmp_path / "1.png", 30, 40)
    part = Part(folder="f", source="f", size=(720, 1280))
    with pytest.raises(BIRError, match="to be 1280x720 as published, but it is 40x30"):
        pieces_of(Source(part, path, "1"), 1)
    lq = picture(tmp_path / "2.png", 30, 41)
    with pytest.raises(BIRError, match="2.png to be 40x30 as .*1.png, but it is 41x30"):
        pieces_of(Source(SMALL, path, "1", lq), 1)
    path.write_bytes(b"no picture")
    with pytest.raises(BIRError, match="header cannot be read"):
        pieces_of(Source(SMALL, path, "1"), 1)


def test_the_size_is_that_of_the_upright_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert picture_size(tmp_path / "turned.jpg") == (20, 10)
    assert whole(tmp_path / "turned.jpg").shape[-2:] == (20, 10)
