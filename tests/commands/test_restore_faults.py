"""`bir restore` of folders: what is wrong with one picture is the matter of that picture alone."""

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import ROOT, command, environment, run_bir, run_here, save_small_model
from damaged_pictures import gradient, jpeg, tiff, write
from PIL import Image

from bir_core.commands import restore_one
from bir_core.pictures.containers import png_chunk, png_with
from bir_core.pictures.files import Picture, read_picture, write_picture

POSIX = pytest.mark.skipif(os.name == "nt", reason="names and streams of POSIX")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "inpainting.safetensors"
    return save_small_model(path, task="inpainting")


def png(values=None, **options):
    file = io.BytesIO()
    Image.fromarray(gradient(8, 8) if values is None else values).save(file, "PNG", **options)
    return file.getvalue()


def folder_with(tmp_path, **files):
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        write(tmp_path / "in" / name.replace("_", "."), content)
    return tmp_path / "in"


def outputs(folder):
    return sorted(
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def assert_restored_but(done, total, *failed):
    """Exit code 2, a line for each picture that failed and one for all."""
    assert done.returncode == 2, done.stderr
    *lines, last = done.stderr.splitlines()
    assert len(lines) == len(failed), done.stderr
    for line, part in zip(lines, failed, strict=True):
        assert line.startswith("bir: ") and part in line
    assert f"Expected {total} usable pictures, but {len(failed)} could not be restored" in last
    assert "Traceback" not in done.stderr


def test_encoder_limits_are_known_before_the_work(model, tmp_path, monkeypatch):
    source = folder_with(tmp_path, a_png=png(), b_png=png(np.zeros((1, 16384, 3), np.uint8)))
    options = ("--model", model, "--format")
    done = run_here("restore", source, tmp_path / "webp", *options, "webp")
    assert_restored_but(done, 2, "at most 16383 pixels")
    assert "choose PNG or TIFF" in done.stderr
    assert outputs(tmp_path / "webp") == [b"a.webp"]


def test_the_size_of_the_output_counts(tmp_path):
    path = save_small_model(tmp_path / "x4.safetensors", scale=4)
    source = write(tmp_path / "a.png", png(np.zeros((1, 16400, 3), np.uint8)))
    done = run_here("restore", source, tmp_path / "a.jpg", "--model", path)
    assert done.returncode == 2 and "the picture will have 65600x4" in done.stderr


@POSIX
def test_long_names(model, tmp_path):
    names = ["x" * (length - 4) + ".png" for length in range(236, 256)]
    source = folder_with(tmp_path, **{name.replace(".", "_"): png() for name in names})
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(outputs(tmp_path / "out")) == 20
    # One character more than a name can have.
    done = run_here("restore", source, tmp_path / "webp", "--model", model, "--format", "webp")
    assert_restored_but(done, 20, "choose a shorter")
    assert len(outputs(tmp_path / "webp")) == 19


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_no_console_can_write(model, tmp_path):
    source = folder_with(tmp_path, a_png=png())
    for name in (b"\xff\xfe.png", b"two\nlines.png", b"\x1b[31m.png", "\u0416.png".encode()):
        (source / os.fsdecode(name)).write_bytes(png())
    (source / os.fsdecode(b"bad\xff.png")).write_bytes(b"no picture")
    done = run_bir("restore", source, tmp_path / "out", "--model", model)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 5 and "two\\nlines" in done.stdout
    assert len(done.stderr.splitlines()) == 2 and "bad\\udcff.png" in done.stderr
    assert len(outputs(tmp_path / "out")) == 5


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("kind", ["full", "closed", "left"])
def test_output_that_takes_no_lines(model, tmp_path, kind):
    source = folder_with(tmp_path, a_png=png(), b_png=png(), c_png=png())
    line = command("restore", source, tmp_path / "out", "--model", model)
    shell = {"full": '"$@" >/dev/full', "closed": '"$@" >&- 2>&-', "left": '"$@" | true'}[kind]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *line],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert outputs(tmp_path / "out") == [b"a.png", b"b.png", b"c.png"]
    if kind == "full":
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "No space left" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
    for path in (tmp_path / "out").iterdir():
        read_picture(path)


def test_an_output_that_appears_meanwhile(model, tmp_path, monkeypatch):
    source = folder_with(tmp_path, a_png=png(), b_png=png())
    restore = restore_one._restore

    def restore_and_be_late(*arguments):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "a.png").write_bytes(b"precious")
        return restore(*arguments)

    monkeypatch.setattr(restore_one, "_restore", restore_and_be_late)
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert_restored_but(done, 2, "exists and is kept")
    assert (tmp_path / "out" / "a.png").read_bytes() == b"precious"
    assert outputs(tmp_path / "out") == [b"a.png", b"b.png"]


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (MemoryError(), "Expected enough memory"),
        (RuntimeError("a kernel failed"), "they failed (a kernel failed)"),
    ],
)
def test_a_picture_at_which_the_networks_fail(model, tmp_path, monkeypatch, error, part):
    source = folder_with(tmp_path, a_png=png(), b_png=png(gradient(9, 9)))
    prepared = restore_one.METHODS["diffir"].prepare

    def prepare(*arguments):
        restore_image, scale = prepared(*arguments)

        def fail_for_small_ones(image, *more):
            if image.shape[-1] == 8:
                raise error
            return restore_image(image, *more)

        return fail_for_small_ones, scale

    method = replace(restore_one.METHODS["diffir"], prepare=prepare)
    monkeypatch.setitem(restore_one.METHODS, "diffir", method)
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert_restored_but(done, 2, part)
    assert outputs(tmp_path / "out") == [b"b.png"]


def test_a_full_disk_ends_the_work(model, tmp_path, monkeypatch):
    source = folder_with(tmp_path, a_png=png(), b_png=png())
    begun = []

    def no_space(path, *_):
        begun.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bir_core.pictures.files.encode", no_space)
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert len(begun) == 1


@POSIX
def test_what_cannot_be_opened(model, tmp_path):
    source = folder_with(tmp_path, a_png=png())
    (source / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(source / "pipe.png")
    (source / "loop.png").symlink_to(source / "loop.png")
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert_restored_but(done, 4, "found nothing", "the system refuses", "found no file")
    assert outputs(tmp_path / "out") == [b"a.png"]


def test_pyvips_is_missed_before_the_work(model, tmp_path, monkeypatch):
    source = folder_with(tmp_path, a_png=png())
    monkeypatch.setitem(sys.modules, "pyvips", None)
    for options in (("--format", "tiff"), ("--bits", 16)):
        done = run_here("restore", source, tmp_path / "out", "--model", model, *options)
        assert done.returncode == 2 and "pip install pyvips" in done.stderr
        assert not (tmp_path / "out").exists()


def test_other_endings_are_taken_or_named(model, tmp_path):
    names = ("a_jfif", "b_JPE", "c_bmp", "d_gif", "e_GIF", "f_txt")
    source = folder_with(tmp_path, **{name: jpeg(gradient(8, 8)) for name in names})
    done = run_here("restore", source, tmp_path / "out", "--model", model)
    assert done.returncode == 0
    assert outputs(tmp_path / "out") == [b"a.jfif", b"b.JPE"]
    assert done.stderr.count("\n") == 1
    assert f"3 of {source} left out" in done.stderr and "(.bmp 1, .gif 2)" in done.stderr


def hole_of(path, before):
    after = read_picture(path).image
    return (after != before.image).any(1)[0]


@pytest.mark.parametrize("name", ["page.001.mask.png", "page.001.png", "page.001.tif", "page.PNG"])
def test_masks_are_found_by_the_whole_name(inpainting, tmp_path, name):
    picture = Picture(torch.rand(1, 3, 8, 8).mul(255).round() / 255)
    (tmp_path / "masks").mkdir()
    source = tmp_path / ("page.png" if name == "page.PNG" else "page.001.png")
    write_picture(source, picture)
    hole = torch.zeros(1, 3, 8, 8)
    hole[..., :4] = 1
    write_picture(tmp_path / "masks" / name, Picture(hole))
    if name != "page.PNG":
        write_picture(tmp_path / "masks" / "page.png", Picture(1 - hole))
    line = ("restore", source, tmp_path / "out.png", "--model", inpainting)
    done = run_here(*line, "--mask", tmp_path / "masks")
    if "mask" in name:
        assert done.returncode == 2 and "none is named page.001.png" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
        assert not hole_of(tmp_path / "out.png", picture)[:, 4:].any()


def test_two_masks_for_a_picture(inpainting, tmp_path):
    (tmp_path / "masks").mkdir()
    write_picture(tmp_path / "a.png", Picture(torch.rand(1, 3, 8, 8)))
    for suffix in ("tif", "jpg"):
        write_picture(tmp_path / "masks" / f"a.{suffix}", Picture(torch.ones(1, 3, 8, 8)))
    line = ("restore", tmp_path / "a.png", tmp_path / "out.png", "--model", inpainting)
    done = run_here(*line, "--mask", tmp_path / "masks")
    assert done.returncode == 2 and "Expected one mask" in done.stderr


def test_soft_and_transparent_masks(inpainting, tmp_path):
    picture = Picture(torch.rand(1, 3, 8, 8).mul(255).round() / 255)
    write_picture(tmp_path / "a.png", picture)
    soft = torch.zeros(1, 3, 8, 8)
    soft[..., 2:4], soft[..., 4:] = 127 / 255, 128 / 255
    alpha = torch.ones(1, 1, 8, 8)
    alpha[..., 6:] = 0
    write_picture(tmp_path / "mask.png", Picture(soft, alpha=alpha))
    line = ("restore", tmp_path / "a.png", tmp_path / "out.png", "--model", inpainting)
    assert run_here(*line, "--mask", tmp_path / "mask.png").returncode == 0
    columns = hole_of(tmp_path / "out.png", picture).any(0)
    assert columns.tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_hidden_colours_change_nothing_that_is_seen(model, tmp_path):
    rows, columns = torch.meshgrid(torch.arange(32) - 16, torch.arange(32) - 16, indexing="ij")
    alpha = ((rows**2 + columns**2).float().sqrt() < 9).float()[None, None]
    white = torch.ones(1, 3, 32, 32)
    seen = []
    for name, hidden in (("black", (0, 0, 0)), ("magenta", (1, 0, 1))):
        colour = torch.tensor(hidden).float().view(1, 3, 1, 1)
        image = torch.where(alpha > 0, white, colour)
        write_picture(tmp_path / f"{name}.png", Picture(image, alpha=alpha))
        output = tmp_path / f"{name}_out.png"
        line = ("restore", tmp_path / f"{name}.png", output, "--model", model)
        assert run_here(*line).returncode == 0
        seen.append(read_picture(output).image * alpha)
    assert torch.equal(*seen)
    write_picture(tmp_path / "whole.png", Picture(white))
    line = ("restore", tmp_path / "whole.png", tmp_path / "whole_out.png", "--model", model)
    assert run_here(*line).returncode == 0
    assert torch.equal(seen[0], read_picture(tmp_path / "whole_out.png").image * alpha)


def test_what_is_lost_stands_in_the_line_of_the_picture(model, tmp_path):
    source = folder_with(tmp_path, a_png=png(dpi=(300, 300)))
    options = ("--model", model, "--format", "webp")
    done = run_here("restore", source, tmp_path / "out", *options)
    assert done.stdout.endswith("a.webp  8x8 -> 8x8  (left out: the resolution)\n")


class Corpus:
    """Good and damaged pictures under odd names, all drawn from one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.good: set[bytes] = set()
        self.names = self._names()
        folder.mkdir()

    def _names(self):
        letters = "abcxyz.-_ \u00e9\u0416\u4e2d'\"&;$%[]"
        if sys.platform == "linux":
            letters += "\n\t\x1b\\:*?<>|\udcff"
        count = 0
        while True:
            count += 1
            length = self.random.choice([1, 2, 8, 30, 120, 200, 236, 240, 245, 249, 250])
            name = str(count)
            while len(os.fsencode(name)) < length:
                name += self.random.choice(letters)
            while len(os.fsencode(name)) > 250:
                name = name[:-1]
            yield name

    def add(self, suffix: str, content: bytes, *, is_good: bool = False) -> None:
        """Write a file under a new name."""
        name = next(self.names) + suffix
        (self.folder / name).write_bytes(content)
        if is_good:
            self.good.add(os.fsencode(name))

    def sources(self):
        """Small pictures of all formats."""
        values = gradient(16, 12)
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "maker", self.random.randint(1, 8)
        for suffix, name in (
            (".png", "PNG"),
            (".jpg", "JPEG"),
            (".webp", "WEBP"),
            (".tif", "TIFF"),
        ):
            file = io.BytesIO()
            Image.fromarray(values).save(file, name, **({} if name == "TIFF" else {"exif": exif}))
            yield suffix, file.getvalue()
        yield ".jfif", jpeg(values)
        for suffix in ("png", "tif"):
            path = self.folder.parent / f"wide.{suffix}"
            image = torch.from_numpy(values).permute(2, 0, 1)[None] / 255
            write_picture(path, Picture(image, bits=16), overwrite=True)
            yield f".{suffix}", path.read_bytes()

    def truncated(self, content: bytes) -> bytes:
        return content[: self.random.randrange(1, len(content))]

    def flipped(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self.random.choice([1, 1, 3, 20])):
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        return bytes(changed)

    def lying(self, suffix: str, content: bytes) -> bytes:
        """A header that promises another size, kind or place."""
        changed = bytearray(content)
        if content.startswith(b"\x89PNG"):
            size = self.random.choice([0, 1, 40, 9000, 2**31 - 1, 2**32 - 1])
            struct.pack_into(">I", changed, 16, size)
            struct.pack_into(">I", changed, 29, zlib.crc32(changed[12:29]))
        else:
            place = self.random.randrange(4, min(len(changed), 64) - 4)
            struct.pack_into("<I", changed, place, self.random.choice([0, 1, 2**16, 2**32 - 1]))
        return bytes(changed)

    def odd_exif(self) -> bytes:
        """A PNG file whose EXIF block has tags of random kinds and places."""
        entries = b"".join(
            struct.pack(
                "<HHII",
                self.random.choice([0x010E, 0x010F, 0x0112, 0x8769, 0x8825, 0x9003, 0xA002]),
                self.random.randrange(14),
                self.random.choice([0, 1, 2, 5, 2**31]),
                self.random.choice([0, 8, 26, 2**32 - 1]),
            )
            for _ in range(4)
        )
        block = b"II*\0\x08\0\0\0" + struct.pack("<H", 4) + entries + bytes(40)
        return png_with(png(), [png_chunk(b"eXIf", block)])


def make_corpus(folder, seed=11):
    corpus = Corpus(folder, seed)
    for _ in range(4):
        for suffix, content in corpus.sources():
            corpus.add(suffix, content, is_good=True)
            corpus.add(suffix, corpus.truncated(content))
            corpus.add(suffix, corpus.flipped(content))
            corpus.add(suffix, corpus.lying(suffix, content))
    for _ in range(24):
        corpus.add(".png", corpus.odd_exif(), is_good=True)
    for content in (b"", b"\0", b"no picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"):
        corpus.add(corpus.random.choice([".png", ".jpg", ".webp", ".tif"]), content)
    extra = [(338, "H", [0])]
    corpus.add(".tif", tiff(2, 2, (8,) * 4, 2, [bytes(16)], more=extra), is_good=True)
    return corpus


def test_a_folder_of_damaged_pictures_and_odd_names(model, tmp_path):
    corpus = make_corpus(tmp_path / "in")
    total = len(list(corpus.folder.iterdir()))
    assert total >= 140
    done = run_here("restore", corpus.folder, tmp_path / "out", "--model", model)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr + done.stdout
    restored = outputs(tmp_path / "out")
    assert corpus.good <= set(restored)
    lines = [line for line in done.stdout.splitlines() if line]
    assert len(lines) == len(restored)
    *failures, last = done.stderr.splitlines()
    assert len(failures) == total - len(restored) > 40
    assert all(line.startswith("bir: Expected ") for line in failures)
    assert f"Expected {total} usable pictures, but {len(failures)}" in last
    for name in restored:
        read_picture(tmp_path / "out" / os.fsdecode(name))
