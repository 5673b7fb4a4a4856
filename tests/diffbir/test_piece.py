"""A piece of a picture, with the noise, the guidance and the stage 1 of the whole."""

import pytest
import torch
from diffbir_models import tiny_networks
from hypothesis import given
from hypothesis import strategies as st

from bir_core.diffbir.piece import (
    Piece,
    guidance_of_piece,
    in_latents,
    piece_at,
    resized_tile,
    seen,
    whole_of,
)
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.diffusion.guidance import RestorationGuidance
from bir_core.diffusion.noise import Draws
from bir_core.errors import BIRError
from bir_core.tiling import Tile

QUICK = {"steps": 3, "short_side": 0, "tile": 64, "overlap": 0, "vae_tile": 0, "cfg": 4.0}
SIDES = st.integers(1, 700)


@given(SIDES, SIDES, st.floats(0, 1), st.floats(0, 1), st.integers(1, 600))
def test_pieces_lie_within_the_padded_picture_on_its_grid(height, width, y, x, side):
    whole = whole_of(height, width)
    tile = Piece(y, x, side).tile(height, width)
    assert all(number % 64 == 0 for number in (*tile, *whole))
    assert tile.y + tile.height <= whole.height and tile.x + tile.width <= whole.width
    assert tile.height == min(-(-side // 64) * 64, whole.height)
    # At the most half a step of the grid from where it was wanted, or at the edge.
    for start, length, middle, extent, end in (
        (tile.y, tile.height, y * height, height, whole.height),
        (tile.x, tile.width, x * width, width, whole.width),
    ):
        near = abs(start + length / 2 - middle) <= 32
        assert near or start in (0, end - length), extent
    part = seen(tile, height, width)
    assert part.height >= 1 and part.width >= 1
    size = (height, width)
    assert resized_tile(Tile(0, 0, *size), size, (2 * height, 3)) == Tile(0, 0, 2 * height, 3)
    assert resized_tile(part, size, size) == part


def test_a_corner_in_pixels_is_that_corner():
    assert piece_at(128, 64, 512, 1024, 2048).tile(1024, 2048) == Tile(64, 128, 512, 512)
    assert piece_at(130, 90, 500, 1024, 2048).tile(1024, 2048) == Tile(64, 128, 512, 512)
    with pytest.raises(BIRError, match="within the result, 2048 x 1024 pixels, but 2048,0"):
        piece_at(2048, 0, 512, 1024, 2048)
    with pytest.raises(BIRError, match="at least 1 pixel"):
        Piece(0.5, 0.5, 0)


@pytest.mark.parametrize("source", [False, True])
def test_the_noise_of_a_piece_is_that_of_its_place(source):
    tile, size = Tile(8, 16, 8, 16), (24, 40)
    generator = torch.Generator().manual_seed(7)

    def of_user(like):
        return torch.randn(like.shape, generator=generator)

    def drawn(place, like):
        generator.manual_seed(7)
        draws = Draws((3, 4), of_user if source else None, place)
        sigmas, intervals = torch.tensor([5.0, 2.0, 0.5, 0.0]), [(5.0, 2.0), (2.0, 0.5)]
        first = [draws(like)]
        with draws.of_sampler(like, sigmas, intervals) as steps:
            first += [steps(*interval) for interval in intervals]
        draws.rewind()
        return [*first, draws(like)]

    whole = drawn(None, torch.zeros(2, 4, *size))
    part = drawn((tile, size), torch.zeros(2, 4, 8, 16))
    for ours, theirs in zip(part, whole, strict=True):
        assert torch.equal(ours, tile.crop(theirs))


def test_the_guidance_pulls_a_piece_as_the_whole():
    generator = torch.Generator().manual_seed(1)
    image, estimate = torch.randn(2, 1, 4, 24, 40, generator=generator)
    tile = Tile(8, 16, 8, 16)
    whole = RestorationGuidance(latent=image, scale=0.3).pull(estimate)
    scale = guidance_of_piece(0.3, tile, Tile(0, 0, 24, 40))
    part = RestorationGuidance(latent=tile.crop(image), scale=scale).pull(tile.crop(estimate))
    torch.testing.assert_close(part, tile.crop(whole))


class Watched(DiffBIR):
    """Keeps the sampled latent."""

    def sample(self, *arguments, **more):
        self.sampled = super().sample(*arguments, **more)
        return self.sampled


@pytest.fixture(scope="module")
def pipeline():
    return Watched(**tiny_networks(), version="v2.1")


def picture():
    small = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(4))
    return torch.nn.functional.interpolate(small, (120, 180), mode="bilinear")


def restored(pipeline, piece=None, seed=0, upscale_by=1.0, mask=None, **settings):
    prompts = torch.randn(2, 1, 4, 32, generator=torch.Generator().manual_seed(1))
    out = pipeline(
        picture(),
        *prompts,
        upscale_by=upscale_by,
        settings=DiffBIRSettings(**{**QUICK, **settings}),
        seed=seed,
        mask=mask,
        piece=piece,
    )
    return out, pipeline.sampled


def test_a_piece_of_everything_is_the_whole(pipeline):
    more = {"guidance": 0.01, "blending": 0.2, "mask": torch.rand(1, 1, 120, 180)}
    whole, _ = restored(pipeline, **more)
    piece, _ = restored(pipeline, Piece(0.2, 0.9, 192), **more)
    assert torch.equal(piece, whole)


@pytest.mark.parametrize("sampler", ["dpmpp_3m_sde", "spaced"])
def test_a_tile_alone_is_sampled_as_in_the_whole(pipeline, sampler):
    """Without the control, whose condition a VAE of the whole sees differently."""
    options = {"sampler": sampler, "strength": 0.0}
    _, whole = restored(pipeline, **options)
    piece = Piece(0.9, 0.5, 64)
    tile = in_latents(piece.tile(120, 180))
    assert tile == Tile(8, 8, 8, 8)
    out, part = restored(pipeline, piece, **options)
    assert out.shape == (1, 3, 120 - 64, 64)  # without the padding
    torch.testing.assert_close(part, tile.crop(whole), rtol=1e-4, atol=1e-4)


def test_a_piece_is_near_the_whole(pipeline):
    """With everything, and nearer than with another noise. Where the picture is kept it is
    equal, though the finished picture has another size than the sampled one."""
    mask = torch.full((1, 1, 120, 180), 0.5)
    mask[..., 64:96] = 1
    options = {"guidance": 0.01, "mask": mask}
    whole, _ = restored(pipeline, **options)
    piece = piece_at(64, 0, 64, 120, 180)
    part, _ = restored(pipeline, piece, **options)
    other, _ = restored(pipeline, piece, seed=5, **options)
    there = whole[..., :64, 64:128]
    assert torch.equal(part[..., :32], there[..., :32])
    assert (part - there).abs().mean() < 0.6 * (part - other).abs().mean()
    smaller, _ = restored(pipeline, piece, upscale_by=0.5, short_side=120)
    assert smaller.shape == (1, 3, 32, 32)
