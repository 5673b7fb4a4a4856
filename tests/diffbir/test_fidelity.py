"""Fidelity, and guidance that means the same at any size."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.diffbir.fidelity import of_fidelity
from bir_core.diffusion.guidance import RestorationGuidance
from bir_core.errors import BIRError

SHARES = st.floats(0, 1)


@given(SHARES, SHARES)
def test_nothing_falls_with_the_fidelity(one, other):
    low, high = (of_fidelity(value) for value in sorted((one, other)))
    assert low.strength <= high.strength <= 1
    assert 0 <= low.guidance <= high.guidance
    assert 0 <= low.blending <= high.blending < 1


def test_the_middle_is_what_the_authors_set_and_the_ends_differ():
    middle, invented, faithful = (of_fidelity(value) for value in (0.5, 0, 1))
    assert (middle.strength, middle.guidance, middle.blending) == (1, 0, 0)
    assert invented.strength < 1 and faithful.guidance > 0 and faithful.blending > 0


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_other_numbers_are_refused(value):
    with pytest.raises(BIRError, match="from 0 .invent. to 1"):
        of_fidelity(value)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_scale_at_any_size_pulls_each_pixel_alike(height, width, on_pixels):
    """As the plain one does at 512 x 512 pixels."""

    def pull(height, width, at_any_size):
        def decode(latent):
            return latent[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3)

        guidance = RestorationGuidance(
            latent=torch.ones(1, 4, height, width),
            scale=0.5,
            at_any_size=at_any_size,
            image=torch.ones(1, 3, 8 * height, 8 * width) if on_pixels else None,
            decode=decode if on_pixels else None,
        )
        return guidance.pull(torch.zeros(1, 4, height, width))[0, 0]

    expected = pull(64, 64, False)[0, 0]
    ours = pull(height, width, True)
    torch.testing.assert_close(ours, expected.expand(height, width))
    if height * width != 64 * 64:
        assert not torch.allclose(pull(height, width, False), ours)
