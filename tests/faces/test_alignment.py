"""Cutting faces out and pasting them back: the geometry, the masks, and OpenCV as a witness."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.errors import BIRError
from bir_core.faces.alignment import (
    BORDER_COLOR,
    FACE_SIZE,
    TEMPLATE,
    align_face,
    eye_distance,
    face_matrix,
    inverted,
    parsing_mask,
    paste_face,
    resized_matrix,
    scale_of,
    warp,
)

CENTRE = torch.tensor([255.5, 255.5], dtype=torch.float64)


def similarity(angle, scale, x, y):
    """Pixels of a face to those of a picture, its centre to (x, y)."""
    turn = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    shift = torch.tensor([x, y], dtype=torch.float64) - scale * turn @ CENTRE
    return torch.cat([scale * turn, shift[:, None]], dim=1)


def moved(points, matrix):
    return points.double() @ matrix[:, :2].T + matrix[:, 2]


def smooth_picture(height, width):
    """Waves of 40 pixels and more, so that interpolation loses little and half a pixel shows."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin(2 * math.pi * (x * a + y * b) / 100) for a, b in ((2, 1), (-1, 2), (0, 2.5))]
    return 0.5 + 0.45 * torch.stack(waves)[None]


def random_picture(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def in_face(matrix, height, width):
    """Pixels (height, width, 2) of a picture in those of a face, `matrix` as for `paste_face`."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return moved(torch.stack([x, y], dim=-1), inverted(matrix))


angles = st.floats(-math.pi, math.pi)
scales = st.floats(0.1, 3)
shifts = st.floats(-500, 2000)


@given(angles, scales, shifts, shifts)
def test_matrix_of_exact_landmarks(angle, scale, x, y):
    to_picture = similarity(angle, scale, x, y)
    found = face_matrix(moved(TEMPLATE, to_picture))
    assert (moved(moved(CENTRE, to_picture), found) - CENTRE).abs().max() < 1e-6
    assert scale_of(found) == pytest.approx(1 / scale)
    assert float(torch.linalg.det(found[:, :2])) > 0


@given(angles, scales, shifts, shifts, st.integers(0, 4), angles, st.floats(30, 1000))
def test_one_wrong_landmark_does_not_count(angle, scale, x, y, index, direction, distance):
    to_picture = similarity(angle, scale, x, y)
    landmarks = moved(TEMPLATE, to_picture)
    landmarks[index, 0] += scale * distance * math.cos(direction)
    landmarks[index, 1] += scale * distance * math.sin(direction)
    assert (face_matrix(landmarks) - inverted(to_picture)).abs().max() < 1e-6 * (1 + distance)


def test_landmarks_that_all_err_a_little_are_averaged():
    generator = torch.Generator().manual_seed(0)
    to_picture = similarity(0.3, 0.5, 300, 200)
    landmarks = moved(TEMPLATE, to_picture) + torch.randn(5, 2, generator=generator)
    corner = torch.tensor([[0.0, 0.0], [511.0, 0.0], [0.0, 511.0]])
    error = moved(moved(corner, to_picture), face_matrix(landmarks)) - corner
    assert 0.1 < error.abs().max() < 15


@pytest.mark.parametrize(
    ("landmarks", "sentence"),
    [
        (torch.zeros(5, 2), "all of them came at one place"),
        (torch.zeros(68, 2), r"shape \(68, 2\)"),
        (torch.full((5, 2), torch.nan), "finite"),
    ],
)
def test_impossible_landmarks_are_said(landmarks, sentence):
    with pytest.raises(BIRError, match=sentence):
        face_matrix(landmarks)


def test_eye_distance():
    assert eye_distance(TEMPLATE) == pytest.approx(125.9216, abs=1e-4)


@given(angles, scales, shifts, shifts, st.integers(1, 900), st.integers(1, 900))
def test_resized_matrix_keeps_outer_edges(angle, scale, x, y, height, width):
    matrix = similarity(angle, scale, x, y)
    resized = resized_matrix(matrix, (300, 400), (height, width))
    back = inverted(matrix)
    edges = torch.tensor([[-0.5, -0.5], [399.5, 299.5]], dtype=torch.float64)
    expected = torch.tensor([[-0.5, -0.5], [width - 0.5, height - 0.5]], dtype=torch.float64)
    assert (moved(moved(edges, back), resized) - expected).abs().max() < 1e-6


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 9), st.integers(1, 9))
def test_warp_by_whole_pixels_moves_them(x, y, height, width):
    image = random_picture(height, width)
    matrix = torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y]], dtype=torch.float64)
    expected = torch.zeros(1, 3, 7, 8)
    for row in range(7):
        for column in range(8):
            if 0 <= row - y < height and 0 <= column - x < width:
                expected[..., row, column] = image[..., row - y, column - x]
    assert (warp(image, matrix, 7, 8) - expected).abs().max() < 1e-4


def test_warp_neither_mirrors_nor_shifts():
    """A quarter turn about the centre is exactly a rotation of the array."""
    image = random_picture(FACE_SIZE, FACE_SIZE)
    turned = warp(image, similarity(math.pi / 2, 1, 255.5, 255.5), FACE_SIZE, FACE_SIZE)
    assert (turned - image.rot90(-1, (-2, -1))).abs().max() < 1e-3


def test_strong_reduction_leaves_no_pixel_out():
    """Of a fine checkerboard comes its mean, which plain bilinear samples do not give."""
    board = ((torch.arange(512)[:, None] + torch.arange(512)) % 2).float().expand(1, 3, -1, -1)
    small = warp(board, similarity(0.2, 0.1, 30, 30), 60, 60)[..., 15:45, 15:45]
    assert (small - 0.5).abs().max() < 0.02


def test_face_lies_on_the_template():
    """Spots on the landmarks of a picture are on the template's places in the face."""
    to_picture = similarity(-0.6, 0.8, 260, 310)
    y, x = torch.meshgrid(torch.arange(600), torch.arange(500), indexing="ij")
    places = moved(TEMPLATE, to_picture)
    spots = [torch.exp(-((x - px) ** 2 + (y - py) ** 2) / 50) for px, py in places.tolist()]
    image = torch.stack(spots).sum(0).float().expand(1, 3, -1, -1)
    face = align_face(image, face_matrix(places))
    for px, py in TEMPLATE.tolist():
        left, top = round(px) - 25, round(py) - 25
        spot = face[0, 0, top : top + 51, left : left + 51].double()
        rows, columns = torch.arange(top, top + 51), torch.arange(left, left + 51)
        assert float((spot.sum(0) * columns).sum() / spot.sum()) == pytest.approx(px, abs=0.05)
        assert float((spot.sum(1) * rows).sum() / spot.sum()) == pytest.approx(py, abs=0.05)


@settings(max_examples=15)
@given(
    angles,
    st.floats(0.25, 1.2),
    st.floats(-50, 450),
    st.floats(-50, 350),
    st.integers(1, 400),
    st.integers(1, 300),
)
def test_untouched_face_gives_the_picture_back(angle, scale, x, y, width, height):
    """Anywhere, also half outside; and nothing changes outside of the face's square."""
    image, to_picture = smooth_picture(height, width), similarity(angle, scale, x, y)
    pasted = paste_face(image, align_face(image, inverted(to_picture)), to_picture)
    assert pasted.shape == image.shape
    # A shift by half a pixel would be 0.035. Beyond the last pixel there is no slope to follow.
    error = (pasted - image).abs()
    assert error.max() < 0.03
    assert height < 5 or width < 5 or error[..., 2:-2, 2:-2].max() < 0.012
    places = in_face(to_picture, height, width)
    reach = max(1, 0.5 + 0.5 / scale)  # of bilinear interpolation
    outside = ((places < -reach) | (places > 511 + reach)).any(-1)
    assert torch.equal(pasted[0, :, outside], image[0, :, outside])


def test_paste_changes_no_input():
    image, face = random_picture(100, 100), random_picture(512, 512)
    before = image.clone()
    assert not torch.equal(paste_face(image, face, similarity(0, 0.1, 50, 50)), before)
    assert torch.equal(image, before)


def test_face_beyond_the_picture_changes_nothing():
    image = random_picture(50, 60)
    for x, y in ((-400, 25), (30, -400), (900, 25), (30, 900)):
        to_picture = similarity(0.5, 1, x, y)
        assert torch.equal(paste_face(image, random_picture(512, 512), to_picture), image)
        face = align_face(image, inverted(to_picture))
        assert (face - BORDER_COLOR[:, None, None]).abs().max() < 1e-6


def square_mask(height, width, matrix):
    return paste_face(torch.zeros(1, 3, height, width), torch.ones(1, 3, 512, 512), matrix)[0, 0]


def test_square_is_faded_but_not_where_the_picture_ends():
    mask = square_mask(300, 300, similarity(0, 0.5, 149.5, 149.5))
    # From pixel 22 on: 12 of erosion, and a Gaussian that reaches 12 to both sides of there.
    assert mask[150, :21].max() == 0 and mask[150, 34] == pytest.approx(0.5, abs=0.1)
    assert mask[150, 48:252].min() > 1 - 1e-6
    assert (mask - mask.flip(0)).abs().max() < 1e-5 and (mask - mask.mT).abs().max() < 1e-5
    steps = mask[150, 20:60].diff()
    assert (steps >= 0).all() and steps.max() < 0.15
    cut = square_mask(300, 300, similarity(0, 0.5, 0, 150))
    assert cut[150, 0] == 1 and cut[150, 100] == 1 and cut[150, 130] == 0


def test_face_at_the_border_keeps_the_border():
    """No grey of beyond the picture gets into its outermost pixels."""
    image = torch.ones(1, 3, 200, 300)
    for scale in (0.2, 0.7, 1.5):
        to_picture = similarity(0.7, scale, 0, 100)
        pasted = paste_face(image, align_face(image, inverted(to_picture)), to_picture)
        assert (pasted - 1).abs().max() < 1e-4


def test_parsing_mask_keeps_the_face_only():
    labels = torch.zeros(1, 512, 512, dtype=torch.long)
    labels[:, 100:400, 100:400] = 1
    labels[:, :, 440:] = 17
    labels[:, :100] = 13
    mask = parsing_mask(labels)
    assert mask.shape == (1, 1, 512, 512)
    assert mask[0, 0, 250, 250] > 0.99 and mask[0, 0, 250, 490] < 0.01
    assert mask[..., :10, :].max() == 0 and mask[0, 0, 50, 256] > 0.99
    face = torch.ones(1, 3, 512, 512)
    pasted = paste_face(torch.zeros(1, 3, 512, 512), face, similarity(0, 1, 255.5, 255.5), mask)
    assert pasted[0, 0, 250, 250] > 0.99 and pasted[0, 0, 250, 490] < 0.01
    for kept in range(19):
        whole = parsing_mask(torch.full((1, 512, 512), kept))
        expected = 0.0 if kept in (0, 14, 16, 17, 18) else 1.0
        assert float(whole[0, 0, 256, 256]) == pytest.approx(expected, abs=1e-5)


def test_overlapping_faces():
    """The later one lies above; what only the earlier covers stays."""
    image = torch.zeros(1, 3, 300, 400)
    first, second = similarity(0.2, 0.4, 150, 150), similarity(-0.3, 0.4, 230, 150)
    one = paste_face(image, torch.full((1, 3, 512, 512), 0.4), first)
    both = paste_face(one, torch.full((1, 3, 512, 512), 0.8), second)
    above = square_mask(300, 400, second)
    assert torch.equal(both[0, 0][above == 0], one[0, 0][above == 0])
    assert (both[0, 0][above == 1] - 0.8).abs().max() < 1e-6
    assert one[0, 0, 150, 110] == pytest.approx(0.4) and both[0, 0, 150, 190] == pytest.approx(0.8)


def test_matrix_equals_opencv():
    """Where one landmark is wrong; with five that err alike its random pairs may miss the best."""
    cv2 = pytest.importorskip("cv2")
    generator = torch.Generator().manual_seed(1)
    for index in range(20):
        to_picture = similarity(index / 5, 0.2 + index / 10, 300, 10 * index)
        landmarks = moved(TEMPLATE, to_picture) + torch.randn(5, 2, generator=generator) / 100
        landmarks[index % 5, index % 2] += 80
        expected, _ = cv2.estimateAffinePartial2D(
            landmarks.numpy(), TEMPLATE.numpy(), method=cv2.LMEDS
        )
        corners = torch.tensor([[0, 0], [600.0, 400.0]])
        error = moved(corners, face_matrix(landmarks)) - moved(corners, torch.tensor(expected))
        assert error.abs().max() < 1


def test_masks_and_warp_equal_opencv():
    cv2 = pytest.importorskip("cv2")
    to_picture = similarity(0.4, 0.55, 150, 140)
    image = random_picture(300, 400)
    color = tuple(BORDER_COLOR.tolist())
    expected = cv2.warpAffine(
        image[0].permute(1, 2, 0).numpy(),
        inverted(to_picture).numpy(),
        (512, 512),
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=color,
    )
    expected = torch.tensor(expected).permute(2, 0, 1)
    # Our border repeats the last pixels.
    places = moved(
        torch.stack(torch.meshgrid(torch.arange(512), torch.arange(512), indexing="xy"), -1),
        to_picture,
    )
    inside = ((places >= 0) & (places <= torch.tensor([399, 299]))).all(-1)
    face = align_face(image, inverted(to_picture))[0]
    assert (face - expected)[:, inside].abs().max() < 1e-3
    covered = cv2.warpAffine(torch.ones(512, 512).numpy(), to_picture.numpy(), (400, 300))
    inner = cv2.erode(covered, torch.ones(2, 2).byte().numpy())
    edge = int(inner.sum() ** 0.5) // 20
    inner = cv2.erode(inner, torch.ones(2 * edge, 2 * edge).byte().numpy())
    mask = torch.tensor(cv2.GaussianBlur(inner, (2 * edge + 1, 2 * edge + 1), 0))
    # OpenCV's lies a pixel further down and right, see `_square_mask`.
    ours = square_mask(300, 400, to_picture)
    assert (ours[:-1, :-1] - mask[1:, 1:])[5:-5, 5:-5].abs().max() < 0.01
    labels = torch.zeros(1, 512, 512, dtype=torch.long)
    labels[:, 50:300, 100:512] = 1
    mask = (labels[0] == 1).float().numpy()
    for _ in range(2):
        mask = cv2.GaussianBlur(mask, (101, 101), 11)
    ours = parsing_mask(labels)[0, 0, 10:-10, 10:-10]
    assert (ours - torch.tensor(mask)[10:-10, 10:-10]).abs().max() < 1e-5
