"""Where `bir restore` writes when nobody says it, and what it refuses to write to."""

import os

import pytest
import torch
from command_line import run_here, save_small_model

from bir_core.pictures.files import Picture, read_picture, write_picture


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("model") / "x1.safetensors")


@pytest.fixture
def restore(model):
    return lambda *arguments: run_here("restore", *arguments, "--model", model)


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "my.scans"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        write_picture(folder / name, Picture(torch.rand(1, 3, 6, 5)))
    return folder


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_beside_the_picture_under_a_free_name(restore, scans):
    before = {name: (scans / name).read_bytes() for name in names(scans)}
    for expected in ("b_restored.jpg", "b_restored_2.jpg", "b_restored_3.jpg"):
        done = restore(scans / "b.jpg")
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{scans / expected}  5x6 -> 5x6\n"
        kept = {name: (scans / name).read_bytes() for name in before}
        assert kept == before
        before[expected] = (scans / expected).read_bytes()


def test_formats_of_its_name(restore, scans):
    assert restore(scans / "b.jpg", "--format", "png").returncode == 0
    assert (scans / "b_restored.png").exists()
    (scans / "b.jpg").rename(scans / "b.unknown")
    assert restore(scans / "b.unknown").returncode == 0
    assert (scans / "b_restored_2.png").exists()


def test_a_name_that_a_broken_link_holds_is_not_free(restore, scans):
    (scans / "a_restored.png").symlink_to(scans / "absent.png")
    assert restore(scans / "a.png").returncode == 0
    assert names(scans) == ["a.png", "a_restored_2.png", "b.jpg", "sub/c.png"]


def test_overwriting_takes_the_first_name_again(restore, scans):
    for options in ((), ("--overwrite",), ("--resume",)):
        assert restore(scans / "a.png", *options).returncode == 0
    assert names(scans) == ["a.png", "a_restored.png", "b.jpg", "sub/c.png"]


def test_a_folder_beside_the_folder(restore, scans, tmp_path):
    for expected in ("my.scans_restored", "my.scans_restored_2"):
        done = restore(scans, "--recursive")
        assert done.returncode == 0, done.stderr
        assert names(tmp_path / expected) == names(scans)
    (tmp_path / "my.scans_restored" / "b.jpg").unlink()
    done = restore(scans, "--recursive", "--resume")
    assert done.stdout.startswith("2 of 3 pictures are restored already")
    assert names(tmp_path / "my.scans_restored") == names(scans)
    assert not (tmp_path / "my.scans_restored_3").exists()


@pytest.mark.parametrize(
    ("inside", "given", "expected"),
    [
        (".", ".", "my.scans_restored"),
        ("sub", "..", "my.scans_restored"),
        ("sub", ".", "my.scans/sub_restored"),
    ],
)
def test_folders_that_dots_name(restore, scans, tmp_path, monkeypatch, inside, given, expected):
    monkeypatch.chdir(scans / inside)
    done = restore(given)
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / expected) == [n for n in names(scans / inside / given) if "/" not in n]


def test_a_picture_in_this_folder(restore, scans, monkeypatch):
    monkeypatch.chdir(scans)
    assert restore("a.png").stdout == "a_restored.png  5x6 -> 5x6\n"


def test_the_root_has_nothing_beside_it(restore):
    done = restore(os.path.abspath(os.sep))
    assert done.returncode == 2 and "name a folder" in done.stderr


def test_options_may_stand_before_the_output(model, scans, tmp_path):
    done = run_here("restore", scans / "a.png", "--model", model, tmp_path / "out.png")
    assert done.returncode == 0, done.stderr
    assert read_picture(tmp_path / "out.png").image.shape == (1, 3, 6, 5)


def test_names_that_begin_with_a_dash(model, scans, monkeypatch):
    (scans / "a.png").rename(scans / "-a.png")
    monkeypatch.chdir(scans)
    done = run_here("restore", "--model", model, "--", "-a.png")
    assert done.returncode == 0, done.stderr
    assert (scans / "-a_restored.png").exists()


@pytest.mark.parametrize("name", ["x.png", "x.JPG", "x.tiff"])
def test_a_folder_is_not_written_to_a_picture(restore, scans, tmp_path, name):
    done = restore(scans, tmp_path / name)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path / name} is the name of a picture; name a folder" in done.stderr
    assert not (tmp_path / name).exists()
    (tmp_path / name).mkdir()  # who has such a folder may have it
    assert restore(scans, tmp_path / name).returncode == 0


def test_half_precision_on_a_cpu_is_hinted_at(restore, scans):
    options = ("--device", "cpu", "--dtype")
    for dtype in ("float16", "bfloat16"):
        done = restore(scans / "a.png", *options, dtype)
        assert done.returncode == 0 and f"--dtype {dtype} is slow on a CPU" in done.stderr
    assert restore(scans / "a.png", *options, "float32").stderr == ""
