"""Keep, restore and invent: one mask for guidance, control and blending."""

import pytest
import torch
from diffbir_models import tiny_networks
from hypothesis import given
from hypothesis import strategies as st

from bir_core.diffbir.color_fix import fix_colors
from bir_core.diffbir.fidelity import of_fidelity
from bir_core.diffbir.masks import (
    PAINTED,
    blending_share,
    control_share,
    latent_mask,
    mask_values,
    weigh,
)
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffusion.guidance import RestorationGuidance, guided
from bir_core.errors import BIRError

SHARES = st.floats(0, 1, width=32)
QUICK = {"steps": 2, "short_side": 0, "tile": 0, "vae_tile": 0, "sampler": "euler", "cfg": 4.0}


def test_mask_comes_to_the_latents_of_the_padded_image():
    mask = torch.zeros(1, 100, 200)
    mask[:, :, 100:] = 1
    latents = latent_mask(mask, 100, 200)
    assert latents.shape == (1, 1, 16, 32)  # 128 x 256 pixels
    assert torch.equal(latents[..., :12], torch.zeros(1, 1, 16, 12))
    assert torch.equal(latents[..., 13:25], torch.ones(1, 1, 16, 12))
    half = latent_mask(mask[:, ::2, ::2], 100, 200)
    torch.testing.assert_close(half, latents, rtol=0, atol=0.1)


def test_mask_of_other_proportions_is_said():
    with pytest.raises(BIRError, match="200 x 100, but 100 x 100 came"):
        latent_mask(torch.zeros(1, 100, 100), 100, 200)


@pytest.mark.parametrize("painted", PAINTED)
def test_what_is_painted(painted):
    values = mask_values(torch.tensor([0.0, 0.5, 1.0]), painted).tolist()
    expected = {"grey": [0, 0.5, 1], "keep": [0.5, 0.75, 1], "invent": [0.5, 0.25, 0]}
    assert values == expected[painted]


@given(SHARES, SHARES, st.floats(0, 1))
def test_nothing_falls_where_the_mask_rises(one, other, blending):
    low, high = (torch.tensor(value) for value in sorted((one, other)))
    assert control_share(low) <= control_share(high) <= 1
    assert 0 <= blending_share(low, blending) <= blending_share(high, blending) + 1e-6 <= 1 + 1e-6
    image, made = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    kept = [
        guided(
            made,
            RestorationGuidance(latent=image, scale=0.001, mask=value.expand(1, 1, 8, 8)),
            sigma=1.0,
            sigma_next=0.5,
            timestep=500,
        ).mean()
        for value in (low, high)
    ]
    assert kept[0] >= kept[1] - 1e-6


def test_the_three_places_have_their_values():
    invent, restore, keep = torch.tensor([0.0, 0.5, 1.0])
    assert float(control_share(invent)) == pytest.approx(of_fidelity(0).strength)
    assert control_share(restore) == control_share(keep) == 1
    shares = [float(blending_share(value, 0.25)) for value in (invent, restore, keep)]
    assert shares == [0, 0.25, 1]


def test_residuals_of_any_resolution_are_weighed_by_the_mean_of_their_places():
    share = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    residual = torch.ones(2, 5, 4, 6)
    weighed = weigh(residual, share)
    means = share.reshape(2, 1, 4, 4, 6, 4).mean((3, 5))
    torch.testing.assert_close(weighed, means.expand(-1, 5, -1, -1))
    assert torch.equal(weigh(residual, torch.ones_like(share)), residual)


@pytest.fixture(scope="module")
def pipeline():
    return DiffBIR(**tiny_networks(), version="v2")


def picture(count=1):
    generator = torch.Generator().manual_seed(4)
    small = torch.rand(count, 3, 6, 9, generator=generator)
    return torch.nn.functional.interpolate(small, (64, 192), mode="bilinear")


def restored(pipeline, image, mask=None, seed=0, **settings):
    prompts = torch.randn(2, 1, 4, 32, generator=torch.Generator().manual_seed(1))
    return pipeline(
        image,
        *prompts,
        upscale_by=1.0,
        settings=DiffBIRSettings(**{**QUICK, **settings}),
        seed=seed,
        mask=mask,
    )


@pytest.mark.parametrize("settings", [{}, {"guidance": 0.01, "blending": 0.25, "tile": 64}])
def test_restoring_everywhere_is_no_mask(pipeline, settings):
    plain = restored(pipeline, picture(), **settings)
    grey = restored(pipeline, picture(), torch.full((1, 64, 192), 0.5), **settings)
    torch.testing.assert_close(grey, plain, rtol=0, atol=1e-6)


def test_kept_places_are_those_of_stage_1_and_invented_ones_change(pipeline):
    """Without guidance too. Stage 1 is the picture itself here."""
    mask = torch.full((1, 64, 192), 0.5)
    mask[..., :64], mask[..., 128:] = 1, 0
    plain = restored(pipeline, picture())
    masked = restored(pipeline, picture(), mask)
    assert torch.equal(masked[..., :64], picture()[..., :64])
    assert (plain - picture())[..., :64].abs().mean() > 1e-2
    assert (masked - plain)[..., 128:].abs().mean() > 1e-4
    guided = restored(pipeline, picture(), mask, guidance=0.05)
    assert torch.equal(guided[..., :64], picture()[..., :64])


def test_invented_everywhere_is_the_weaker_control(pipeline):
    mask = torch.zeros(1, 64, 192)
    masked = restored(pipeline, picture(), mask, guidance=0.05, blending=0.5)
    weaker = restored(pipeline, picture(), strength=of_fidelity(0).strength)
    torch.testing.assert_close(masked, weaker, rtol=0, atol=1e-5)


@pytest.mark.parametrize("tile", [0, 64])
def test_each_picture_of_a_batch_has_its_own_mask(pipeline, tile):
    batch = picture(2)
    masks = torch.rand(2, 1, 64, 192, generator=torch.Generator().manual_seed(2))
    together = restored(pipeline, batch, masks, guidance=0.01, tile=tile)
    for index in range(2):
        alone = restored(pipeline, batch[[index]], masks[[index]], index, guidance=0.01, tile=tile)
        torch.testing.assert_close(together[[index]], alone, rtol=0, atol=1e-5)


def test_a_mask_in_the_colour_fix_keeps_the_reference():
    generator = torch.Generator().manual_seed(3)
    content, style = torch.rand(2, 1, 3, 8, 8, generator=generator)
    mask = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    fixed = fix_colors(content, style, None, 0.5, mask)
    assert torch.equal(fixed[..., 0], content[..., 0])
    assert torch.equal(fixed[..., -1], style[..., -1])
    share = ((fixed - content) / (style - content)).mean((0, 1, 2))
    assert (share.diff() > 0).all()
