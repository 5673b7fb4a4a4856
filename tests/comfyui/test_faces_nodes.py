"""Faces cut out and pasted back in the real server, from what core's detectors send."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from comfyui.diffbir_graph import Array
from comfyui.harness import Failed, Prompt, Server, node, unique_copy

from bir_core.faces.alignment import TEMPLATE, align_face, face_matrix
from bir_core.images import from_channels_last, to_channels_last

# Of each face of three images: side of its square, and its upper left corner.
SQUARES = (((128, 40.0, 20.0), (64, 180.0, 90.0)), (), ((96, 100.0, 50.0),))


def landmarks_of(squares: Any) -> list[list[list[list[float]]]]:
    return [
        [(TEMPLATE * side / 512 + torch.tensor([x, y])).tolist() for side, x, y in frame]
        for frame in squares
    ]


def boxes_of(squares: Any) -> list[list[list[float]]]:
    """Those around the faces, by which the same squares are cut."""
    return [
        [
            [x + 0.5 + (256 - 160) * side / 512, y + 0.5 + (290 - 160) * side / 512]
            + [320 * side / 512] * 2
            for side, x, y in frame
        ]
        for frame in squares
    ]


@pytest.fixture(scope="module")
def photographs() -> Array:
    """(3, 200, 280, 3), smooth."""
    y, x = np.mgrid[0:200, 0:280].astype(np.float32)
    waves = [np.sin((a * x + b * y) / 25 + c) for c in range(3) for a, b in ((1, 0.5), (0.3, 1))]
    image = 0.5 + 0.4 * np.stack([waves[c] for c in (0, 1, 2, 3, 4, 5, 0, 3, 4)], -1)
    return np.ascontiguousarray(image.reshape(200, 280, 3, 3).transpose(2, 0, 1, 3))


def graph(server: Server, image: Array, socket: int = 0, **inputs: Any) -> Prompt:
    """Faces found, cut out, and saved."""
    squares = SQUARES[: len(image)]
    given = {"indices": "", "least_size": 20, "largest": 0, **inputs}
    return {
        "image": node("TestLoadTensor", file=unique_copy(server, image)),
        "detect": node(
            "TestFaces",
            image=["image", 0],
            landmarks=json.dumps(landmarks_of(squares)),
            boxes=json.dumps(boxes_of(squares)),
        ),
        "cut": node("BIRCutFaces", image=["image", 0], faces=["detect", socket], **given),
        "save": node("TestSaveTensor", image=["cut", 0], file="faces.npy"),
    }


def with_paste(prompt: Prompt, faces: str = "cut", picture: str = "image") -> Prompt:
    pasted = node("BIRPasteFaces", image=[picture, 0], faces=[faces, 0], places=["cut", 1])
    save = node("TestSaveTensor", image=["paste", 0], file="pasted.npy")
    return {**prompt, "paste": pasted, "save pasted": save}


def output(server: Server, name: str) -> Array:
    result: Array = np.load(server.base / "output" / name)
    return result


@pytest.mark.parametrize("socket", [0, 1], ids=["landmarks", "boxes"])
def test_faces_of_a_batch_and_back(server: Server, photographs: Array, socket: int) -> None:
    server.run(with_paste(graph(server, photographs, socket)))
    faces = output(server, "faces.npy")
    assert faces.shape == (3, 512, 512, 3)
    pictures = from_channels_last(torch.from_numpy(photographs))
    frames = landmarks_of(SQUARES)
    number = 0
    for index, frame in enumerate(frames):
        for points in frame:
            matrix = face_matrix(torch.tensor(points))
            expected = to_channels_last(align_face(pictures[index : index + 1], matrix))
            assert np.abs(faces[number] - expected[0].numpy()).max() < 1e-3
            number += 1
    pasted = output(server, "pasted.npy")
    assert np.abs(pasted - photographs).max() < 1 / 255
    assert np.array_equal(pasted[1], photographs[1])  # without a face


def test_each_image_is_as_if_alone(server: Server, photographs: Array) -> None:
    server.run(with_paste(graph(server, photographs)))
    both, pasted = output(server, "faces.npy"), output(server, "pasted.npy")
    server.run(with_paste(graph(server, photographs[:1])))
    assert np.array_equal(output(server, "faces.npy"), both[:2])
    assert np.array_equal(output(server, "pasted.npy"), pasted[:1])


def test_each_widget_chooses(server: Server, photographs: Array) -> None:
    server.run(graph(server, photographs))
    faces = output(server, "faces.npy")
    for inputs, kept in (
        ({"indices": "1"}, [1]),
        ({"indices": "0"}, [0, 2]),
        ({"least_size": 90}, [0, 2]),
        ({"largest": 1}, [0, 2]),
        ({"least_size": 100}, [0]),
    ):
        server.run(graph(server, photographs, **inputs))
        assert np.array_equal(output(server, "faces.npy"), faces[kept]), inputs


def test_restored_faces_are_pasted_at_any_size(server: Server, photographs: Array) -> None:
    """Larger ones, and into an enlarged picture, whose alpha stays."""
    prompt = graph(server, photographs)
    for name, picture, size in (("faces", "cut", (1024, 1024)), ("large", "image", (560, 400))):
        prompt[name] = node(
            "ImageScale",
            image=[picture, 0],
            upscale_method="bicubic",
            width=size[0],
            height=size[1],
            crop="disabled",
        )
    prompt = with_paste(prompt, "faces", "large")
    prompt["save large"] = node("TestSaveTensor", image=["large", 0], file="large.npy")
    server.run(prompt)
    pasted, large = output(server, "pasted.npy"), output(server, "large.npy")
    assert pasted.shape == (3, 400, 560, 3)
    assert 0 < np.abs(pasted - large).max() < 1.5 / 255


def test_a_batch_without_a_face_goes_through(server: Server, photographs: Array) -> None:
    server.run(with_paste(graph(server, photographs, least_size=1000)))
    assert output(server, "faces.npy").shape == (1, 512, 512, 3)
    assert np.array_equal(output(server, "pasted.npy"), photographs)


def test_alpha_and_grey_stay(server: Server, photographs: Array) -> None:
    grey = photographs[:1, ..., :1].repeat(3, -1)
    alpha = np.full_like(grey[..., :1], 0.5)
    prompt = graph(server, np.concatenate([grey, alpha], -1))
    prompt["coloured"] = node("TestLoadTensor", file=unique_copy(server, coloured_faces()))
    server.run(with_paste(prompt, "coloured"))
    assert output(server, "faces.npy").shape[-1] == 3
    pasted = output(server, "pasted.npy")
    assert np.array_equal(pasted[..., 3:], alpha)
    assert np.array_equal(pasted[..., 0], pasted[..., 1])
    assert np.abs(pasted[..., 0] - grey[..., 0]).max() > 0.1


def coloured_faces() -> Array:
    return np.tile(np.array([0.9, 0.2, 0.1], np.float32), (2, 512, 512, 1))


def test_wrong_inputs_are_sentences(server: Server, photographs: Array) -> None:
    with pytest.raises(Failed, match="numbers from 0 with commas"):
        server.run(graph(server, photographs, indices="left"))
    prompt = graph(server, photographs)
    prompt["one"] = node("TestLoadTensor", file=unique_copy(server, photographs[:1]))
    prompt["cut"]["inputs"]["image"] = ["one", 0]
    with pytest.raises(Failed, match="seen the 1 images .* but it saw 3"):
        server.run(prompt)
    prompt = graph(server, photographs)
    prompt["coloured"] = node("TestLoadTensor", file=unique_copy(server, coloured_faces()))
    with pytest.raises(Failed, match="each of the 3 that were cut out, but 2 came"):
        server.run(with_paste(prompt, "coloured"))
    prompt = graph(server, photographs)
    prompt["detect"] = node("TestText", text="here")
    with pytest.raises(Failed, match="by landmarks or boxes, but str"):
        server.run(prompt)
