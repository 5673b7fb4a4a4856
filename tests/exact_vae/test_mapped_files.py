"""Tensors in temporary files: where they lie, that nothing stays, and what is said for lack of
room."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bir_core.errors import BIRError
from bir_core.exact_vae import mapped_files
from bir_core.exact_vae.mapped_files import files_folder, free_disk, mapped_tensor


def test_a_tensor_in_a_file_is_like_any_other(tmp_path):
    mapped = mapped_tensor((3, 5, 7), torch.float16, tmp_path)
    assert mapped.shape == (3, 5, 7) and mapped.dtype == torch.float16
    assert mapped.count_nonzero() == 0
    values = torch.randn(5, 7).half()
    mapped[1].copy_(values)
    other = mapped_tensor((3, 5, 7), torch.float16, tmp_path)
    assert torch.equal(mapped[1], values) and other.count_nonzero() == 0


def test_the_file_goes_with_its_last_view(tmp_path):
    before = free_disk(tmp_path)
    view = mapped_tensor((25, 10**6), torch.float32, tmp_path)[3]
    during = free_disk(tmp_path)
    assert before - during > 50 * 10**6
    view[5] = 1.0
    assert view[5] == 1
    del view
    assert free_disk(tmp_path) - during > 50 * 10**6


@pytest.mark.skipif(os.name != "posix", reason="a kill of POSIX")
def test_nothing_stays_after_a_kill(tmp_path):
    program = (
        "import pathlib, sys, time, torch\n"
        "from bir_core.exact_vae.mapped_files import mapped_tensor\n"
        "mapped = mapped_tensor((1000, 1000), torch.float32, pathlib.Path(sys.argv[1]))\n"
        "mapped.fill_(1)\n"
        "print(mapped.numel(), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(mapped_files.__file__).parents[1],
    ) as process:
        assert process.stdout.readline() == b"1000000\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_lack_of_room_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(BIRError, match=r"Expected room for 4000000\.0 GB .* GB are free"):
        mapped_tensor((10**9, 10**6), torch.float32, tmp_path)


@pytest.fixture
def memory_at(monkeypatch):
    """Let a folder lie in memory."""

    def lay(*folders):
        mounts = [SimpleNamespace(mountpoint=str(each), fstype="tmpfs") for each in folders]
        root = SimpleNamespace(mountpoint="/", fstype="ext4")
        monkeypatch.setattr(mapped_files.psutil, "disk_partitions", lambda all: [root, *mounts])

    return lay


def test_a_folder_on_a_disk(tmp_path, memory_at):
    memory_at()
    assert files_folder(tmp_path) == tmp_path
    assert free_disk(tmp_path) > 0
    assert free_disk(tmp_path / "absent") == 0
    with pytest.raises(BIRError, match="absent is none; make it"):
        files_folder(tmp_path / "absent")


@pytest.mark.skipif(os.name != "posix", reason="folders in memory are of POSIX")
def test_a_folder_in_memory_does_not_do(tmp_path, memory_at, monkeypatch):
    memory_at(tmp_path)
    with pytest.raises(BIRError, match="lies in memory; choose another"):
        files_folder(tmp_path)
    assert free_disk(tmp_path) == 0
    monkeypatch.setattr(mapped_files.tempfile, "gettempdir", lambda: str(tmp_path))
    assert files_folder() == Path("/var/tmp")
    memory_at()
    assert files_folder() == tmp_path
