"""MTCNN: its geometry, on weights that see bright spots, and its files."""

import pytest
import torch
from mtcnn_weights import LANDMARKS, bright_face_network, picture_with_spots, save_mtcnn

from bir_core.errors import BIRError
from bir_core.faces.mtcnn import CELL, MTCNN, corrected, piece, pyramid, squares
from bir_core.faces.networks import mtcnn_detector, read_mtcnn
from bir_core.models import MTCNN_FILES

SPOTS = ((30, 80, 70), (16, 220, 120))


@pytest.fixture(scope="module")
def network():
    return bright_face_network()


def sides(boxes):
    return boxes[:, 2] - boxes[:, 0]


def test_every_spot_is_found_and_nothing_else(network):
    boxes, scores, landmarks = network(picture_with_spots(200, 300, *SPOTS), confidence=0.9)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = torch.cdist(centres, torch.tensor(SPOTS)[:, 1:].float()) / sides(boxes)[:, None]
    assert distances.amin(0).max() < 0.25 and distances.amin(1).max() < 1
    assert (scores.diff() <= 0).all()
    expected = boxes[:, None, :2] + LANDMARKS * sides(boxes)[:, None, None]
    # Pieces are cut at whole pixels.
    assert torch.allclose(landmarks + 0.5, expected, atol=1e-3)


def test_settings_choose(network):
    image = picture_with_spots(200, 300, *SPOTS)
    boxes, scores, _ = network(image, confidence=0.9)
    assert len(network(image, confidence=float(scores.max()))[0]) == 0
    large, _, _ = network(image, confidence=0.9, least_face=60)
    assert sides(boxes).min() < 55 < sides(large).min() + 5 and len(large)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (12, 12), (13, 400), (150, 60)])
def test_any_size_and_nothing_to_see(network, height, width):
    boxes, scores, landmarks = network(torch.zeros(1, 3, height, width))
    assert boxes.shape == (0, 4) and scores.shape == (0,) and landmarks.shape == (0, 5, 2)


def test_random_weights_give_faces_of_all_shapes():
    torch.manual_seed(0)
    network = MTCNN().eval()
    for score in (network.pnet.conv4_1, network.rnet.dense5_1, network.onet.dense6_1):
        score.bias.data.copy_(torch.tensor([-3.0, 3.0]))
    with torch.no_grad():
        boxes, scores, landmarks = network(torch.rand(1, 3, 60, 90))
    assert len(boxes) == len(scores) == len(landmarks) > 0 and landmarks.shape[1:] == (5, 2)
    assert torch.isfinite(landmarks).all()


def test_pyramid():
    """From the smallest face to the whole picture."""
    scales = list(pyramid(100, 80, 20))
    assert scales[0] == pytest.approx(CELL / 20)
    assert CELL <= 80 * scales[-1] < CELL / 0.709
    assert next(pyramid(100, 80, 3)) == 1


def test_boxes():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert corrected(boxes, torch.tensor([[0.1, 0.1, -0.1, 0.0]])).tolist() == [[12, 24, 28, 60]]
    assert squares(boxes).tolist() == [[0, 20, 40, 60]]


def test_pieces_reach_beyond_the_picture():
    x = torch.ones(1, 3, 10, 10)
    inside = piece(x, [-4, -4, 4, 4], 8)
    assert inside[..., 4:, 4:].min() == 1 and inside[..., :4, :].max() == 0
    assert piece(x, [8, 2, 12, 6], 4)[..., 2:].max() == 0
    for box in ([12, 12, 20, 20], [-9, 2, -1, 10], [5, 5, 5, 5]):
        assert piece(x, box, 24).shape == (1, 3, 24, 24)


def test_files(tmp_path, network):
    save_mtcnn(tmp_path, network)
    files = {part: tmp_path / file for part, file in MTCNN_FILES.items()}
    image = picture_with_spots(120, 150, (30, 80, 70))
    detect = mtcnn_detector(read_mtcnn(files))
    assert torch.equal(detect(image), network(image, confidence=0.95)[2])
    with pytest.raises(BIRError, match="but it lacks conv4_1"):
        read_mtcnn({**files, "pnet": files["rnet"], "rnet": files["pnet"]})
    files["onet"].unlink()
    with pytest.raises(BIRError, match=r"there is no file; run .bir weights faces"):
        read_mtcnn(files)
