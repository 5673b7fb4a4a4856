"""MTCNN, a cascade of three small networks that finds faces and five landmarks of each: K. Zhang
and others, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional Networks",
IEEE Signal Processing Letters 23, 2016.

The first network looks everywhere in a pyramid of the picture, the others only at what the one
before found. Attribute names are the keys of the three files of the package facenet-pytorch.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..images import resize

CELL, STRIDE = 12, 2  # what the first network sees of one place, and the way to the next
PYRAMID_FACTOR = 0.709  # of the paper: half the area
# Least score after the first two networks; that of the last may be chosen.
CANDIDATE, REFINED = 0.6, 0.7
# Most overlap of two boxes: within a level of the pyramid, between levels, and after a network.
OVERLAP_WITHIN, OVERLAP = 0.5, 0.7
CHUNK = 256  # boxes that a network sees at once
# For a pixel of the picture, and of the largest level of its pyramid.
PICTURE_BYTES, LEVEL_BYTES = 24, 80


class ProposalNetwork(nn.Module):
    """(B, 3, H, W) of about [-1, 1] to scores of faces (B, h, w) and corrections of their boxes
    (B, 4, h, w), a place for each `STRIDE` pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class RefinementNetwork(nn.Module):
    """(N, 3, 24, 24) to scores (N,) and corrections of boxes (N, 4)."""

    side = 24

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu4(self.dense4(_flat(self.prelu3(self.conv3(x)))))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class OutputNetwork(nn.Module):
    """(N, 3, 48, 48) to scores (N,), corrections of boxes (N, 4), and landmarks (N, 5, 2) in units
    of the box, as `alignment.TEMPLATE` has them."""

    side = 48

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu5(self.dense5(_flat(self.prelu4(self.conv4(x)))))
        landmarks = self.dense6_3(x).unflatten(1, (2, 5)).transpose(1, 2)
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), landmarks


def _flat(x: Tensor) -> Tensor:
    """As the published weights count: columns, rows, channels."""
    return x.permute(0, 3, 2, 1).flatten(1)


class MTCNN(nn.Module):
    """The three networks."""

    def __init__(self) -> None:
        super().__init__()
        self.pnet, self.rnet, self.onet = ProposalNetwork(), RefinementNetwork(), OutputNetwork()

    def forward(
        self, image: Tensor, *, least_face: float = 20.0, confidence: float = 0.95
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find the faces of a picture, the surest first.

        Args:
            image: (1, 3, H, W) in [0, 1].
            least_face: side in pixels of the smallest face, from 12 on; the time grows with the
                square of its inverse.
            confidence: least score, 0 to 1.

        Returns:
            Boxes (N, 4) with x and y of two corners in pixels from the outer edge, scores (N,) and
            landmarks (N, 5, 2) in the order of `alignment.TEMPLATE`, in pixels where the centre of
            the first is (0, 0).
        """
        from kornia.geometry.bbox import nms  # here, as every command would start later by it

        x = (image * 255 - 127.5) / 128
        scales = pyramid(x.shape[-2], x.shape[-1], least_face)
        found = [self._proposals(x, scale) for scale in scales]
        boxes = torch.cat([x.new_zeros(0, 4), *(boxes for boxes, _ in found)])
        scores = torch.cat([x.new_zeros(0), *(scores for _, scores in found)])
        boxes = squares(boxes[nms(boxes, scores, OVERLAP)])

        scores, corrections = _on_boxes(self.rnet, x, boxes)
        sure = scores > REFINED
        boxes, scores = corrected(boxes[sure], corrections[sure]), scores[sure]
        boxes = squares(boxes[nms(boxes, scores, OVERLAP)])

        scores, corrections, places = _on_boxes(self.onet, x, boxes)
        sure = scores > confidence
        boxes, scores, corrections = boxes[sure], scores[sure], corrections[sure]
        landmarks = boxes[:, None, :2] + places[sure] * (boxes[:, 2:] - boxes[:, :2])[:, None]
        boxes = corrected(boxes, corrections)
        best = nms(boxes, scores, OVERLAP_WITHIN)
        return boxes[best], scores[best], landmarks[best] - 0.5

    def _proposals(self, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Boxes and scores at one level of the pyramid."""
        from kornia.geometry.bbox import nms

        height, width = (max(CELL, round(side * scale)) for side in x.shape[-2:])
        maps, corrections = self.pnet(resize(x, height, width, "bilinear"))
        _, row, column = torch.nonzero(maps > CANDIDATE, as_tuple=True)
        scores = maps[0, row, column]
        corner = STRIDE * torch.stack([column, row], 1).to(x)
        ratio = x.new_tensor([x.shape[-1] / width, x.shape[-2] / height])
        boxes = torch.cat([corner * ratio, (corner + CELL) * ratio], 1)
        kept = nms(boxes, scores, OVERLAP_WITHIN)
        return corrected(boxes, corrections[0, :, row, column].T)[kept], scores[kept]


def working_bytes(height: int, width: int, least_face: float) -> float:
    """Memory of the tensors of a picture without faces in float32, weights aside, at the most.
    Measured by `benchmarks.tensor_memory`: 104, 45 and 24 bytes per pixel for least faces of 12, 20
    and 40 pixels. What the later networks see is `CHUNK` small pieces at a time."""
    return height * width * (PICTURE_BYTES + LEVEL_BYTES * (CELL / least_face) ** 2)


def pyramid(height: int, width: int, least_face: float) -> Iterator[float]:
    """Factors by which a picture is resized, so that faces from `least_face` pixels up to the whole
    picture fill a cell."""
    scale = CELL / max(least_face, CELL)
    while min(height, width) * scale >= CELL:
        yield scale
        scale *= PYRAMID_FACTOR


def corrected(boxes: Tensor, corrections: Tensor) -> Tensor:
    """Boxes (N, 4) whose corners are moved by corrections (N, 4) in units of their sides."""
    return boxes + corrections * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)


def squares(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) made square around their centre, by the longer side."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], 1)


def _on_boxes(
    network: RefinementNetwork | OutputNetwork, x: Tensor, boxes: Tensor
) -> tuple[Tensor, ...]:
    """What a network says of the contents of square boxes."""
    pieces = [piece(x, box, network.side) for box in boxes.round().long().tolist()]
    stacked = torch.cat([x.new_zeros(0, 3, network.side, network.side), *pieces])
    outputs = [network(chunk) for chunk in torch.split(stacked, CHUNK)]
    return tuple(torch.cat(each) for each in zip(*outputs, strict=True))


def piece(x: Tensor, box: list[int], side: int) -> Tensor:
    """What (1, 3, H, W) holds in a box, at `side` pixels; zeros beyond the picture."""
    left, top, right, bottom = box
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    height, width = x.shape[-2:]
    inner = x[..., max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    before_x, before_y = min(max(-left, 0), right - left), min(max(-top, 0), bottom - top)
    after_x = right - left - before_x - inner.shape[-1]
    after_y = bottom - top - before_y - inner.shape[-2]
    return resize(F.pad(inner, (before_x, after_x, before_y, after_y)), side, side, "bilinear")
