import pytest
import torch

from bir_core.degradations.draws import (
    chance,
    choose,
    choose_evenly,
    require_probability,
    require_range,
    require_weights,
    uniform,
    uniform_per_sample,
)
from bir_core.errors import BIRError

COUNT = 4000
# Five standard deviations of a share of COUNT draws, at most.
SHARE_TOLERANCE = 5 * 0.5 / COUNT**0.5


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_uniform_fills_its_range_evenly(generator):
    values = torch.tensor([uniform((-2.0, 6.0), generator) for _ in range(COUNT)])
    assert values.min() >= -2 and values.max() < 6
    shares = torch.histc(values, bins=8, min=-2, max=6) / COUNT
    assert (shares - 1 / 8).abs().max() < SHARE_TOLERANCE


def test_uniform_per_sample_fills_its_range_evenly(generator):
    values = uniform_per_sample((30.0, 95.0), COUNT, generator)
    assert values.shape == (COUNT,)
    assert values.min() >= 30 and values.max() < 95
    shares = torch.histc(values, bins=5, min=30, max=95) / COUNT
    assert (shares - 1 / 5).abs().max() < SHARE_TOLERANCE


def test_a_range_of_zero_width_is_a_constant(generator):
    assert uniform((3.0, 3.0), generator) == 3.0
    assert uniform_per_sample((3.0, 3.0), 4, generator).tolist() == [3.0] * 4


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.8, 1.0])
def test_chance_has_its_probability(generator, probability):
    share = sum(chance(probability, generator) for _ in range(COUNT)) / COUNT
    tolerance = SHARE_TOLERANCE if 0 < probability < 1 else 0
    assert abs(share - probability) <= tolerance


def test_chance_draws_once_whatever_the_probability():
    states = []
    for probability in (0.0, 0.5, 1.0):
        generator = torch.Generator().manual_seed(1)
        chance(probability, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])


def test_choose_follows_the_weights_and_never_takes_a_weight_of_zero(generator):
    options, weights = ("a", "b", "c", "d"), (0.0, 2.0, 6.0, 0.0)
    drawn = [choose(options, weights, generator) for _ in range(COUNT)]
    assert set(drawn) == {"b", "c"}
    assert abs(drawn.count("b") / COUNT - 0.25) < SHARE_TOLERANCE


def test_choose_evenly_is_even(generator):
    drawn = [choose_evenly((7, 9, 11, 13), generator) for _ in range(COUNT)]
    for option in (7, 9, 11, 13):
        assert abs(drawn.count(option) / COUNT - 0.25) < SHARE_TOLERANCE


@pytest.mark.parametrize(
    "check",
    [
        lambda: require_range("sigma", (3, 1), 0, 10),
        lambda: require_range("sigma", (-1, 1), 0, 10),
        lambda: require_range("sigma", (1, 11), 0, 10),
        lambda: require_range("sigma", (float("nan"), 1), 0, 10),
        lambda: require_probability("sigma", 1.1),
        lambda: require_probability("sigma", -0.1),
        lambda: require_weights("sigma", (1, 1), 3),
        lambda: require_weights("sigma", (1, -1, 1), 3),
        lambda: require_weights("sigma", (0, 0, 0), 3),
    ],
)
def test_bad_parameters_are_named(check):
    with pytest.raises(BIRError, match="^sigma should be .* came; change the preset"):
        check()
