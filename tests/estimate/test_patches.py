"""Windows over a picture, and what is said of them together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.estimate.patches import GRID, spread_patches, together, weighted_median


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400))
def test_every_size_gives_few_windows_that_lie_on_the_grid(height, width):
    """Each pixel knows its place, so that a window says where it was cut."""
    places = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ).float()[None]
    patches = spread_patches(places, side=64, most_rows=3)
    assert patches.shape[1:] == (2, 64, 64) and 1 <= len(patches) <= 9
    corners = patches[:, :, 0, 0]
    assert bool((corners % GRID == 0).all())
    assert bool((corners >= 0).all())
    if min(height, width) >= 64:
        if height >= 128:
            assert float(corners[:, 0].max()) > height - 64 - GRID
        assert torch.equal(
            patches[:, 0, -1, 0] - patches[:, 0, 0, 0], torch.full((len(patches),), 63.0)
        )


def test_windows_of_a_large_picture_are_spread_over_all_of_it():
    image = torch.arange(8192.0).view(1, 1, 1, -1).expand(1, 1, 300, -1)
    starts = sorted({float(patch[0, 0, 0]) for patch in spread_patches(image)})
    assert len(starts) == 6 and starts[0] == 0 and starts[-1] >= 8192 - 80 - GRID
    steps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
    assert max(steps) - min(steps) <= GRID


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(0.1, 5)), min_size=1, max_size=20))
def test_the_weighted_median_has_half_of_the_weight_on_each_side(pairs):
    values, weights = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    median = weighted_median(values, weights)
    half = weights.sum() / 2 + 1e-9
    assert weights[values < median].sum() <= half and weights[values > median].sum() <= half
    assert bool((values == median).any())


def test_patches_that_say_nothing_do_not_count():
    values = torch.tensor([10.0, 10.5, 11.0, 0.0, 0.0, 0.0, 0.0])
    spreads = torch.tensor([1.0, 1.0, 1.0, 20.0, 20.0, 20.0, 20.0])
    found = together(values, spreads)
    assert 10 <= found.value <= 10.5 and found.spread == 1
    # Patches that are sure, but do not agree.
    assert together(torch.tensor([0.0, 5.0, 10.0]), torch.full((3,), 0.1)).spread == pytest.approx(
        5
    )
