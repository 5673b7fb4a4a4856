"""The estimator's network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.errors import BIRError
from bir_core.networks.estimator import Estimator, EstimatorConfig, draw_weights


def small(last=0.3):
    model = Estimator(EstimatorConfig(features=2, hidden=6))
    draw_weights(model, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(
        model.judge[-1].weight, std=last, generator=torch.Generator().manual_seed(1)
    )
    return model.eval()


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3))
def test_it_takes_patches_of_any_size(height, width, batch):
    patches = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    found = small()(patches)
    assert found.values.shape == found.spreads.shape == (batch, 4)
    assert found.logits.shape == (batch, 2)
    assert bool((found.spreads > 0).all()) and bool(found.values.isfinite().all())


@torch.no_grad()
def test_brightness_alone_says_nothing():
    model = small()
    patch = 0.5 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shifted = patch + torch.tensor([0.1, 0.3, 0.2]).view(1, 3, 1, 1)
    for one, other in zip(vars(model(patch)).values(), vars(model(shifted)).values(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    rough = model(patch * 0.5)
    assert not torch.allclose(rough.values, model(patch).values, rtol=1e-2)


@torch.no_grad()
def test_a_drawn_network_begins_with_equal_answers():
    model = Estimator(EstimatorConfig())
    draw_weights(model, torch.Generator().manual_seed(0))
    found = model(torch.rand(2, 3, 16, 16))
    assert bool((found.values == 0).all()) and bool((found.logits == 0).all())
    assert found.spreads[0].tolist() == [1.0, 10.0, 25.0, 1.0]
    assert sum(parameter.numel() * 4 for parameter in model.parameters()) < 1_000_000


def test_no_features_are_refused():
    with pytest.raises(BIRError, match="at least 1 feature"):
        EstimatorConfig(features=0)
