"""Files of facexlib's networks with random weights, of which the detector sees one face."""

import warnings

import pytest
import torch

from bir_core.models import DETECTOR_FILE, PARSER_FILE


def detector_network():
    """RetinaFace that finds exactly one face in every picture: only its largest anchors are faces,
    and their boxes are so large that the best one covers all others."""
    retinaface = pytest.importorskip("facexlib.detection.retinaface")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        network = retinaface.RetinaFace(network_name="resnet50", device="cpu")
    heads = zip(network.ClassHead, network.BboxHead, network.LandmarkHead, strict=True)
    for level, (classes, boxes, landmarks) in enumerate(heads):
        for head, spread in ((classes, 1e-4), (boxes, 1e-4), (landmarks, 1e-5)):
            torch.nn.init.normal_(head.conv1x1.weight, std=spread)
            torch.nn.init.zeros_(head.conv1x1.bias)
        # Two anchors per place, each with a score for "no face" and for "face".
        face = torch.tensor([5.0, 0.0, 0.0, 5.0] if level == 2 else [5.0, 0.0, 5.0, 0.0])
        classes.conv1x1.bias.data.copy_(face)
        # In fifths of a logarithm: boxes twenty times as large as their anchors.
        boxes.conv1x1.bias.data.copy_(torch.tensor([0.0, 0.0, 15.0, 15.0] * 2))
        # In tenths of the anchor's 512 pixels: eyes, nose and mouth, turned a little.
        face = torch.tensor([-1.2, -0.2, 1.2, -0.6, 0.1, 0.5, -1.0, 1.1, 1.0, 0.9])
        landmarks.conv1x1.bias.data.copy_(0.5 * face.repeat(2))
    return network


def save_face_weights(folder):
    """Both files as facexlib publishes them: a plain dictionary, the detector's keys with
    `module.`. Half precision, to save space."""
    parsenet = pytest.importorskip("facexlib.parsing.parsenet")
    state = detector_network().state_dict()
    halves = {f"module.{name}": _half(value) for name, value in state.items()}
    torch.save(halves, folder / DETECTOR_FILE)
    torch.manual_seed(1)
    parser = parsenet.ParseNet(in_size=512, out_size=512, parsing_ch=19)
    torch.save(
        {name: _half(value) for name, value in parser.state_dict().items()}, folder / PARSER_FILE
    )


def _half(value):
    return value.half() if value.is_floating_point() else value
