"""Tiles: positions, weights and blending."""

import json
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import load_vectors
from torch.nn import functional as F

from bir_core import tiling
from bir_core.errors import BIRError
from bir_core.tiling import (
    Tile,
    TileGrid,
    join_tiles,
    latent_grid,
    split_tiles,
    tile_starts,
    tile_weights,
    tiled_apply,
    tiles,
)

VECTORS, METADATA = load_vectors("diffbir_tiles")
CLOSE = {"rtol": 1e-5, "atol": 1e-5}

lengths = st.integers(1, 40)
tile_sides = st.integers(1, 16).flatmap(
    lambda tile: st.tuples(st.just(tile), st.integers(0, tile - 1))
)


def picture(height, width, batch=2, channels=3):
    generator = torch.Generator().manual_seed(height * 100 + width)
    return torch.randn(batch, channels, height, width, generator=generator)


def position_dependent(pieces, chosen):
    """A function with a context inside its tile only, so that seams would show."""
    ramp = torch.linspace(0, 1, pieces.shape[-1])
    return pieces * (1 + ramp) + pieces.mean(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize("case", json.loads(METADATA["windows"]), ids=lambda case: case["case"])
def test_tiles_are_the_official_ones(case):
    height, width, tile, stride = case["case"]
    plan = tiles(height, width, tile, tile - stride)
    assert [[t.y, t.y + t.height, t.x, t.x + t.width] for t in plan] == case["coords"]


def test_official_weights_equal_official():
    torch.testing.assert_close(tile_weights(64, 64, "official"), VECTORS["gauss_64"])
    torch.testing.assert_close(tile_weights(32, 48, "official"), VECTORS["gauss_w48_h32"])
    whole = tile_weights(512, 512, "official")
    torch.testing.assert_close(whole[:, 256], VECTORS["gauss_512_col"], rtol=1e-6, atol=0)
    torch.testing.assert_close(whole[256], VECTORS["gauss_512_row"], rtol=1e-6, atol=0)


@given(lengths, lengths)
def test_weights_are_positive_and_symmetric(height, width):
    weight = tile_weights(height, width)
    assert bool((weight > 0).all())
    torch.testing.assert_close(weight, weight.flip(0))
    torch.testing.assert_close(weight, weight.flip(1))


def test_blending_equals_official():
    x = VECTORS["fn_in"]

    def enlarge(pieces, chosen):
        enlarged = F.interpolate(pieces, scale_factor=4)
        return enlarged * (1 + torch.linspace(0, 1, enlarged.shape[-1]))

    def ramp(pieces, chosen):
        return pieces * (1 + torch.linspace(0, 1, pieces.shape[-1]))

    ours = tiled_apply(enlarge, x, 16, 8, scale=4, weights="official")
    exact = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(ours[..., ::3, ::3], VECTORS["fn_up4_out_sub3"], **exact)
    uniform = tiled_apply(ramp, x, 16, 8, weights="uniform")
    torch.testing.assert_close(uniform, VECTORS["fn_uniform_out"], **exact)


@given(st.integers(1, 2000), tile_sides)
def test_tiles_cover_the_axis_and_overlap_at_least_as_asked(length, sides):
    tile, overlap = sides
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + min(tile, length) == length
    assert all(
        0 < second - first <= tile - overlap
        for first, second in zip(starts[:-1], starts[1:], strict=True)
    )


@given(lengths, lengths, tile_sides, st.integers(1, 3), st.sampled_from(["gaussian", "uniform"]))
def test_a_local_function_is_not_changed_by_tiles(height, width, sides, scale, weights):
    x = picture(height, width)
    out = tiled_apply(
        lambda pieces, _: F.interpolate(pieces, scale_factor=scale),
        x,
        *sides,
        scale=scale,
        weights=weights,
    )
    torch.testing.assert_close(out, F.interpolate(x, scale_factor=scale), **CLOSE)


@given(lengths, lengths, tile_sides, st.integers(2, 50))
def test_the_batch_of_tiles_does_not_change_the_result(height, width, sides, tile_batch):
    x = picture(height, width)
    alone = tiled_apply(position_dependent, x, *sides)
    together = tiled_apply(position_dependent, x, *sides, tile_batch=tile_batch)
    torch.testing.assert_close(together, alone, **CLOSE)


@given(st.randoms(use_true_random=False))
def test_the_order_of_tiles_does_not_change_the_result(order):
    x = picture(21, 30)
    in_order = tiled_apply(position_dependent, x, 8, 4, tile_batch=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "tiles", lambda *size: shuffled(tiles(*size), order))
        torch.testing.assert_close(
            tiled_apply(position_dependent, x, 8, 4, tile_batch=3), in_order, **CLOSE
        )


def shuffled(plan: list, order: random.Random) -> list:
    order.shuffle(plan)
    return plan


@given(lengths, lengths)
def test_one_tile_is_bit_equal_to_none(height, width):
    x = picture(height, width)
    out = tiled_apply(position_dependent, x, 40, 8)
    assert torch.equal(out, position_dependent(x, None))


@given(st.integers(1, 4))
def test_an_image_of_a_batch_comes_out_as_if_alone(batch):
    x = picture(19, 23, batch)
    together = tiled_apply(position_dependent, x, 8, 3, tile_batch=2)
    alone = torch.cat([tiled_apply(position_dependent, image[None], 8, 3) for image in x])
    torch.testing.assert_close(together, alone, **CLOSE)


def test_half_precision_is_blended_without_loss():
    x = torch.ones(1, 1, 70, 70, dtype=torch.float16)
    out = tiled_apply(lambda pieces, _: pieces, x, 64, 6)
    assert out.dtype == torch.float16
    assert torch.equal(out, x)


def test_gaussian_weights_leave_no_step_where_a_tile_begins():
    x = torch.zeros(1, 1, 8, 48)
    steps = {}
    for weights in ("gaussian", "uniform"):
        out = tiled_apply(lambda pieces, chosen: pieces + chosen[0].x, x, 32, 16, weights=weights)
        steps[weights] = float(out[0, 0, 0, 16] - out[0, 0, 0, 15])
    assert steps["uniform"] == pytest.approx(8)
    assert 0 <= steps["gaussian"] < 0.01


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_tiles_are_refused(tile, overlap):
    with pytest.raises(BIRError, match=f"a tile of {tile} and an overlap of {overlap} came"):
        tiled_apply(position_dependent, picture(20, 20), tile, overlap)


def test_an_empty_batch_of_tiles_is_refused():
    with pytest.raises(BIRError, match="At least one tile"):
        tiled_apply(position_dependent, picture(20, 20), 8, 2, tile_batch=0)


@given(lengths, lengths, tile_sides)
def test_split_tiles_join_to_the_same_bits(height, width, tile_side):
    grid = TileGrid(height, width, *tile_side)
    pictures = picture(height, width)
    pieces = split_tiles(pictures, grid)
    assert len(pieces) == 2 * grid.count
    for index, piece in enumerate(grid.tiles):
        assert torch.equal(pieces[index], piece.crop(pictures)[0])
        assert torch.equal(pieces[grid.count + index], piece.crop(pictures)[1])
    assert torch.equal(join_tiles([pieces], grid, 2), pictures)


@pytest.mark.parametrize("weights", ["gaussian", "official", "uniform"])
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_changed_tiles_are_blended_as_by_tiled_apply(weights, scale):
    """Each in its own way, and enlarged."""
    grid = TileGrid(13, 22, 8, 3)
    pictures = picture(grid.height, grid.width)

    def changed(pieces, chosen):
        own = [
            position_dependent(each, chosen) * (1 + piece.x + piece.y)
            for piece, each in zip(chosen, pieces.split(2), strict=True)
        ]
        return torch.cat(own).repeat_interleave(scale, 2).repeat_interleave(scale, 3)

    expected = tiled_apply(changed, pictures, grid.tile, grid.overlap, scale, weights)
    by_tile = [changed(piece.crop(pictures), [piece]) for piece in grid.tiles]
    joined = join_tiles(list(torch.stack(by_tile, 1).flatten(0, 1).split(5)), grid, 2, weights)
    torch.testing.assert_close(joined, expected, **CLOSE)


def test_pictures_of_a_batch_never_mix():
    grid = TileGrid(13, 22, 8, 3)
    pieces = picture(8, 8, batch=2 * grid.count)
    both = join_tiles([pieces], grid, 2)
    assert torch.equal(both[:1], join_tiles([pieces[: grid.count]], grid, 1))
    assert torch.equal(both[1:], join_tiles([pieces[grid.count :]], grid, 1))


def test_tiles_that_do_not_fit_are_refused():
    grid = TileGrid(16, 24, 8, 0)
    batches = [torch.zeros(4, 3, 8, 8), torch.zeros(2, 3, 16, 16)]
    for pictures, count in ((1, 5), (1, 12), (2, 6)):
        given = [torch.zeros(count, 3, 8, 8)]
        with pytest.raises(BIRError, match=rf"in 6 tiles \(3 columns x 2 rows.* but {count} came"):
            join_tiles(given, grid, pictures)
    with pytest.raises(BIRError, match="The picture should come back .* but 0 came"):
        join_tiles([], grid, 1)
    for size in ((8, 12), (12, 12), (4, 4)):
        with pytest.raises(BIRError, match="8 x 8 pixels, or all enlarged by the same whole"):
            join_tiles([torch.zeros(6, 3, *size)], grid, 1)
    with pytest.raises(BIRError, match="the same whole number, but 8 x 8 and 16 x 16 came"):
        join_tiles(batches, grid, 1)
    with pytest.raises(BIRError, match="choose a smaller overlap"):
        TileGrid(16, 24, 8, 8)


def test_grid_of_a_picture_is_that_of_its_padded_latent():
    grid = latent_grid(100, 200, 64, 32)
    assert (grid.height, grid.width, grid.tile, grid.overlap) == (16, 32, 8, 4)
    assert (grid.rows, grid.columns) == (3, 7)
    assert grid.in_pixels().tiles[8] == Tile(32, 32, 64, 64)
    assert str(latent_grid(100, 200, 0, 256)) == "1 tile"
    assert [grid.nearest(tile) for tile in grid.tiles] == list(range(grid.count))
    assert grid.nearest(Tile(5, 9, 8, 8)) == 9
