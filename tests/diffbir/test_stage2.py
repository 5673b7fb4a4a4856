"""Stage 2 as a whole is tested by `test_diffbir.py`."""

import pytest
import torch
from diffbir_models import tiny_networks

from bir_core.diffbir import stage2
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffbir.stage2 import Stage2
from bir_core.diffusion.schedules import sd_alphas_cumprod


@pytest.mark.parametrize("loss", ["mse", "w_mse"])
def test_guidance_on_pixels_is_the_same_in_tiles(loss, monkeypatch):
    """There and back through the decoder, for a picture of two by two tiles."""
    part = Stage2(**tiny_networks(), alphas_cumprod=sd_alphas_cumprod(), parameterization="eps")
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 128, 128, generator=generator)
    latent, estimate = torch.randn(2, 2, 4, 16, 16, generator=generator)
    settings = DiffBIRSettings(guidance=1.0, guidance_space="rgb", guidance_loss=loss)
    tiles = []
    decode = stage2.decode_with_gradient

    def watched(vae, x, *, tile):
        tiles.append(tile)
        return decode(vae, x, tile=tile)

    monkeypatch.setattr(stage2, "decode_with_gradient", watched)
    whole, in_tiles, fits = (
        part._guidance(latent, image, settings, tile).pull(estimate) for tile in (0, 64, 128)
    )
    assert tiles == [64]
    scale = float(whole.abs().max())
    assert scale > 0
    torch.testing.assert_close(in_tiles, whole, rtol=0, atol=1e-5 * scale)
    assert torch.equal(fits, whole)
