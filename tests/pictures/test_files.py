import multiprocessing
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from progress import bounded

from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, list_pictures, read_picture, write_picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# The header is all that a file format looks at: a profile for grey pictures.
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]


def random_picture(height=5, width=7, *, bits=8, grey=False, alpha=False, seed=0, **more):
    """A picture whose samples are whole steps of its bit depth."""
    generator = torch.Generator().manual_seed(seed)
    top = 2**bits - 1
    shape = (1, 1 if grey else 3, height, width)
    image = torch.randint(0, top + 1, shape, generator=generator).float() / top
    transparency = torch.randint(0, top + 1, (1, 1, height, width), generator=generator).float()
    return Picture(
        image=image.expand(1, 3, -1, -1),
        alpha=transparency / top if alpha else None,
        is_grey=grey,
        bits=bits,
        **more,
    )


def assert_same(got: Picture, expected: Picture) -> None:
    assert torch.equal(got.image, expected.image)
    if expected.alpha is None:
        assert got.alpha is None
    else:
        assert torch.equal(got.alpha, expected.alpha)
    assert (got.is_grey, got.bits, got.icc) == (expected.is_grey, expected.bits, expected.icc)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    bits=st.sampled_from([8, 16]),
    grey=st.booleans(),
    alpha=st.booleans(),
    profile=st.booleans(),
    suffix=st.sampled_from([".png", ".tif", ".TIFF"]),
    seed=st.integers(0, 1000),
)
def test_lossless_round_trip(
    tmp_path_factory, height, width, bits, grey, alpha, profile, suffix, seed
):
    icc = (GREY_PROFILE if grey else SRGB) if profile else None
    picture = random_picture(height, width, bits=bits, grey=grey, alpha=alpha, seed=seed, icc=icc)
    path = tmp_path_factory.mktemp("round") / f"picture{suffix}"
    write_picture(path, picture)
    assert_same(read_picture(path), picture)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
@pytest.mark.parametrize("grey", [False, True])
def test_lossy_round_trip(tmp_path, suffix, grey):
    rows = torch.linspace(0.2, 0.8, 24)[:, None]
    columns = torch.linspace(-0.2, 0.2, 36)[None]
    image = (rows + columns * (0 if grey else 1)).expand(1, 3, 24, 36).clone()
    if not grey:
        image[:, 1] = 1 - image[:, 1]
    picture = Picture(image=image, is_grey=grey, icc=None if grey else SRGB, bits=16)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, picture)
    got = read_picture(path)
    assert (got.image - image).abs().mean() < 0.01
    assert got.icc == picture.icc
    assert got.bits == 8
    assert got.is_grey == (grey and suffix != ".webp")


def test_webp_keeps_alpha(tmp_path):
    picture = random_picture(16, 16, alpha=True)
    write_picture(tmp_path / "a.webp", picture)
    assert torch.equal(read_picture(tmp_path / "a.webp").alpha, picture.alpha)


def test_quality_decides_the_size_of_jpeg_and_webp(tmp_path):
    picture = random_picture(64, 64)
    for suffix in ("jpg", "webp"):
        low, high = tmp_path / f"low.{suffix}", tmp_path / f"high.{suffix}"
        write_picture(low, picture, quality=30)
        write_picture(high, picture, quality=95)
        assert low.stat().st_size < high.stat().st_size


def upright_and_rotated(orientation):
    upright = np.random.default_rng(orientation).integers(0, 256, (6, 9, 3), np.uint8)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
    return upright, np.ascontiguousarray(undo[orientation](upright))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "webp", "16.png", "tif"])
def test_orientation_is_applied_and_dropped(tmp_path, orientation, kind):
    upright, stored = upright_and_rotated(orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    path = tmp_path / f"turned.{kind}"
    if kind == "webp":
        Image.fromarray(stored).save(path, lossless=True, exif=exif)
    elif kind == "png":
        Image.fromarray(stored).save(path, exif=exif)
    else:
        wide = pyvips.Image.new_from_array(stored.astype(np.uint16) * 257)
        wide = wide.copy(interpretation="rgb16")
        wide.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        if kind == "16.png":
            wide.set_type(pyvips.GValue.blob_type, "exif-data", exif.tobytes())
            wide.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        wide.write_to_file(str(path))
    picture = read_picture(path)
    assert torch.equal(picture.image[0].permute(1, 2, 0) * 255, torch.from_numpy(upright).float())

    again = tmp_path / f"again.{kind}"
    write_picture(again, picture)
    written = read_picture(again)
    assert written.image.shape == picture.image.shape
    if kind in ("png", "webp"):
        with Image.open(again) as file:
            assert 0x0112 not in file.getexif()
            assert file.getexif()[0x010F] == "maker"


def test_exif_of_sixteen_bit_png(tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    write_picture(tmp_path / "a.png", random_picture(bits=16, exif=exif.tobytes()))
    kept = Image.Exif()
    kept.load(read_picture(tmp_path / "a.png").exif)
    assert kept[0x010F] == "maker"


def test_profile_of_another_kind_is_not_written(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(grey=True, bits=16, icc=SRGB))
    assert read_picture(tmp_path / "a.png").icc is None


@pytest.mark.parametrize(
    ("mode", "grey", "alpha"),
    [
        ("1", True, False),
        ("L", True, False),
        ("LA", True, True),
        ("P", False, False),
        ("RGB", False, False),
        ("RGBA", False, True),
    ],
)
def test_pillow_modes(tmp_path, mode, grey, alpha):
    rng = np.random.default_rng(1)
    source = Image.fromarray(rng.integers(0, 256, (8, 9, 4), np.uint8), "RGBA")
    source = source.convert("RGB").convert(mode) if mode == "P" else source.convert(mode)
    source.save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert (picture.is_grey, picture.alpha is not None, picture.bits) == (grey, alpha, 8)
    expected = np.array(source.convert("RGB"))
    assert np.array_equal((picture.image[0].permute(1, 2, 0) * 255).numpy(), expected)


def test_palette_with_a_transparent_colour(tmp_path):
    source = Image.new("P", (2, 1))
    source.putpalette([10, 20, 30, 200, 100, 50])
    source.putdata([0, 1])
    source.save(tmp_path / "a.png", transparency=0)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha.flatten().tolist() == [0, 1]
    assert (picture.image[0, :, 0, 1] * 255).round().tolist() == [200, 100, 50]


def test_one_bit_and_palette_tiff(tmp_path):
    source = Image.new("1", (9, 3))
    source.putpixel((4, 1), 1)
    source.save(tmp_path / "bit.tif", compression="group4")
    picture = read_picture(tmp_path / "bit.tif")
    assert picture.is_grey
    assert picture.image.sum() == 3
    assert picture.image[0, 0, 1, 4] == 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    palette.save(tmp_path / "palette.tif")
    picture = read_picture(tmp_path / "palette.tif")
    assert (picture.image[0, :, 0, 1] * 255).round().tolist() == [200, 100, 50]


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
@pytest.mark.parametrize("profile", [False, True])
def test_cmyk_becomes_rgb(tmp_path, suffix, profile):
    source = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = tmp_path / f"cmyk.{suffix}"
    if profile:  # libvips carries a CMYK profile of its own
        image = pyvips.Image.new_from_array(np.full((16, 16, 3), (150, 90, 80), np.uint8))
        image = image.copy(interpretation="srgb").icc_transform("cmyk", input_profile="srgb")
        image.write_to_file(str(path))
    else:
        source.save(path)
    picture = read_picture(path)
    red, green, blue = (picture.image.mean((0, 2, 3)) * 255).tolist()
    if not profile:
        assert red > 190
        assert max(green, blue) < 75
    else:
        assert (red, green, blue) == pytest.approx((150, 90, 80), abs=12)
        assert picture.icc[16:20] == b"RGB "
    write_picture(tmp_path / "a.png", picture)


def test_float_tiff(tmp_path):
    values = np.random.default_rng(0).random((4, 5, 3), np.float32)
    pyvips.Image.new_from_array(values).write_to_file(str(tmp_path / "float.tif"))
    picture = read_picture(tmp_path / "float.tif")
    assert picture.bits == 16
    assert np.array_equal(picture.image[0].permute(1, 2, 0).numpy(), values)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.5, -0.5])
def test_float_tiff_with_impossible_samples(tmp_path, wrong):
    values = np.full((4, 5, 3), 0.5, np.float32)
    values[2, 2, 1] = wrong
    pyvips.Image.new_from_array(values).write_to_file(str(tmp_path / "float.tif"))
    with pytest.raises(BIRError, match=r"finite|\[0, 1\]"):
        read_picture(tmp_path / "float.tif")


def test_content_decides_the_format(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(bits=16))
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert_same(read_picture(tmp_path / "a.jpg"), random_picture(bits=16))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "16.png"])
def test_cut_off_file(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    write_picture(path, random_picture(64, 64, bits=16 if "16" in suffix else 8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(BIRError, match="cannot be decoded"):
        read_picture(path)


@pytest.mark.parametrize(
    "content", [b"GIF89a nothing", b"<html>", b"\x89PNG\r\n\x1a\n", b"II*\0xx"]
)
def test_no_picture(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BIRError, match=r"a\.png, but it cannot be decoded"):
        read_picture(tmp_path / "a.png")


def test_damaged_png_data(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(32, 32))
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(BIRError, match="cannot be decoded"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_several_pictures_in_a_file(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(BIRError, match="one picture .* holds 2"):
        read_picture(tmp_path / f"a.{suffix}")


def test_missing_empty_and_folder(tmp_path):
    (tmp_path / "empty.png").touch()
    for name, reason in (("none.png", "nothing"), ("empty.png", "empty"), ("", "a folder")):
        with pytest.raises(BIRError, match=reason):
            read_picture(tmp_path / name)


def test_writing_keeps_what_is_there(tmp_path):
    path = tmp_path / "a.png"
    write_picture(path, random_picture(seed=1))
    before = path.read_bytes()
    with pytest.raises(BIRError, match="exists and is kept"):
        write_picture(path, random_picture(seed=2))
    assert path.read_bytes() == before
    write_picture(path, random_picture(seed=2), overwrite=True)
    assert_same(read_picture(path), random_picture(seed=2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_file_that_was_written_anew_is_read_anew(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for seed in (1, 2):
        write_picture(path, random_picture(bits=16, seed=seed), overwrite=True)
        assert_same(read_picture(path), random_picture(bits=16, seed=seed))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.png"
    write_picture(path, random_picture(seed=1))
    before = path.read_bytes()

    def interrupted(*_):
        raise error

    monkeypatch.setattr("os.fsync", interrupted)
    expected = BIRError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match="No space left" if expected is BIRError else None):
        write_picture(path, random_picture(seed=2), overwrite=True)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_what_cannot_be_written(tmp_path):
    picture = random_picture()
    with pytest.raises(BIRError, match="ends in"):
        write_picture(tmp_path / "a.gif", picture)
    with pytest.raises(BIRError, match="transparency"):
        write_picture(tmp_path / "a.jpg", random_picture(alpha=True))
    with pytest.raises(BIRError, match="check the folder"):
        write_picture(tmp_path / "absent" / "a.png", picture)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(BIRError, match="is a folder"):
        write_picture(tmp_path / "folder.png", picture, overwrite=True)
    with pytest.raises(BIRError, match="finite"):
        write_picture(tmp_path / "a.png", replace(picture, image=picture.image / 0))
    with pytest.raises(BIRError, match="at most 16383 pixels .* choose PNG or TIFF"):
        wide = Picture(image=torch.zeros(1, 3, 1, 1).expand(-1, -1, -1, 17000))
        write_picture(tmp_path / "a.webp", wide)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder.png"]


def test_list_pictures(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.PNG", "a.jpg", ".hidden.png", "text.txt", "sub/c.tif"):
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path)]
    assert names == ["a.jpg", "b.PNG"]
    names = [path.relative_to(tmp_path) for path in list_pictures(tmp_path, recursive=True)]
    assert names == [Path("a.jpg"), Path("b.PNG"), Path("sub/c.tif")]
    with pytest.raises(BIRError, match="found nothing"):
        list_pictures(tmp_path / "absent")
    with pytest.raises(BIRError, match="found a file"):
        list_pictures(tmp_path / "a.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BIRError, match="it has none"):
        list_pictures(tmp_path / "empty")


def _read_in_child(path, answers):
    try:
        answers.put(read_picture(path).bits)
    except BIRError as error:
        answers.put(str(error))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork"
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_gets_a_sentence_and_does_not_hang(tmp_path):
    write_picture(tmp_path / "a.png", random_picture(bits=16))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_read_in_child, args=(tmp_path / "a.png", answers))
    child.start()
    with bounded("the answer of a forked process", child.pid):
        child.join()  # the answer is short enough to lie in the queue meanwhile
    assert child.exitcode == 0
    answer = answers.get()
    assert "start the workers by 'spawn'" in answer


def test_without_pyvips_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    write_picture(tmp_path / "a.tif", random_picture())
    monkeypatch.setitem(__import__("sys").modules, "pyvips", None)
    with pytest.raises(BIRError, match=r"pip install pyvips"):
        read_picture(tmp_path / "a.tif")


def test_written_png_is_a_real_png(tmp_path):
    """Against the format itself: the samples of a 16-bit PNG are big-endian."""
    picture = Picture(image=torch.full((1, 3, 1, 1), 258 / 65535), bits=16)
    write_picture(tmp_path / "a.png", picture)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"IDAT")
    length = int.from_bytes(content[start - 4 : start], "big")
    assert zlib.decompress(content[start + 4 : start + 4 + length])[1:] == b"\1\2" * 3


@pytest.mark.parametrize(("frames", "said"), [(1, "a GIF file, "), (3, "a GIF file of 3 frames ")])
def test_a_format_that_is_not_read_is_named(tmp_path: Path, frames: int, said: str) -> None:
    first, *others = (Image.new("L", (5, 4), 60 * index) for index in range(frames))
    first.save(tmp_path / "x.gif", save_all=True, append_images=others)
    for name in ("x.gif", "x.png"):  # the content decides
        (tmp_path / "x.gif").replace(tmp_path / name)
        with pytest.raises(BIRError, match=said):
            read_picture(tmp_path / name)
        (tmp_path / name).replace(tmp_path / "x.gif")
