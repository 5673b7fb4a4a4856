"""All that is said of a picture. The network is a random one but for its last layer, which says one
thing of every patch."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bir_core.errors import BIRError
from bir_core.estimate import Measured, estimate, estimate_file
from bir_core.estimate.words import in_words
from bir_core.networks.estimator import Estimator, EstimatorConfig, draw_weights


def saying(*values, jpeg=3.0, grey=3.0, spread=-1.0):
    """A network that answers with these values in its units."""
    model = Estimator(EstimatorConfig(features=1, hidden=4))
    draw_weights(model, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.judge[-1].bias.copy_(torch.tensor([*values, *[spread] * 4, grey, jpeg]))
    return model.eval()


DAMAGED = (1.0, 1.2, 2.0, 2.0)  # pixels, ten steps, 25 of quality, times


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_pictures_of_any_size(height, width):
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = estimate(image, saying(*DAMAGED))
    assert found.blur_sigma.value == pytest.approx(1) and found.noise_sigma.value == pytest.approx(
        12
    )
    assert found.jpeg_quality.value == pytest.approx(50) and found.enlargement.value == 2
    assert found.noise_grey == pytest.approx(0.953, abs=1e-3)
    assert all(np.isfinite(value).all() for value in found.numbers().values() if value is not None)


def test_values_stay_in_their_bounds():
    found = estimate(torch.rand(1, 3, 9, 9), saying(-1.0, -1.0, 9.0, 0.0))
    assert (found.blur_sigma.value, found.noise_sigma.value) == (0, 0)
    assert (found.jpeg_quality.value, found.enlargement.value) == (100, 1)


def test_without_jpeg_there_is_no_quality():
    numbers = estimate(torch.rand(1, 3, 40, 40), saying(*DAMAGED, jpeg=-3.0)).numbers()
    assert numbers["jpeg_quality"] is None and numbers["jpeg_quality_spread"] is None
    assert {"blur_sigma", "noise_sigma", "enlargement", "grey", "contrast"} <= set(numbers)
    assert all(f"{name}_spread" in numbers for name in ("blur_sigma", "grey", "contrast"))


@pytest.mark.parametrize(
    ("of_file", "jpeg", "expected"),
    [(40.0, 3.0, 40), (75.0, 3.0, 75), (95.0, 3.0, 50), (95.0, -3.0, 95)],
)
def test_the_file_counts_unless_the_pixels_saw_worse(of_file, jpeg, expected):
    network = saying(*DAMAGED, jpeg=jpeg)  # 50, give or take 9.2
    found = estimate(torch.rand(1, 3, 40, 40), network, file_quality=Measured(of_file, 0.0))
    assert found.jpeg_quality.value == pytest.approx(expected) and found.jpeg == 1
    again = "saved again with 95" in "\n".join(in_words(found))
    assert again == (expected == 50)


def test_the_tables_of_a_file_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=33)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    network = saying(*DAMAGED, jpeg=-3.0)
    assert estimate_file(tmp_path / "a.jpg", network).jpeg_quality == Measured(33.0, 0.0)
    found = estimate_file(tmp_path / "a.png", network)
    assert found.jpeg_quality is None and found.grey == Measured(1.0, 0.0)


def test_words_of_a_good_and_of_a_bad_picture():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    good = in_words(estimate(image, saying(0.1, 0.05, 2.0, 1.0, jpeg=-3.0)))
    assert len(good) == 7 and sum("to see" in line for line in good) == 5
    assert any(line.startswith("edges: sharp") for line in good)
    faded = image.mean(1, keepdim=True).repeat(1, 3, 1, 1) * 0.3 + 0.4
    bad = "\n".join(in_words(estimate(faded, saying(*DAMAGED))))
    for words in ("blur: some, sigma 1.00", "noise: some, grey", "quality 50", "2.0 (give or take"):
        assert words in bad
    assert "the picture is grey" in bad and "faded" in bad


def test_a_cast_is_named():
    found = estimate(torch.rand(1, 3, 32, 32), saying(*DAMAGED))
    red = dataclasses.replace(found, colour_cast=(20.0, -10.0, -10.0))
    assert any("much red on the whole, by 20" in line for line in in_words(red))


def test_no_picture_is_refused():
    with pytest.raises(BIRError, match="at least one picture"):
        estimate(torch.rand(1, 3, 0, 5), saying(*DAMAGED))
