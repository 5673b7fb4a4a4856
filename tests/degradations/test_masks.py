import math
from unittest import mock

import pytest
import torch

from bir_core.degradations import BoxMasks, MaskDegradation, StrokeMasks, degrade, get_preset
from bir_core.degradations.masks import (
    Segment,
    draw_boxes,
    draw_mask,
    draw_segments,
    paint_segment,
)
from bir_core.errors import BIRError

TESTS = [f"masks_{kind}_{side}" for kind in ("thick", "medium", "thin") for side in (256, 512)]
TRAIN = get_preset("masks_train")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("name", "strokes", "boxes", "share"),
    [
        ("masks_train", (1, 6, 100, 200), (1, 4, 30, 150, 10), 0.5),
        ("masks_thick_256", (1, 6, 100, 200), (1, 3, 30, 150, 10), 0.231),
        ("masks_thick_512", (1, 6, 250, 450), (1, 4, 30, 300, 10), 0.231),
        ("masks_medium_256", (4, 6, 50, 100), (1, 5, 10, 50, 0), 0.231),
        ("masks_medium_512", (4, 11, 100, 200), (1, 5, 30, 150, 0), 0.231),
        ("masks_thin_256", (4, 51, 10, 40), None, 0),
        ("masks_thin_512", (4, 71, 20, 100), None, 0),
    ],
)
def test_presets_are_those_of_the_papers(name, strokes, boxes, share):
    preset = get_preset(name)
    own = preset.strokes
    assert (*own.strokes, own.widths, own.lengths) == strokes
    own = preset.boxes
    assert boxes == (None if own is None else (*own.boxes, *own.sides, own.margin))
    assert preset.box_probability == pytest.approx(share, abs=5e-4)
    assert preset.test == (name != "masks_train")
    assert preset.side == (512 if name.endswith("512") else 256)


def test_strokes_keep_to_their_ranges():
    parameters = StrokeMasks(strokes=(2, 3), lengths=40, widths=20)
    random = generator()
    lengths, widths, counts, directions = set(), set(), set(), set()
    for _ in range(300):
        segments = draw_segments(parameters, (300, 400), 1.0, random)
        joints = zip(segments, segments[1:], strict=False)
        strokes = 1 + sum(before.end != after.start for before, after in joints)
        counts.add(strokes)
        assert strokes <= len(segments) <= 5 * strokes
        for segment in segments:
            (x0, y0), (x1, y1) = segment.start, segment.end
            assert 0 <= x1 <= 400 and 0 <= y1 <= 300
            widths.add(segment.width)
            if 0 < x1 < 400 and 0 < y1 < 300:  # not cut off at the border
                lengths.add(math.hypot(x1 - x0, y1 - y0))
                directions.add(round(math.atan2(x1 - x0, y1 - y0)))
    assert counts == {2, 3}
    assert widths == set(range(5, 25))
    assert 8 < min(lengths) < 12 and 46 < max(lengths) < 50  # 10 to 49, ends on whole pixels
    assert directions == {-3, -2, -1, 0, 1, 2, 3}


def test_a_segment_covers_what_is_near_it():
    mask = torch.zeros(20, 30)
    paint_segment(mask, Segment((-3, 4), (12, 15), 7))
    start, end = torch.tensor([-3.0, 4.0]), torch.tensor([12.0, 15.0])
    steps = torch.linspace(0, 1, 2001)[:, None]
    line = start + steps * (end - start)
    for y in range(20):
        for x in range(30):
            distance = float((line - torch.tensor([x, y])).norm(dim=1).min())
            if abs(distance - 3.5) > 1e-3:
                assert mask[y, x] == (distance < 3.5)
    assert 0 < mask.mean() < 1


def test_boxes_keep_to_their_ranges():
    random = generator()
    sizes, lefts = set(), set()
    for _ in range(300):
        mask = draw_boxes(BoxMasks(boxes=(1, 1), sides=(3, 6), margin=2), (20, 15), 1.0, random)
        rows, columns = mask.amax(1).nonzero(), mask.amax(0).nonzero()
        assert mask.sum() == len(rows) * len(columns)
        sizes |= {len(rows), len(columns)}
        lefts |= {int(columns[0])}
        assert rows[0] >= 2 and rows[-1] < 18 and columns[-1] < 13
    assert sizes == {3, 4, 5, 6}
    assert lefts == set(range(2, 11))


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (16, 9)])
def test_tiny_pictures_have_holes_too(size):
    for seed in range(20):
        mask = draw_mask(TRAIN, size, generator(seed))
        assert mask.shape == size
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert mask.sum() >= 1


def test_lengths_grow_with_the_picture():
    shares = {}
    for side in (64, 256):
        random = generator(4)
        shares[side] = sum(float(draw_mask(TRAIN, (side, side), random).mean()) for _ in range(150))
    assert shares[64] == pytest.approx(shares[256], rel=0.05)


def test_training_holes_are_boxes_and_strokes_by_half():
    random = generator()
    with mock.patch("bir_core.degradations.masks.draw_boxes", return_value=torch.zeros(8, 8)):
        boxes = sum(not draw_mask(TRAIN, (8, 8), random).any() for _ in range(400))
    assert 160 < boxes < 240


def test_the_channel_behind_the_colours_is_the_hole():
    hq = torch.rand(3, 3, 40, 56)
    degraded = degrade(hq, TRAIN, generator=generator(), scale=1)
    image, mask = degraded.lq[:, :3], degraded.lq[:, 3:]
    assert degraded.lq.shape == (3, 4, 40, 56)
    assert torch.equal(degraded.hq, hq)
    assert torch.equal(image, hq * (1 - mask))
    shares = [hole["share"] for hole in degraded.draws["holes"]]
    torch.testing.assert_close(torch.tensor(shares), mask.mean((1, 2, 3)))
    assert len(set(shares)) == 3  # each picture has its own


@pytest.mark.parametrize("name", TESTS)
def test_test_holes_follow_the_protocol(name):
    preset = get_preset(name)
    # A ramp along the longer side tells where the square was cut.
    ramp = torch.linspace(0, 1, 90).expand(1, 3, 60, 90)
    random = generator(1)
    lefts = []
    for _ in range(4):
        degraded = degrade(ramp, preset, generator=random)
        mask = degraded.lq[:, 3]
        assert degraded.hq.shape == (1, 3, preset.side, preset.side)
        assert 0 < mask.mean() <= 0.5
        hole = degraded.draws["holes"][0]
        assert hole["top"] == 0
        middle = float(degraded.hq.mean())
        expected = (hole["left"] + preset.side / 2) / (1.5 * preset.side)
        assert middle == pytest.approx(expected, abs=0.02)
        lefts.append(hole["left"])
    assert len(set(lefts)) > 1


def test_kinds_of_test_holes_differ():
    """Thin holes reach a known pixel sooner than thick ones, at about the same share."""

    def thickness(name):
        random = generator(2)
        shares, inside = 0.0, 0.0
        for _ in range(40):
            mask = draw_mask(get_preset(name), (256, 256), random)
            eroded = -torch.nn.functional.max_pool2d(-mask[None], 15, 1, 7)
            shares, inside = shares + float(mask.sum()), inside + float(eroded.sum())
        return inside / shares

    thick, medium, thin = (thickness(f"masks_{kind}_256") for kind in ("thick", "medium", "thin"))
    assert thick > 0.6 > medium > 0.25 > 0.1 > thin


def test_bad_parameters_and_scales_are_sentences():
    with pytest.raises(BIRError, match="keeps the size of a picture, but a scale of 4"):
        degrade(torch.rand(1, 3, 8, 8), TRAIN, generator=generator(), scale=4)
    with pytest.raises(BIRError, match=r"strokes should be \(low, high\) from 1 on, but \(3, 2\)"):
        StrokeMasks(strokes=(3, 2), lengths=10, widths=10)
    strokes = StrokeMasks(strokes=(1, 2), lengths=10, widths=10)
    with pytest.raises(BIRError, match="boxes and their probability or neither"):
        MaskDegradation(strokes=strokes, box_probability=0.5, side=64)
