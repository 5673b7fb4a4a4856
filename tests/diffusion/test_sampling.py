"""The table of samplers: which numbers each has, and which are refused."""

import inspect

import pytest
import torch

from bir_core.diffusion.sampling import SAMPLERS, named_sampler
from bir_core.errors import BIRError

EVERY = sorted({name for row in SAMPLERS.values() for name in row.options})


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_row_names_what_its_function_takes(name):
    row, parameters = SAMPLERS[name], inspect.signature(SAMPLERS[name].function).parameters
    numbers = {each.name for each in parameters.values() if isinstance(each.default, float)}
    assert set(row.options) == numbers
    assert row.draws == ("noise_sampler" in parameters)


@pytest.mark.parametrize("name", SAMPLERS)
def test_its_options_are_taken_and_others_refused(name):
    sigmas = torch.tensor([2.0, 1.0, 0.5])
    for option in EVERY:
        if option not in SAMPLERS[name].options:
            with pytest.raises(BIRError, match=f"The sampler {name} has the options .*'{option}'"):
                named_sampler(name, {option: 1.0})
            continue
        latent = named_sampler(name, {option: 1.0}).run(
            lambda x, sigma: x / 2,
            torch.ones(1, 1, 2, 2),
            sigmas,
            noise_sampler=lambda sigma, sigma_next: torch.ones(1, 1, 2, 2),
            options={option: 1.0},
        )
        assert torch.isfinite(latent).all()


@pytest.mark.parametrize("order", [0, 1.5, 9, float("nan")])
def test_orders_that_lms_cannot_have(order):
    with pytest.raises(BIRError, match="whole number from 1 to 8"):
        named_sampler("lms", {"order": order})


@pytest.mark.parametrize("name", [name for name, row in SAMPLERS.items() if row.brownian])
@pytest.mark.parametrize("last", [0.0, 0.5])
def test_a_row_foresees_what_its_steps_ask_for(name, last):
    sigmas, asked = torch.tensor([1e4, 30.0, 2.0, last]), []

    def noise(sigma, sigma_next):
        asked.append((sigma, sigma_next))
        return torch.ones(1, 1, 2, 2)

    SAMPLERS[name].run(
        lambda x, sigma: x / 2, torch.ones(1, 1, 2, 2), sigmas, noise_sampler=noise, options={}
    )
    assert asked == SAMPLERS[name].path(sigmas)
