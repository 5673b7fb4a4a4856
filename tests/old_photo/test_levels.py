"""Fading, casts and tone: found, undone and put back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bir_core.errors import BIRError
from bir_core.old_photo import Levels, find_levels


def photo(side=96, seed=0):
    """Soft colours from black to white."""
    small = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    image = F.interpolate(small, (side, side), mode="bicubic")
    low, high = image.amin(), image.amax()
    image = (image - low) / (high - low)
    image[..., :3, :3], image[..., -3:, -3:] = 0, 1
    return image


def grey_photo():
    return photo().mean(1, keepdim=True).expand(-1, 3, -1, -1).clamp(0, 1).contiguous()


def test_a_picture_from_black_to_white_stays():
    found = find_levels(photo())
    assert not found.changes and found.words == "levels as they were"
    assert torch.equal(found.undone(photo()), photo())


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 0.3), st.floats(0.05, 0.3))
def test_fading_is_undone_in_part_and_never_too_far(dark, bright):
    image = photo()
    faded = dark + (1 - dark - bright) * image
    found = find_levels(faded)
    assert 0 < found.low[0] <= dark and 1 - bright <= found.high[0] < 1
    assert (found.undone(faded) - image).abs().mean() < (faded - image).abs().mean()
    assert "spread to 0 to 1" in found.words


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*3 * [st.floats(0, 0.3)]),
    st.tuples(*3 * [st.floats(0.6, 1)]),
    st.tuples(*3 * [st.floats(0.5, 2)]),
)
def test_what_is_undone_can_be_put_back(low, high, powers):
    levels = Levels(low, high, powers)
    image = 0.3 + 0.3 * photo()  # nothing is cut off
    torch.testing.assert_close(levels.redone(levels.undone(image)), image, rtol=1e-4, atol=1e-4)


def test_a_toned_print_becomes_grey_and_black_stays_black():
    image = grey_photo()
    powers = torch.tensor([0.8, 1.0, 1.35]).view(3, 1, 1)
    found = find_levels(image**powers)
    undone = found.undone(image**powers)
    assert float((undone.amax(1) - undone.amin(1)).max()) < 0.02
    assert float((undone - image).abs().max()) < 0.03
    assert found.low == (0, 0, 0) and "tone" in found.words
    assert not find_levels(image**powers, keep_tone=True).changes


def test_a_toned_print_on_paper_of_a_colour_becomes_grey():
    image = grey_photo()
    powers = torch.tensor([0.85, 1.0, 1.3]).view(3, 1, 1)
    low = torch.tensor([0.25, 0.12, 0.06]).view(3, 1, 1)
    high = torch.tensor([0.95, 0.88, 0.75]).view(3, 1, 1)
    toned = low + (high - low) * image**powers
    found = find_levels(toned)
    undone = found.undone(toned)
    assert float((undone.amax(1) - undone.amin(1)).mean()) < 0.02
    assert found.low[0] > found.low[2] and "cast" in found.words and "tone" in found.words
    kept = find_levels(toned, keep_tone=True)
    assert kept.powers == (1, 1, 1) and len(set(kept.low)) == 1


def test_a_grey_print_and_a_picture_in_colours_have_no_tone():
    assert find_levels(grey_photo()).powers == (1, 1, 1)
    warm = photo() * torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    assert find_levels(warm).powers == (1, 1, 1)


def test_a_cast_is_what_black_has_of_a_colour():
    low = torch.tensor([0.2, 0.05, 0.1]).view(3, 1, 1)
    high = torch.tensor([1.0, 0.9, 0.8]).view(3, 1, 1)
    found = find_levels(low + (high - low) * photo())
    assert found.low[0] > found.low[2] > found.low[1] and found.high[2] < found.high[0]
    assert found.words.startswith("the cast taken out: red 0.")
    # The same white of a warm light over black that is black is no cast.
    assert len(set(find_levels(high * photo()).low)) == 1


def test_damage_is_not_looked_at():
    faded = 0.2 + 0.6 * photo()
    scratched, mask = faded.clone(), torch.zeros(1, 1, 96, 96)
    scratched[..., 40:43, :], mask[..., 39:44, :] = 1, 1
    scratched[..., 50:53, :], mask[..., 49:54, :] = 0, 1
    assert not find_levels(scratched).changes
    looked, clean = find_levels(scratched, mask), find_levels(faded)
    assert looked.low == pytest.approx(clean.low, abs=0.02)
    assert looked.high == pytest.approx(clean.high, abs=0.02)
    assert find_levels(faded, torch.ones(1, 1, 96, 96)) == clean  # nothing left: all of it


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size(height, width):
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    undone = find_levels(image).undone(image)
    assert undone.shape == image.shape and bool(undone.isfinite().all())
    assert float(undone.min()) >= 0 and float(undone.max()) <= 1


def test_noise_is_not_taken_for_black_and_white():
    large = F.interpolate(0.25 + 0.5 * photo(), (1600, 1600), mode="bilinear")
    noise = 0.08 * torch.randn(large.shape, generator=torch.Generator().manual_seed(0))
    found = find_levels((large + noise).clamp(0, 1))
    assert found.low[0] > 0.05 and found.high[0] < 0.95


def test_no_image_is_refused():
    with pytest.raises(BIRError):
        find_levels(torch.rand(3, 8, 8))
