"""What stands beside the samples: carried, or named; broken, it costs no picture."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from damaged_pictures import gradient, jpeg, write
from PIL import Image, PngImagePlugin

from bir_core.errors import BIRError
from bir_core.pictures.containers import png_chunk, png_with
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.pictures.side_data import Extras, clean_xmp

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><dc:title>a bridge</dc:title></x:xmpmeta>'
EXIF = Image.Exif()
EXIF[0x010F] = "maker"


def png(**options):
    file = io.BytesIO()
    Image.fromarray(gradient()).save(file, "PNG", **options)
    return file.getvalue()


def exif_block(kind, count, value):
    """An EXIF block with Make as a tag of any kind, and a right Model."""
    entries = struct.pack("<HHI4s", 0x010F, kind, count, value)
    entries += struct.pack("<HHI4s", 0x0110, 2, 4, b"abc\0")
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4) + bytes(16)


@pytest.mark.parametrize("suffix", ["png", "16.png", "jpg", "webp", "tif"])
def test_what_goes_on_with_the_picture(tmp_path, suffix):
    extras = Extras(XMP, (300.0, 200.0), (("Author", "Ann"), ("Title", "\u0416"), ("Comment", "c")))
    picture = Picture(
        torch.from_numpy(gradient()).permute(2, 0, 1)[None] / 255,
        bits=16 if "16" in suffix else 8,
        exif=EXIF.tobytes(),
        extras=extras,
    )
    path = tmp_path / f"a.{suffix}"
    left_out = write_picture(path, picture)
    got = read_picture(path)
    assert got.extras.xmp == XMP
    assert got.exif is not None
    texts = {"jpg": (("Comment", "c"),), "webp": (), "tif": ()}.get(suffix, extras.texts)
    assert got.extras.texts == texts
    lost = {"jpg": ("texts",), "tif": ("texts",), "webp": ("the resolution", "texts")}
    assert left_out == lost.get(suffix, ())
    if suffix == "webp":
        assert got.extras.resolution is None
    else:
        assert got.extras.resolution == pytest.approx((300, 200), abs=0.01)
    again = tmp_path / f"again.{suffix}"
    write_picture(again, got)
    assert read_picture(again).extras == got.extras


def test_no_resolution_is_made_up(tmp_path):
    for bits, suffix in ((8, "png"), (16, "png"), (8, "tif"), (16, "tif"), (8, "jpg")):
        path = tmp_path / f"{bits}.{suffix}"
        write_picture(path, Picture(torch.rand(1, 3, 4, 5), bits=bits))
        assert read_picture(path).extras == Extras()


def test_odd_exif_leaves_out_the_odd_tag_only(tmp_path):
    block = exif_block(12, 1, struct.pack("<I", 38))  # Make as a DOUBLE
    write(tmp_path / "a.png", png_with(png(), [png_chunk(b"eXIf", block)]))
    picture = read_picture(tmp_path / "a.png")
    assert picture.extras.left_out == ("EXIF data that cannot be read",)
    kept = Image.Exif()
    kept.load(picture.exif)
    assert dict(kept) == {0x0110: "abc"}
    assert np.array_equal((picture.image[0].permute(1, 2, 0) * 255).round(), gradient())


@pytest.mark.parametrize(
    "chunks",
    [
        [png_chunk(b"eXIf", b"no TIFF at all")],
        [png_chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")],
        [png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3_000_000))],
        [png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + b"no deflate")],
        [png_chunk(b"iCCP", b"name\0\0" + b"no deflate")],
        [png_chunk(b"pHYs", b"short")],
    ],
)
def test_broken_side_data_of_png(tmp_path, chunks):
    write(tmp_path / "a.png", png_with(png(), chunks))
    picture = read_picture(tmp_path / "a.png")
    assert np.array_equal((picture.image[0].permute(1, 2, 0) * 255).round(), gradient())
    assert picture.extras.left_out in (
        ("EXIF data that cannot be read",),
        ("a text that cannot be read",),
        ("a colour profile that cannot be read",),
        ("side data that cannot be read",),
    )


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xED])
def test_broken_side_data_of_jpeg(tmp_path, marker):
    names = {
        0xE1: b"Exif\0\0II*\0\xff\xff",
        0xE2: b"ICC_PROFILE\0\0\0short",
        0xED: b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\xff\xff",
    }
    segment = names[marker]
    whole = jpeg(gradient())
    head = bytes([0xFF, marker]) + struct.pack(">H", len(segment) + 2) + segment
    path = write(tmp_path / "a.jpg", whole[:2] + head + whole[2:])
    picture = read_picture(path)
    expected = read_picture(write(tmp_path / "b.jpg", whole))
    assert torch.equal(picture.image, expected.image)
    assert len(picture.extras.left_out) == 1


def test_what_a_cut_off_file_lacks_is_not_taken_for_side_data(tmp_path):
    for name, content in (("a.png", png(exif=EXIF)), ("a.jpg", jpeg(gradient()))):
        with pytest.raises(BIRError, match="cannot be decoded"):
            read_picture(write(tmp_path / name, content[: len(content) // 2]))


def test_xmp_says_nothing_untrue():
    packet = (
        b'<rdf:Description tiff:Orientation="6" dc:format="x" exif:PixelXDimension=\'9\'>'
        b"<tiff:ImageWidth>9</tiff:ImageWidth><dc:title>t</dc:title></rdf:Description>"
    )
    expected = b'<rdf:Description dc:format="x"><dc:title>t</dc:title></rdf:Description>'
    assert clean_xmp(packet) == expected
    assert clean_xmp(b"\xff\xfe") is None
    assert clean_xmp(b'<x xmlns:Container="http://ns.google.com/photos/1.0/container/"/>') is None


def test_gain_map_and_iptc_are_named(tmp_path):
    file = io.BytesIO()
    xmp = b'<x xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    Image.fromarray(gradient()).save(file, "JPEG", xmp=xmp, comment=b"by hand")
    whole = file.getvalue()
    segment = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\4abcd"
    head = b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment
    picture = read_picture(write(tmp_path / "a.jpg", whole[:2] + head + whole[2:]))
    assert picture.extras.left_out == ("an HDR gain map", "XMP data", "IPTC data")
    assert picture.extras.texts == (("Comment", "by hand"),)
    assert write_picture(tmp_path / "b.webp", picture)[-1] == "a text"


def test_side_data_too_long_for_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    picture = Picture(torch.rand(1, 3, 4, 4), exif=exif.tobytes())
    picture = replace(picture, extras=Extras(xmp=b"<x/>" + b" " * 70_000))
    expected = ("EXIF data too long for JPEG", "XMP data too long for JPEG")
    assert write_picture(tmp_path / "a.jpg", picture) == expected
    assert write_picture(tmp_path / "a.png", picture) == ()
    kept = Image.Exif()
    kept.load(read_picture(tmp_path / "a.png").exif)
    assert kept[0x010E] == exif[0x010E]


def test_texts_of_png_files(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Ann")
    info.add_itxt("Title", "\u0416")
    write(tmp_path / "a.png", png(pnginfo=info, dpi=(72, 72)))
    picture = read_picture(tmp_path / "a.png")
    assert picture.extras.texts == (("Author", "Ann"), ("Title", "\u0416"))
    assert picture.extras.resolution == pytest.approx((72, 72), abs=0.01)
