"""Sheets of pictures: where the detail is, and that all stands where it should."""

import pytest
import torch

from bir_core.pictures.sheets import LABEL_HEIGHT, MARGIN, Panel, detail_window, sheet, usual_column
from bir_core.tiling import Tile


def test_detail_is_where_the_edges_are():
    image = torch.full((1, 3, 80, 120), 0.5)
    image[..., 40:56, 72:88] = torch.eye(16).repeat(1, 3, 1, 1)
    detail = detail_window(image)
    assert (detail.height, detail.width) == (16, 24)
    assert detail.y - 8 <= 40 <= 56 <= detail.y + 24
    assert detail.x - 8 <= 72 <= 88 <= detail.x + 32


@pytest.mark.parametrize(
    "size", [(1, 1), (3, 700), (15, 90), (16, 16), (63, 900), (64, 64), (900, 70)]
)
def test_any_size_has_a_detail_inside(size):
    height, width = size
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    detail = detail_window(image)
    assert detail.y >= 0 and detail.y + detail.height <= height and detail.height
    assert detail.x >= 0 and detail.x + detail.width <= width and detail.width
    made = sheet([Panel(image, "a", ("1", "2"))], detail, usual_column(image))
    assert made.shape[-1] == usual_column(image) + 2 * MARGIN
    assert made.min() >= 0 and made.max() <= 1


def test_panels_stand_beside_each_other_and_texts_in_their_columns():
    red, blue = torch.zeros(2, 1, 3, 200, 400)
    red[:, 0], blue[:, 2] = 1, 1
    long = "a title much longer than its column " * 4
    panels = [Panel(red, long, (long, "second")), Panel(blue, "", ())]
    made = sheet(panels, Tile(0, 0, 40, 80), 400)
    assert made.shape[-1] == 2 * 400 + 3 * MARGIN
    top = MARGIN + LABEL_HEIGHT
    for index, image in enumerate((red, blue)):
        left = MARGIN + index * (400 + MARGIN)
        assert torch.equal(made[..., top + 60 : top + 200, left : left + 400], image[..., 60:, :])
        detail = made[..., top + 200 + MARGIN : top + 400 + MARGIN, left : left + 400]
        assert torch.equal(detail, image)
    # The second column and the margins are free of the first one's texts.
    assert (made[..., :top, MARGIN + 400 :] == 1).all()
    below = made[..., top + 400 + MARGIN :, :]
    assert below.shape[-2] > MARGIN and (below[..., MARGIN + 400 :] == 1).all()
    assert below.min() < 0.5 and made[..., :top, :].min() < 0.5
