"""Thin holes: filled roughly, and by a network that corrects that."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bir_core.diffir.restore import restore
from bir_core.diffir.rough_filling import fill_roughly
from bir_core.diffir.streaming import stream
from bir_core.estimate.scratches import damage_mask
from bir_core.networks.diffir import DiffIRStage2, draw_noise
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.old_photo.filling import fill

SMALL = DiffIRConfig(
    task="inpainting",
    dim=8,
    num_blocks=(1, 1, 1, 1),
    num_refinement_blocks=1,
    n_encoder_res=1,
    encoder_features=4,
)


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return DiffIRStage2(SMALL).eval()


def holes(height, width, seed=0, share=0.2):
    return (
        torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(seed)) < share
    ).float()


def ramp(height, width):
    y, x = torch.linspace(0.1, 0.9, height)[:, None], torch.linspace(0, 0.1, width)
    return (y + x).expand(1, 3, height, width).contiguous()


def test_a_slope_is_continued_into_a_scratch():
    image = ramp(64, 80)
    hole = torch.zeros(1, 1, 64, 80)
    hole[..., 20:25, 5:70], hole[..., 5:60, 40:43] = 1, 1
    filled = fill_roughly(image * (1 - hole), hole)
    assert torch.equal(filled * (1 - hole), image * (1 - hole))
    assert float((filled - image).abs().max()) < 0.02


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 9))
def test_rough_filling_keeps_the_rest_and_the_range(height, width, share, seed):
    image = 0.2 + 0.6 * torch.rand(
        2, 3, height, width, generator=torch.Generator().manual_seed(seed)
    )
    hole = holes(height, width, seed, share).expand(2, -1, -1, -1)
    filled = fill_roughly(image, hole)
    assert torch.equal(torch.where(hole > 0, image, filled), image)
    assert float(filled.amax()) <= float(image.amax()) + 1e-6
    if not hole.all():
        assert float(filled.amin()) >= float(image.amin()) - 1e-6
    alone = fill_roughly(image[1:], hole[1:])
    torch.testing.assert_close(filled[1:], alone)


def test_what_is_in_the_hole_does_not_count():
    image, hole = torch.rand(1, 3, 30, 33), holes(30, 33)
    other = torch.where(hole > 0, torch.rand(1, 3, 30, 33), image)
    torch.testing.assert_close(fill_roughly(image, hole), fill_roughly(other, hole))
    model = network()
    torch.testing.assert_close(
        restore(image, model, mask=hole) * hole, restore(other, model, mask=hole) * hole
    )


@torch.no_grad()
def test_streaming_equals_the_plain_network():
    model, noise = network(), draw_noise(1, 0)
    lq = torch.rand(1, 4, 40, 48, generator=torch.Generator().manual_seed(1))
    for strip in (3, 64):
        torch.testing.assert_close(
            stream(model, lq, noise, strip=strip), model(lq, noise), rtol=1e-4, atol=1e-5
        )


@torch.no_grad()
def test_a_network_without_correction_leaves_the_rough_filling():
    model = network()
    torch.nn.init.zeros_(model.G.output.weight)
    image, hole = torch.rand(1, 3, 24, 31), holes(24, 31)
    torch.testing.assert_close(fill(image, hole, model), fill_roughly(image, hole))
    assert fill(image, torch.zeros_like(hole), model) is image


def test_wide_damage_is_left_out():
    probability = torch.zeros(1, 1, 80, 80)
    probability[..., 10:14, :], probability[..., 30:70, 30:70] = 1, 1
    thin = damage_mask(probability, grow=2, widest=20)
    assert bool(thin[..., 8:16, :].all()) and not thin[..., 35:65, 35:65].any()
    assert torch.equal(damage_mask(probability, grow=2)[..., :20, :], thin[..., :20, :])
    assert not damage_mask(probability, grow=2, widest=4).any()
