"""Thin holes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.degradations import ScratchMasks, degrade, get_preset
from bir_core.degradations.scratch_masks import draw_scratches
from bir_core.errors import BIRError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(0, 1000))
def test_any_size_has_a_hole(height, width, seed):
    hq = 0.1 + 0.9 * torch.rand(2, 3, height, width, generator=generator(seed))
    made = degrade(hq, get_preset("masks_scratches"), generator=generator(seed))
    hole = made.lq[:, 3:]
    assert set(hole.unique().tolist()) <= {0.0, 1.0} and bool(hole.amax((1, 2, 3)).all())
    assert torch.equal(made.lq[:, :3], hq * (1 - hole)) and torch.equal(made.hq, hq)
    assert torch.equal(made.draws["hole_share"], hole.mean((1, 2, 3)))


@pytest.mark.parametrize("width", [1.0, 4.0, 12.0])
def test_lines_are_as_wide_as_was_asked_for(width):
    preset = ScratchMasks(
        lines=(1.0, 1.0), widths=(width, width), lengths=(4000.0, 4000.0), specks=(1e-3, 1e-3)
    )
    shares = []
    for seed in range(20):
        hole = draw_scratches(preset, (256, 256), generator(seed))
        # The widest square in it; a line across is thinner than this at any angle.
        pooled = -torch.nn.functional.max_pool2d(-hole[None, None], int(width * 1.5) + 2, 1)
        shares.append(float(pooled.mean()))
    assert sum(share > 0.002 for share in shares) <= 4  # where a line crosses itself


def test_the_draw_is_repeated_by_its_seed_and_another_by_another():
    preset = get_preset("masks_scratches")
    first, second, other = (draw_scratches(preset, (90, 70), generator(s)) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_another_scale_and_empty_ranges_are_refused():
    with pytest.raises(BIRError, match="keeps the size"):
        get_preset("masks_scratches").with_scale(2)
    with pytest.raises(BIRError, match="widths"):
        ScratchMasks(widths=(3.0, 1.0))
