import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parity import load_vectors

from bir_core.degradations.kernels import (
    MixedKernels,
    bell_kernel,
    delta_kernel,
    draw_final_sinc,
    draw_kernel,
    filter2d,
    pad_kernel,
    pad_reflect,
    sharpen,
    sinc_kernel,
    stack_kernels,
)
from bir_core.errors import BIRError

# The arguments are those of the metadata's note.
OFFICIAL_KERNELS = {
    "iso_21": lambda: bell_kernel(21, 2.1, 2.1),
    "aniso_21": lambda: bell_kernel(21, 2.5, 0.8, 0.7),
    "giso_15": lambda: bell_kernel(15, 1.9, 1.9, shape="generalized", beta=0.7),
    "ganiso_15": lambda: bell_kernel(15, 1.9, 0.9, -1.1, shape="generalized", beta=2.5),
    "plat_iso_13": lambda: bell_kernel(13, 1.4, 1.4, shape="plateau", beta=1.5),
    "plat_aniso_13": lambda: bell_kernel(13, 1.4, 2.2, 2.0, shape="plateau", beta=1.2),
    "sinc_9": lambda: sinc_kernel(9, 1.3),
    "sinc_13_pad21": lambda: pad_kernel(sinc_kernel(13, 2.2), 21),
}
COUNT = 6000


@pytest.fixture(scope="module")
def vectors():
    return load_vectors("diffbir_degradation")[0]


@pytest.fixture(scope="module")
def drawn():
    """Many draws of the first order of Real-ESRGAN."""
    generator = torch.Generator().manual_seed(11)
    return [draw_kernel(MixedKernels(), generator) for _ in range(COUNT)]


def share_tolerance(share: float, count: int = COUNT) -> float:
    """Five standard deviations of the share of a kind among `count` draws."""
    return 5 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize("name", OFFICIAL_KERNELS)
def test_kernels_equal_the_official_ones(vectors, name):
    torch.testing.assert_close(OFFICIAL_KERNELS[name](), vectors[f"k.{name}"], rtol=0, atol=1e-6)


def test_filter2d_equals_the_official_one(vectors):
    kernels = torch.stack([vectors["k.aniso_21"], vectors["k.sinc_13_pad21"]])
    got = filter2d(vectors["img"], kernels)
    torch.testing.assert_close(got, vectors["filter2d"], rtol=0, atol=1e-5)


def test_sharpen_equals_the_official_one(vectors):
    torch.testing.assert_close(sharpen(vectors["img"]), vectors["usm"], rtol=0, atol=1e-5)


@given(
    size=st.integers(0, 15).map(lambda half: 2 * half + 1),
    sigmas=st.tuples(st.floats(0.1, 12), st.floats(0.1, 12)),
    theta=st.floats(-math.pi, math.pi),
    shape=st.sampled_from(["gaussian", "generalized", "plateau"]),
    beta=st.floats(0.5, 4),
)
def test_bell_kernels_are_normalised_and_symmetric(size, sigmas, theta, shape, beta):
    kernel = bell_kernel(size, *sigmas, theta, shape=shape, beta=beta)
    assert kernel.shape == (size, size) and kernel.dtype == torch.float32
    assert kernel.min() >= 0
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    quarter_turn = bell_kernel(size, *sigmas[::-1], theta + math.pi / 2, shape=shape, beta=beta)
    torch.testing.assert_close(kernel, quarter_turn, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma_x, sigma_y, theta", [(1.2, 1.2, 0.0), (2.0, 0.9, 0.0)])
def test_a_gaussian_kernel_has_the_widths_asked_for(sigma_x, sigma_y, theta):
    kernel = bell_kernel(41, sigma_x, sigma_y, theta).double()
    axis = torch.arange(41, dtype=torch.float64) - 20
    assert float((kernel.sum(0) * axis**2).sum()) == pytest.approx(sigma_x**2, rel=1e-4)
    assert float((kernel.sum(1) * axis**2).sum()) == pytest.approx(sigma_y**2, rel=1e-4)


@given(size=st.integers(3, 10).map(lambda half: 2 * half + 1), cutoff=st.floats(0.6, math.pi))
def test_sinc_kernels_are_normalised_and_ring(size, cutoff):
    kernel = sinc_kernel(size, cutoff)
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
    assert kernel.argmax() == size * size // 2
    torch.testing.assert_close(kernel, kernel.T)
    if cutoff * (size // 2) > 4:  # past the first zero of J1, at 3.83
        assert kernel.min() < 0


def test_a_delta_kernel_changes_nothing():
    image = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filter2d(image, delta_kernel(7)[None]), image)


def test_stacked_kernels_keep_their_centre():
    image = torch.rand(2, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    kernels = [bell_kernel(7, 1.0, 2.0, 0.3), sinc_kernel(13, 2.0)]
    together = filter2d(image, stack_kernels(kernels))
    for index, kernel in enumerate(kernels):
        alone = filter2d(image[index : index + 1], kernel[None])
        torch.testing.assert_close(together[index : index + 1], alone)


def test_one_kernel_serves_the_whole_batch():
    image = torch.rand(3, 3, 9, 8, generator=torch.Generator().manual_seed(0))
    kernel = bell_kernel(7, 1.0, 2.0, 0.3)[None]
    torch.testing.assert_close(filter2d(image, kernel), filter2d(image, kernel.expand(3, 7, 7)))


def mirrored(position: int, length: int) -> int:
    """Walk from pixel to pixel, turning round at the borders."""
    if length == 1:
        return 0
    while not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    margins=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_padding_mirrors_about_the_border_pixels(height, width, margins):
    image = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    rows = [mirrored(row, height) for row in range(-margins[0], height + margins[0])]
    columns = [mirrored(column, width) for column in range(-margins[1], width + margins[1])]
    assert torch.equal(pad_reflect(image, *margins), image[:, :, rows][..., columns])


def test_filter2d_refuses_even_kernels_and_wrong_counts():
    image = torch.rand(3, 3, 9, 8)
    with pytest.raises(BIRError, match="odd and at least 1, but 4 came"):
        filter2d(image, torch.ones(1, 4, 4))
    with pytest.raises(BIRError, match="each of the 3 images, but 2 came"):
        filter2d(image, torch.ones(2, 3, 3))


def test_sharpening_leaves_small_steps_and_lifts_large_ones():
    image = torch.full((1, 3, 64, 64), 0.5)
    image[..., 32:] += 0.02
    torch.testing.assert_close(sharpen(image), image)
    image[..., 32:] += 0.28
    sharp = sharpen(image)
    assert float(sharp[..., 32].mean() - image[..., 32].mean()) > 0.02
    assert float(sharp[..., 31].mean() - image[..., 31].mean()) < -0.02


def test_kinds_come_with_the_published_probabilities(drawn):
    counts = Counter(values["kind"] for _, values in drawn)
    expected = {
        "sinc": 0.1,
        "gaussian_isotropic": 0.9 * 0.45,
        "gaussian_anisotropic": 0.9 * 0.25,
        "generalized_isotropic": 0.9 * 0.12,
        "generalized_anisotropic": 0.9 * 0.03,
        "plateau_isotropic": 0.9 * 0.12,
        "plateau_anisotropic": 0.9 * 0.03,
    }
    assert set(counts) == set(expected)
    for kind, share in expected.items():
        assert abs(counts[kind] / COUNT - share) < share_tolerance(share), kind


def test_sizes_are_equally_likely(drawn):
    counts = Counter(values["size"] for _, values in drawn)
    assert set(counts) == {7, 9, 11, 13, 15, 17, 19, 21}
    for size, count in counts.items():
        assert abs(count / COUNT - 1 / 8) < share_tolerance(1 / 8), size
    assert all(kernel.shape == (values["size"],) * 2 for kernel, values in drawn)


def test_values_fill_their_ranges(drawn):
    values = [values for _, values in drawn]
    bells = [v for v in values if v["kind"] != "sinc"]
    ranges = {
        "sigma_x": ([v["sigma_x"] for v in bells], 0.2, 3.0),
        "theta": ([v["theta"] for v in bells if "anisotropic" in v["kind"]], -math.pi, math.pi),
        "small cutoff": (
            [v["cutoff"] for v in values if v["kind"] == "sinc" and v["size"] < 13],
            math.pi / 3,
            math.pi,
        ),
        "large cutoff": (
            [v["cutoff"] for v in values if v["kind"] == "sinc" and v["size"] >= 13],
            math.pi / 5,
            math.pi,
        ),
    }
    for name, (numbers, low, high) in ranges.items():
        assert low <= min(numbers) and max(numbers) < high, name
        middle, width = (low + high) / 2, high - low
        # The mean of n uniform numbers has the standard deviation width / sqrt(12 n).
        tolerance = 5 * width / math.sqrt(12 * len(numbers))
        assert abs(sum(numbers) / len(numbers) - middle) < tolerance, name


@pytest.mark.parametrize("kind, low, high", [("generalized", 0.5, 4.0), ("plateau", 1.0, 2.0)])
def test_half_of_the_exponents_are_at_most_one(drawn, kind, low, high):
    betas = [values["beta"] for _, values in drawn if values["kind"].startswith(kind)]
    assert low <= min(betas) and max(betas) < high
    share = sum(beta <= 1 for beta in betas) / len(betas)
    assert abs(share - 0.5) < share_tolerance(0.5, len(betas))


def test_isotropic_kernels_have_one_width(drawn):
    for kernel, values in drawn[:500]:
        if "_isotropic" in values["kind"]:
            assert values["sigma_x"] == values["sigma_y"]
            torch.testing.assert_close(kernel, kernel.rot90())


def test_a_kernel_can_be_made_again_from_what_was_drawn(drawn):
    for kernel, values in drawn[:300]:
        if values["kind"] == "sinc":
            again = sinc_kernel(values["size"], values["cutoff"])
        else:
            again = bell_kernel(
                values["size"],
                values["sigma_x"],
                values["sigma_y"],
                values["theta"],
                shape=values["kind"].split("_")[0],
                beta=values.get("beta", 1.0),
            )
        assert torch.equal(kernel, again)


def test_the_final_filter_is_sinc_or_nothing():
    generator = torch.Generator().manual_seed(3)
    cutoffs = (math.pi / 3, math.pi)
    draws = [draw_final_sinc(0.8, (7, 21), cutoffs, generator) for _ in range(COUNT)]
    sincs = [values for _, values in draws if values["kind"] == "sinc"]
    assert abs(len(sincs) / COUNT - 0.8) < share_tolerance(0.8)
    assert all(cutoffs[0] <= values["cutoff"] < cutoffs[1] for values in sincs)
    for kernel, values in draws[:100]:
        if values["kind"] == "delta":
            assert torch.equal(kernel, delta_kernel(values["size"]))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"sizes": (7, 8)}, "odd and at least 1, but 8"),
        ({"sizes": ()}, "at least one kernel size"),
        ({"sinc_probability": 1.5}, "sinc_probability should be a probability"),
        ({"sinc_cutoff_small": (0.0, 1.0)}, "sinc_cutoff_small should be a range"),
        ({"sinc_cutoff_large": (1.0, 4.0)}, "sinc_cutoff_large should be a range"),
        ({"weights": (1.0, 1.0)}, "weights should be 6 weights"),
        ({"sigma": (0.0, 1.0)}, "sigma should be a range"),
        ({"theta": (0.0, 7.0)}, "theta should be a range"),
        ({"beta_generalized": (1.5, 4.0)}, "beta_generalized should be a range"),
        ({"beta_plateau": (0.5, 0.9)}, "beta_plateau should be a range"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(BIRError, match=message):
        MixedKernels(**wrong)
