"""Faces of a batch cut out and pasted back: which ones, where, and that nothing else changes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.errors import BIRError
from bir_core.faces.alignment import FACE_SIZE, TEMPLATE, face_matrix, inverted, scale_of
from bir_core.faces.cutting import (
    FaceChoice,
    FacePlace,
    box_matrix,
    chosen_faces,
    cut_faces,
    face_side,
    mesh_landmarks,
    paste_faces,
    read_indices,
)
from bir_core.images import resize


def moved(points, matrix):
    return points.double() @ matrix[:, :2].T + matrix[:, 2]


def place(side, x, y, angle=0.0, picture=0):
    """A face whose square has `side` pixels and its centre at (x, y)."""
    scale = side / FACE_SIZE
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    ).double()
    middle = torch.tensor([FACE_SIZE / 2 - 0.5] * 2).double()
    shift = torch.tensor([x, y]).double() - scale * turn @ middle
    back = torch.cat([scale * turn, shift[:, None]], dim=1)
    return FacePlace(picture, face_matrix(moved(TEMPLATE, back)))


def smooth_picture(height, width, phase=0.0, wavelength=100):
    """Waves of which interpolation loses little."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [(x * a + y * b) / wavelength for a, b in ((2, 1), (-1, 2), (0, 2.5))]
    return 0.5 + 0.45 * torch.stack([torch.sin(2 * math.pi * w + phase) for w in waves])[None]


@settings(max_examples=20, deadline=None)
@given(
    st.floats(60, 600),
    st.floats(-20, 220),
    st.floats(-20, 180),
    st.floats(-math.pi, math.pi),
    st.sampled_from([512, 1024]),
)
def test_what_is_not_changed_comes_back(side, x, y, angle, size):
    """Also turned, at the edge of the picture, where interpolation loses most, and at another size
    of the faces. Half a pixel would show."""
    image = smooth_picture(160, 200, wavelength=700)
    faces, cut = cut_faces(image, [place(side, x, y, angle)])
    pasted = paste_faces(image, resize(faces, size, size), cut)
    assert (pasted - image).abs().max() < 1 / 255


@settings(max_examples=20, deadline=None)
@given(st.floats(40, 300), st.floats(0, 200), st.floats(0, 160), st.floats(-math.pi, math.pi))
def test_only_the_square_changes_and_its_middle_is_the_face(side, x, y, angle):
    image = smooth_picture(160, 200)
    there = place(side, x, y, angle)
    _, cut = cut_faces(image, [there])
    pasted = paste_faces(image, torch.ones(1, 3, 1024, 1024), cut)
    rows, columns = torch.meshgrid(torch.arange(160), torch.arange(200), indexing="ij")
    inside = moved(torch.stack([columns, rows], -1), there.matrix)
    beyond = (inside - (FACE_SIZE / 2 - 0.5)).abs().amax(-1) > FACE_SIZE / 2 + FACE_SIZE / side
    assert torch.equal(pasted[..., beyond], image[..., beyond])
    middle = (inside - (FACE_SIZE / 2 - 0.5)).abs().amax(-1) < FACE_SIZE / 4
    assert torch.allclose(pasted[..., middle], torch.tensor(1.0), atol=1e-4)


def test_batches_never_mix():
    """Each face is of its own picture, whatever the order, and goes back there alone."""
    images = torch.cat([smooth_picture(160, 200, phase) for phase in (0.0, 1.0, 2.0)])
    places = [place(90, 60, 70, picture=2), place(80, 130, 80, picture=0), place(70, 60, 60)]
    faces, cut = cut_faces(images, places)
    for face, there in zip(faces, places, strict=True):
        alone, _ = cut_faces(
            images[there.picture : there.picture + 1], [FacePlace(0, there.matrix)]
        )
        assert torch.equal(face, alone[0])
    colours = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(-1, 3, 512, 512)
    pasted = paste_faces(images, colours, cut)
    assert torch.equal(pasted[1], images[1])
    assert torch.allclose(pasted[2, :, 70, 60], torch.tensor(0.1))
    assert torch.allclose(pasted[0, :, 80, 130], torch.tensor(0.5))
    assert torch.allclose(pasted[0, :, 60, 60], torch.tensor(0.9))


def test_paste_into_an_enlarged_picture():
    image = smooth_picture(160, 200)
    faces, cut = cut_faces(image, [place(100, 90, 80, 0.4)])
    large = resize(image, 480, 600)
    pasted = paste_faces(large, resize(faces, 1024, 1024), cut)
    assert (pasted - large).abs().max() < 1 / 255


def test_choice():
    matrices = [place(side, 50, 50).matrix for side in (40, 120, 80, 10)]
    assert [round(face_side(matrix)) for matrix in matrices] == [40, 120, 80, 10]
    assert chosen_faces(matrices, FaceChoice()) == [0, 1, 2, 3]
    assert chosen_faces(matrices, FaceChoice(indices=frozenset({0, 3, 7}))) == [0, 3]
    assert chosen_faces(matrices, FaceChoice(least_size=30)) == [0, 1, 2]
    assert chosen_faces(matrices, FaceChoice(largest=2)) == [1, 2]
    some = FaceChoice(indices=frozenset({0, 2, 3}), least_size=20, largest=1)
    assert chosen_faces(matrices, some) == [2]


def test_indices():
    assert read_indices(" ") is None
    assert read_indices("0, 2,") == {0, 2}
    for wrong in ("first", "-1", "1.5", "1;2", "²"):
        with pytest.raises(BIRError, match=r"numbers from 0 .* came; write 0, 2"):
            read_indices(wrong)


def test_landmarks_of_a_mesh():
    mesh = torch.zeros(478, 2)
    for point, vertices in zip(TEMPLATE, ((33, 133), (362, 263), (1,), (61,), (291,)), strict=True):
        spread = torch.tensor([[7.0, -2.0], [-7.0, 2.0]])[: len(vertices)] * (len(vertices) - 1)
        mesh[list(vertices)] = point.float() + spread
    assert torch.allclose(mesh_landmarks(mesh), TEMPLATE, atol=1e-4)
    with pytest.raises(BIRError, match="468 vertices"):
        mesh_landmarks(mesh[:68])


def test_box():
    """The box of an aligned face stays, and one elsewhere is brought there."""
    matrix = box_matrix(256.5 - 160, 290.5 - 160, 320, 320)
    assert torch.allclose(matrix, torch.eye(3).double()[:2], atol=1e-9)
    matrix = box_matrix(30, 40, 64, 100)
    assert scale_of(matrix) == pytest.approx(4)
    centre = moved(torch.tensor([256.0, 290.0]), inverted(matrix))
    assert centre.tolist() == pytest.approx([61.5, 89.5])
    for wrong in ((0, 0, 0, 5), (0, 0, 5, -5), (0, math.nan, 5, 5)):
        with pytest.raises(BIRError, match="above 0 pixels"):
            box_matrix(*wrong)


def test_what_does_not_belong_together_is_refused():
    image = smooth_picture(80, 80)
    faces, cut = cut_faces(image, [place(40, 40, 40)])
    with pytest.raises(BIRError, match="out of 1 pictures, but 2 came"):
        paste_faces(image.expand(2, -1, -1, -1), faces, cut)
    with pytest.raises(BIRError, match="each of the 1 .* but 2 came"):
        paste_faces(image, faces.expand(2, -1, -1, -1), cut)
    with pytest.raises(BIRError, match="square"):
        paste_faces(image, faces[..., :500], cut)


def test_no_face():
    image = smooth_picture(80, 80)
    faces, cut = cut_faces(image, [])
    assert faces.shape == (0, 3, 512, 512)
    assert torch.equal(paste_faces(image, faces, cut), image)
