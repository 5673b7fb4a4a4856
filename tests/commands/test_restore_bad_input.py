"""What `bir` says and leaves behind when something is wrong, mostly as a real process."""

import ctypes
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_line import ROOT, command, environment, run_bir, run_here, save_small_model
from PIL import Image
from progress import bounded
from safetensors.torch import load_file, save_file

from bir_core.cli import main
from bir_core.pictures.files import Picture, read_picture, write_picture

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals, limits and permissions")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="root may write anywhere but on Linux")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Models and pictures that every test may read."""
    folder = tmp_path_factory.mktemp("files")
    model = save_small_model(folder / "model.safetensors")
    save_small_model(folder / "stage1.safetensors", stage=1)
    save_small_model(folder / "inpainting.safetensors", task="inpainting")
    (folder / "cut.safetensors").write_bytes(model.read_bytes()[:100_000])
    (folder / "empty.safetensors").touch()
    weights = load_file(model)
    weights["G.patch_embed.proj.weight"][0, 0, 0, 0] = float("nan")
    save_file(weights, folder / "nan.safetensors")
    save_file({"layers.0.weight": torch.zeros(3, 3)}, folder / "other.safetensors")
    write_picture(folder / "good.png", Picture(torch.rand(1, 3, 32, 48)))
    write_picture(folder / "mask.png", Picture(torch.ones(1, 3, 16, 16), is_grey=True))
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:2000])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is no picture")
    (folder / "no_pictures").mkdir()
    (folder / "no_pictures" / "notes.txt").write_text("nothing to see")
    nan = np.full((4, 4, 3), 0.5, np.float32)
    nan[1, 1, 1] = np.nan
    pytest.importorskip("pyvips").Image.new_from_array(nan).write_to_file(str(folder / "nan.tif"))
    return folder


def content(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def assert_refused(files, tmp_path, arguments, *parts, run=run_bir, **options):
    """One line on stderr with all `parts`, exit code 2, and no file changed anywhere."""
    before = content(tmp_path), content(files)
    done = run(*arguments, **options)
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("bir: Expected ")
    assert done.stderr.count("\n") == 1
    for part in parts:
        assert part in done.stderr
    assert (content(tmp_path), content(files)) == before


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("absent.safetensors", ("found nothing", "check the path")),
        ("empty.safetensors", ("it is empty", "download it again")),
        ("cut.safetensors", ("cut off at 100000 bytes", "download it again")),
        ("stage1.safetensors", ("is a DiffIR stage 1 file", "choose")),
        ("other.safetensors", ("layers.0.weight", "choose another file")),
        ("nan.safetensors", ("NaN", "choose another file")),
        ("good.png", ("neither", "check")),
        ("inpainting.safetensors", ("none came", "--mask")),
    ],
)
def test_model(files, tmp_path, name, parts):
    arguments = ("restore", files / "good.png", tmp_path / "out.png", "--model", files / name)
    assert_refused(files, tmp_path, arguments, name, *parts)


class _Attack:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("command_name", ["restore", "inspect"])
def test_pickle_with_code_is_not_executed(files, tmp_path, command_name):
    torch.save({"params": _Attack(tmp_path / "attacked")}, tmp_path / "model.pth")
    model = tmp_path / "model.pth"
    arguments = {
        "inspect": ("inspect", model),
        "restore": ("restore", files / "good.png", tmp_path / "out.png", "--model", model),
    }
    assert_refused(files, tmp_path, arguments[command_name], "executed", "safetensors")
    assert not (tmp_path / "attacked").exists()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("absent.png", ("found nothing", "check the path")),
        ("empty.png", ("it is empty", "get it again")),
        ("text.png", ("cannot be decoded", "convert")),
        ("broken.png", ("cannot be decoded", "check")),
        ("nan.tif", ("NaN", "check")),
        ("no_pictures", ("it has none", "choose another folder")),
    ],
)
def test_picture(files, tmp_path, name, parts):
    output = tmp_path / ("out" if name == "no_pictures" else "out.png")
    arguments = ("restore", files / name, output, "--model", files / "model.safetensors")
    assert_refused(files, tmp_path, arguments, name, *parts)


@pytest.mark.parametrize(
    ("model", "mask", "parts"),
    [
        ("inpainting", "mask.png", ("48x32", "16x16", "same size")),
        ("inpainting", "no_pictures", ("good.png", "add it")),
        ("inpainting", "absent.png", ("found nothing",)),
        ("model", "mask.png", ("inpainting model", "leave the mask out")),
    ],
)
def test_mask(files, tmp_path, model, mask, parts):
    arguments = ("restore", files / "good.png", tmp_path / "out.png", "--mask", files / mask)
    model_arguments = ("--model", files / f"{model}.safetensors")
    run = run_bir if "16x16" in parts else run_here
    assert_refused(files, tmp_path, (*arguments, *model_arguments), *parts, run=run)


@pytest.mark.parametrize(
    ("output", "options", "parts"),
    [
        ("there.png", (), ("exists and is kept", "--overwrite")),
        ("out.gif", (), ("ends in", "change the ending")),
        ("out", (), ("ends in", "existing folder")),
        ("absent/out.png", (), ("absent", "choose another")),
        ("out.jpg", ("--format", "png"), ("--format png", "change the ending")),
        ("out.jpg", ("--bits", "16"), ("16 bits", "change the format")),
    ],
)
def test_output(files, tmp_path, output, options, parts):
    (tmp_path / "there.png").write_bytes(b"precious")
    arguments = ("restore", files / "good.png", tmp_path / output, *options)
    run = run_bir if output == "there.png" else run_here
    model = ("--model", files / "model.safetensors")
    assert_refused(files, tmp_path, (*arguments, *model), *parts, run=run)


def test_input_is_never_replaced(files, tmp_path):
    write_picture(tmp_path / "a.png", Picture(torch.rand(1, 3, 8, 8)))
    options = ("--overwrite", "--model", files / "model.safetensors")
    assert_refused(
        files,
        tmp_path,
        ("restore", tmp_path / "a.png", tmp_path / "." / "a.png", *options),
        "never replaced",
    )
    arguments = ("restore", tmp_path, tmp_path, *options)
    assert_refused(files, tmp_path, arguments, "never replaced", run=run_here)


def test_folder_to_file_and_two_pictures_to_one_name(files, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "a.jpg"):
        write_picture(tmp_path / "in" / name, Picture(torch.rand(1, 3, 8, 8)))
    (tmp_path / "file").write_text("")
    model = ("--model", files / "model.safetensors")
    source = tmp_path / "in"
    arguments = ("restore", source, tmp_path / "file", *model)
    assert_refused(files, tmp_path, arguments, "is a file", run=run_here)
    arguments = ("restore", source, tmp_path / "out", *model, "--format", "webp")
    assert_refused(files, tmp_path, arguments, "a.webp", "2 pictures", run=run_here)


def test_transparency_into_jpeg(files, tmp_path):
    picture = Picture(torch.rand(1, 3, 8, 8), alpha=torch.rand(1, 1, 8, 8))
    write_picture(tmp_path / "a.png", picture)
    model = ("--model", files / "model.safetensors")
    arguments = ("restore", tmp_path / "a.png", tmp_path / "b.jpg", *model)
    assert_refused(files, tmp_path, arguments, "transparency", "PNG", run=run_here)


def test_a_bad_picture_does_not_stop_the_folder(files, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "c.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_text("no picture")
    done = run_bir(
        "restore", tmp_path / "in", tmp_path / "out", "--model", files / "model.safetensors"
    )
    assert done.returncode == 2
    first, last = done.stderr.splitlines()
    assert "b.png, but it cannot be decoded" in first
    assert "1 could not be restored" in last
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    "wrong", [("--seed", "-1"), ("--strip", "0"), ("--strip", "x"), ("--quality", "0")]
)
def test_option(files, tmp_path, capsys, wrong):
    with pytest.raises(SystemExit) as exit_info:
        main(["restore", str(files / "good.png"), str(tmp_path / "out.png"), *wrong])
    assert exit_info.value.code == 2
    assert f"argument {wrong[0]}: " in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_device_that_is_not_there(files, tmp_path):
    arguments = ("restore", files / "good.png", tmp_path / "out.png", "--device", "cuda")
    model = ("--model", files / "model.safetensors")
    assert_refused(files, tmp_path, (*arguments, *model), "--device cuda", "leave", run=run_here)


@POSIX
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_full_disk(files, tmp_path, suffix):
    """The limit on file sizes stands for the disk: writing fails in the middle of the file."""
    import resource

    existing = tmp_path / f"out.{suffix}"
    existing.write_bytes(b"precious")
    arguments = ("restore", files / "good.png", existing, "--overwrite")
    assert_refused(
        files,
        tmp_path,
        (*arguments, "--model", files / "model.safetensors"),
        "check the folder and the free space",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)),
    )


def _as_a_plain_user():
    """Take from root what other users do not have: access without regard to permissions."""
    if os.geteuid() == 0:
        drop_from_bounding_set, capabilities = 24, (1, 2)  # CAP_DAC_OVERRIDE, _READ_SEARCH
        for capability in capabilities:
            ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0)


@LINUX
def test_protected_folder(files, tmp_path):
    folder = tmp_path / "protected"
    folder.mkdir(mode=0o500)
    arguments = ("restore", files / "good.png", folder / "out.png")
    assert_refused(
        files,
        tmp_path,
        (*arguments, "--model", files / "model.safetensors"),
        "Permission denied",
        "choose another",
        preexec_fn=_as_a_plain_user,
    )


@LINUX
def test_protected_picture(files, tmp_path):
    write_picture(tmp_path / "a.png", Picture(torch.rand(1, 3, 8, 8)))
    (tmp_path / "a.png").chmod(0)
    model = ("--model", files / "model.safetensors")
    done = run_bir(
        "restore", tmp_path / "a.png", tmp_path / "b.png", *model, preexec_fn=_as_a_plain_user
    )
    assert done.returncode == 2
    assert "access is denied" in done.stderr


@POSIX
def test_interrupt(files, tmp_path):
    """SIGINT, which Ctrl-C sends, while the pictures of a folder are restored."""
    (tmp_path / "in").mkdir()
    total = 60
    for index in range(total):
        write_picture(tmp_path / "in" / f"{index:02}.png", Picture(torch.rand(1, 3, 96, 96)))
    arguments = ("restore", tmp_path / "in", tmp_path / "out")
    process = subprocess.Popen(
        command(*arguments, "--model", files / "model.safetensors"),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A parent that runs in the background may have switched the signal off.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    with bounded("the end after Ctrl-C", process.pid):
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, message = process.communicate()
    assert process.returncode == 2
    assert message.count("Ctrl-C") == 1
    assert "Traceback" not in message
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert 1 <= len(left) < total
    assert left == [f"{index:02}.png" for index in range(len(left))]
    for name in left:
        assert read_picture(tmp_path / "out" / name).image.shape[-1] == 96
