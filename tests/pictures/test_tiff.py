"""What the tags of TIFF files say, and TIFF files that are damaged in part."""

from dataclasses import replace

import numpy as np
import pytest
import pyvips
import torch
from damaged_pictures import gradient, jpeg, tiff, write
from PIL import Image

from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.pictures.side_data import Extras

RGB, GREY = 2, 1
BIT8 = (8, 8, 8)


def samples(picture):
    """(H, W, 3), steps of 8 bits."""
    return (picture.image[0].permute(1, 2, 0) * 255).numpy()


def with_extra(*channels):
    return np.concatenate([gradient(), *channels], -1)


def constant(value):
    return np.full((32, 32, 1), value, np.uint8)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "webp", "jpeg", "ccittfax4"])
def test_a_damaged_part_is_never_written(tmp_path, compression, tiled):
    values = gradient(64, 64)
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb")
    options = {"compression": compression, "tile": tiled, "tile_width": 16, "tile_height": 16}
    if compression == "ccittfax4":
        image = (image.extract_band(0) > 100).copy(interpretation="b-w")
        options["bitdepth"] = 1
    path = tmp_path / "a.tif"
    image.tiffsave(str(path), **options)
    read_picture(path)
    with Image.open(path) as file:
        places = file.tag_v2[324 if tiled else 273]
        lengths = file.tag_v2[325 if tiled else 279]
    content = bytearray(path.read_bytes())
    middle = len(places) // 2
    for place in range(places[middle] + 2, places[middle] + lengths[middle]):
        content[place] = (content[place] * 7 + 13) % 256
    path.write_bytes(content)
    with pytest.raises(BIRError, match="cannot be decoded") as caught:
        read_picture(path)
    assert "unable to" not in str(caught.value)


@pytest.mark.parametrize("tiled", [False, True])
def test_old_style_jpeg_is_decoded_or_refused(tmp_path, tiled):
    stream = jpeg(gradient())
    more = [(512, "H", [1]), (513, "I", "@"), (514, "I", [len(stream)]), (530, "H", [1, 1])]
    if tiled:
        more += [(322, "I", [32]), (323, "I", [32])]
    content = tiff(32, 32, BIT8, 6, [stream], compression=6, more=more)
    picture = read_picture(write(tmp_path / "a.tif", content))
    assert picture.alpha is None
    assert np.abs(samples(picture) - gradient()).max() <= 3


def test_tiles_of_old_style_jpeg_that_nothing_decodes(tmp_path):
    values = gradient()
    tiles = [
        jpeg(np.ascontiguousarray(values[row : row + 16, column : column + 16]))
        for row in (0, 16)
        for column in (0, 16)
    ]
    more = [(322, "I", [16]), (323, "I", [16]), (512, "H", [1]), (530, "H", [1, 1])]
    content = tiff(32, 32, BIT8, 6, tiles, compression=6, more=more)
    with pytest.raises(BIRError, match="old-style JPEG"):
        read_picture(write(tmp_path / "a.tif", content))


def test_the_extra_channel_is_what_its_tag_says(tmp_path):
    content = with_extra(constant(128)).tobytes()
    found = {}
    for kind in (0, 1, 2):
        more = [(338, "H", [kind])]
        path = write(tmp_path / f"{kind}.tif", tiff(32, 32, (8,) * 4, RGB, [content], more=more))
        found[kind] = read_picture(path)
    assert found[0].alpha is None and found[0].extras.left_out == ("1 extra channel",)
    assert np.array_equal(samples(found[0]), gradient())
    assert torch.equal(found[2].alpha, torch.full((1, 1, 32, 32), 128 / 255))
    assert np.array_equal(samples(found[2]), gradient())
    # Multiplied by alpha in the file.
    assert torch.equal(found[1].alpha, found[2].alpha)
    expected = (gradient() * 255.0 / 128).round().clip(0, 255)
    # Some versions of libvips cut the quotient off.
    assert np.abs(samples(found[1]) - expected).max() <= 1


def test_alpha_among_other_channels(tmp_path):
    for name, photometric, colours in (("rgb", RGB, gradient()), ("grey", GREY, constant(77))):
        content = np.concatenate([colours, constant(5), constant(200)], -1)
        bits = (8,) * content.shape[-1]
        more = [(338, "H", [0, 2])]
        whole = tiff(32, 32, bits, photometric, [content.tobytes()], more=more)
        picture = read_picture(write(tmp_path / f"{name}.tif", whole))
        assert torch.equal(picture.alpha, torch.full((1, 1, 32, 32), 200 / 255))
        assert picture.is_grey == (name == "grey")
        assert np.abs(samples(picture) - colours).max() < 0.01
        assert picture.extras.left_out == ("1 extra channel",)


def test_twelve_bits(tmp_path):
    steps = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 4
    first, second = steps.reshape(-1)[::2], steps.reshape(-1)[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    content = tiff(32, 32, (12,), GREY, [packed.astype(np.uint8).tobytes()])
    picture = read_picture(write(tmp_path / "a.tif", content))
    assert picture.bits == 16 and picture.is_grey
    expected = torch.from_numpy(steps.astype(np.float32)) / 4095
    assert (picture.image[0, 0] - expected).abs().max() <= 0.51 / 65535
    colour = tiff(32, 32, (12,) * 3, RGB, [bytes(32 * 32 * 9 // 2)])
    with pytest.raises(BIRError, match="12 bits per sample"):
        read_picture(write(tmp_path / "b.tif", colour))


@pytest.mark.parametrize("below", [False, True])
def test_a_pyramid_is_one_picture(tmp_path, below):
    values = np.tile(gradient(), (16, 16, 1))
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb")
    image.tiffsave(str(tmp_path / "a.tif"), tile=True, pyramid=True, subifd=below)
    assert np.array_equal(samples(read_picture(tmp_path / "a.tif")).round(), values)


def test_a_reduced_version_is_not_taken_for_the_picture(tmp_path):
    more = [(254, "I", [1])]
    content = tiff(32, 32, BIT8, RGB, [gradient().tobytes()], more=more)
    with pytest.raises(BIRError, match="reduced version"):
        read_picture(write(tmp_path / "a.tif", content))


@pytest.mark.parametrize("resolution", [None, (300.0, 150.0)])
@pytest.mark.parametrize("bits", [8, 16])
def test_resolution_and_exif_are_written(tmp_path, resolution, bits):
    exif = Image.Exif()
    exif[0x010E], exif[0x010F] = "a bridge", "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    picture = Picture(torch.rand(1, 3, 4, 5), bits=bits, exif=exif.tobytes())
    picture = replace(picture, extras=Extras(resolution=resolution))
    assert write_picture(tmp_path / "a.tif", picture) == ()
    with Image.open(tmp_path / "a.tif") as file:
        tags = dict(file.tag_v2)
        assert file.getexif().get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert (tags[270], tags[271]) == ("a bridge", "maker")
    assert (tags[296], tags[282], tags[283]) == ((1, 1, 1) if resolution is None else (2, 300, 150))
    got = read_picture(tmp_path / "a.tif")
    assert got.extras.resolution == resolution
    assert (got.image - picture.image).abs().max() <= 0.51 / (2**bits - 1)
    kept = Image.Exif()
    kept.load(got.exif)
    assert (kept[0x010E], kept.get_ifd(0x8769)[0x9003]) == ("a bridge", "2020:01:02 03:04:05")


def test_tags_that_are_not_carried_are_named(tmp_path):
    more = [(33550, "H", [1, 1, 0]), (33723, "B", [28, 2, 0, 0, 0])]
    content = tiff(32, 32, BIT8, RGB, [gradient().tobytes()], more=more)
    picture = read_picture(write(tmp_path / "a.tif", content))
    assert picture.extras.left_out == ("IPTC data", "the tags 33550")
