import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.degradations import MixedKernels, degrade, get_preset
from bir_core.degradations.defocus import disc_kernel
from bir_core.degradations.kernels import draw_kernel
from bir_core.errors import BIRError

RADII = st.floats(0.05, 20)


@given(RADII)
def test_weighs_one_and_is_alike_on_all_sides(radius):
    kernel = disc_kernel(radius)
    assert kernel.shape[-1] % 2 == 1
    assert kernel.min() >= 0
    assert float(kernel.double().sum()) == pytest.approx(1, abs=1e-6)
    for turned in (kernel.T, kernel.flip(0), kernel.flip(1)):
        torch.testing.assert_close(kernel, turned, rtol=0, atol=1e-7)


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.7, 1.0, 1.49, 2.5, 3.2, 7.77])
def test_each_pixel_has_the_share_that_the_disc_covers(radius):
    """Against points counted on a fine grid."""
    kernel = disc_kernel(radius).double()
    fine = 400
    margin = kernel.shape[-1] // 2
    axis = (torch.arange(kernel.shape[-1] * fine, dtype=torch.float64) + 0.5) / fine - 0.5 - margin
    inside = (axis[:, None] ** 2 + axis[None] ** 2 <= radius**2).double()
    shares = torch.nn.functional.avg_pool2d(inside[None, None], fine)[0, 0]
    expected = shares / (math.pi * radius**2)
    torch.testing.assert_close(kernel, expected, rtol=0, atol=4 / fine / radius**2 / 10)


@given(st.floats(1.5, 20))
def test_the_border_is_soft_and_the_inside_even(radius):
    kernel = disc_kernel(radius)
    axis = torch.arange(kernel.shape[-1]) - kernel.shape[-1] // 2
    distance = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
    full = 1 / (math.pi * radius**2)
    inside = kernel[distance < radius - math.sqrt(0.5)]
    torch.testing.assert_close(inside, torch.full_like(inside, full), rtol=1e-4, atol=0)
    assert not (kernel[distance > radius + math.sqrt(0.5)] > 1e-12).any()


@pytest.mark.parametrize("radius", [0, -1, math.nan, math.inf])
def test_refuses_an_impossible_radius(radius):
    with pytest.raises(BIRError, match="radius above 0 pixels"):
        disc_kernel(radius)


def test_without_defocus_nothing_is_drawn_for_it():
    first, second = (torch.Generator().manual_seed(3) for _ in range(2))
    changed = MixedKernels(defocus_radius=(1, 2))
    for _ in range(20):
        assert draw_kernel(MixedKernels(), first)[1] == draw_kernel(changed, second)[1]


@pytest.mark.parametrize("name, kind", [("defocus", "defocus"), ("motion_blur", "motion")])
def test_the_presets_blur_alone(name, kind):
    hq = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    made = degrade(hq, get_preset(name), generator=torch.Generator().manual_seed(1))
    assert [kernel["kind"] for kernel in made.draws["kernels"]] == [kind, kind]
    assert set(made.draws) == {"kernels"}
    low = torch.full((1, 3, 40, 40), 0.4)
    flat = degrade(low, get_preset(name), generator=torch.Generator().manual_seed(1)).lq
    assert (flat * 255 - 102).abs().max() < 1e-3
