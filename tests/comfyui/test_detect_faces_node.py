"""MTCNN in the real server, on weights that see bright spots: absent files, its widgets, and its
boxes and landmarks in the nodes that take them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy
from mtcnn_weights import bright_face_network, picture_with_spots, save_mtcnn

from bir_core.faces.alignment import face_matrix
from bir_core.faces.cutting import FacePlace, cut_faces

SPOTS = ((40, 80, 70), (24, 220, 120))


@pytest.fixture(scope="module")
def folder(server: Server) -> Iterator[Path]:
    """The server's folder of detectors, which holds the weights."""
    folder = server.base / "models" / "detection"
    save_mtcnn(folder)
    yield folder


def image() -> Array:
    """(2, 200, 300, 3); nothing is in the second one."""
    picture = picture_with_spots(200, 300, *SPOTS)[0].permute(1, 2, 0).numpy()
    return np.stack([picture, np.zeros_like(picture)])


def faces(server: Server, socket: int = 0, **inputs: Any) -> Array:
    given = {"least_face": 20, "confidence": 0.9, **inputs}
    prompt: Prompt = {
        "image": node("TestLoadTensor", file=unique_copy(server, image())),
        "detect": node("BIRDetectFaces", image=["image", 0], **given),
        "cut": node(
            "BIRCutFaces",
            image=["image", 0],
            faces=["detect", socket],
            indices="",
            least_size=0,
            largest=0,
        ),
        "save": node("TestSaveTensor", image=["cut", 0], file="detected.npy"),
    }
    server.run(prompt)
    result: Array = np.load(server.base / "output" / "detected.npy")
    return result


def test_landmarks_are_those_of_bir_core(server: Server, folder: Path) -> None:
    picture = picture_with_spots(200, 300, *SPOTS)
    _, _, landmarks = bright_face_network()(picture, confidence=0.9)
    places = [FacePlace(0, face_matrix(points)) for points in landmarks]
    expected, _ = cut_faces(picture, places)
    ours = faces(server)
    assert len(ours) == len(expected) > 1
    assert np.abs(ours - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-3
    assert len(faces(server, 1)) == len(ours)  # as boxes


def test_each_widget_chooses(server: Server, folder: Path) -> None:
    found = len(faces(server))
    assert 0 < len(faces(server, least_face=80)) < found
    # One grey square, as without a face.
    assert np.ptp(faces(server, confidence=1.0), axis=(0, 1, 2)).max() == 0


def test_absent_and_wrong_files_are_sentences(server: Server, folder: Path) -> None:
    refinement, output = (folder / "bir" / f"mtcnn_{part}.safetensors" for part in ("rnet", "onet"))
    kept = output.read_bytes()
    output.unlink()
    try:
        with pytest.raises(Failed, match="mtcnn_onet.safetensors is not there; run .python -m bir"):
            faces(server, confidence=0.91)
        output.write_bytes(refinement.read_bytes())
        with pytest.raises(Failed, match=r"mtcnn_onet.safetensors \(MTCNN\), but it lacks"):
            faces(server, confidence=0.92)
    finally:
        output.write_bytes(kept)
