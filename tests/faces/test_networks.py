"""Detector and parser of facexlib, from local files with random weights."""

import builtins
import re

import numpy as np
import pytest
import torch
from face_weights import detector_network, save_face_weights
from kornia.geometry.bbox import nms

from bir_core.errors import BIRError
from bir_core.faces.networks import load_face_detector, load_face_parser
from bir_core.images import resize
from bir_core.models import DETECTOR_FILE, PARSER_FILE

retinaface = pytest.importorskip("facexlib.detection.retinaface")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    save_face_weights(folder)
    return folder


def photo(height, width):
    spots = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    return (255 * resize(spots, height, width, "bilinear")).round() / 255


def test_detector_equals_facexlib(folder, monkeypatch):
    """facexlib's own way takes blue first, and an operator that a torchvision may lack."""
    monkeypatch.setattr(
        retinaface,
        "py_cpu_nms",
        lambda found, limit: nms(
            torch.tensor(found[:, :4]), torch.tensor(found[:, 4]), limit
        ).tolist(),
    )
    network = detector_network().half().float()  # as the file has it
    detect = load_face_detector(folder)
    image = photo(640, 700)
    found = detect(image)
    pixels = (255 * image[0]).round().permute(1, 2, 0).flip(-1).numpy().astype(np.uint8)
    with torch.no_grad():
        expected = network.detect_faces(pixels, 0.97)
    assert found.shape == (1, 5, 2)
    assert (found - torch.tensor(expected[:, 5:]).reshape(-1, 5, 2)).abs().max() < 0.05
    assert (detect(image.flip(1)) - found).abs().max() > 1
    # A small picture is enlarged for the search, and its landmarks are in its own pixels.
    small = detect(photo(320, 350))
    assert (2 * small - found).abs().max() < 2


def test_smaller_picture_when_the_memory_does_not_do(folder, monkeypatch, caplog):
    sides = []
    forward = retinaface.RetinaFace.forward

    def limited(self, x):
        sides.append(min(x.shape[-2:]))
        if sides[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(retinaface.RetinaFace, "forward", limited)
    detect, limit = load_face_detector(folder), 700
    assert detect(photo(1300, 1310)).shape == (1, 5, 2)
    assert sides == [1300, 650]
    assert "smaller copy" in caplog.text
    limit = 100
    with pytest.raises(BIRError, match="short side of 640"):
        detect(photo(64, 64))


def test_parser_gives_classes(folder):
    parse = load_face_parser(folder)
    # Smaller than a face, to save time.
    labels = parse(photo(128, 128))
    assert labels.shape == (1, 128, 128) and labels.dtype == torch.long
    assert labels.unique().numel() > 1
    assert labels.min() >= 0 and labels.max() < 19


@pytest.mark.parametrize("load", [load_face_detector, load_face_parser])
def test_wrong_files_are_said(folder, tmp_path, load):
    with pytest.raises(BIRError, match="nothing is downloaded") as caught:
        load(tmp_path)
    assert "facexlib" in str(caught.value) and str(caught.value).count(". ") == 0
    own, other = DETECTOR_FILE, PARSER_FILE
    if load is load_face_parser:
        own, other = other, own
    (tmp_path / own).symlink_to(folder / other)
    with pytest.raises(BIRError, match=re.escape(f"in {tmp_path / own}, but they do not fit")):
        load(tmp_path)
    (tmp_path / own).unlink()
    (tmp_path / own).write_bytes(b"<html>not found</html>")
    with pytest.raises(BIRError, match="web page"):
        load(tmp_path)


@pytest.mark.parametrize("load", [load_face_detector, load_face_parser])
def test_absent_package_is_said(folder, monkeypatch, load):
    normal = builtins.__import__

    def absent(name, *rest):
        if name.startswith("facexlib"):
            raise ImportError("No module named 'facexlib'")
        return normal(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(BIRError, match=r"pip install comfyui-bir\[faces\]"):
        load(folder)
