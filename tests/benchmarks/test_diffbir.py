"""What `bir bench` compares of DiffBIR, on small networks."""

import pytest
import torch

from bir_core.benchmarks.comparing import compare
from bir_core.benchmarks.diffbir import Stage2, decode_sides, encode_sides, step_sides
from bir_core.benchmarks.overlapping_tiles import decode_overlapping
from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.cli import main
from bir_core.networks.autoencoder import VAEConfig
from bir_core.networks.unet import UNetConfig

CPU = torch.device("cpu")
SMALL_UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1,),
    num_head_channels=16,
    context_dim=16,
)


@pytest.fixture(scope="module")
def stage2() -> Stage2:
    vae = VAEConfig(ch=32, num_res_blocks=1)
    return Stage2(64, 128, CPU, SMALL_UNET, vae)


def by_name(sides):
    return {side.side: side for side in compare(sides, CPU, 1)}


def test_sides_do_what_they_say(stage2: Stage2) -> None:
    step = by_name(step_sides(stage2, 64, compile="eager"))
    assert step["cfg"].difference == 0
    assert step["compiled by eager"].difference < 1e-5
    assert step["guided in latents"].difference > 1e-3
    assert step["guided in rgb"].difference > 1e-6
    assert step["in tiles of 64"].difference > 1e-6
    whole, tiles = step["guided in rgb"], step["guided in rgb, VAE in tiles of 64"]
    assert whole.extra > 2 * step["cfg"].extra
    assert tiles.extra < 0.5 * whole.extra
    assert abs(tiles.difference - whole.difference) < 1e-4 * whole.difference
    assert [side.name for side in step_sides(stage2)] == ["cfg"]


def test_exact_tiles_equal_the_whole_and_overlapping_ones_do_not(stage2: Stage2) -> None:
    decode, encode = by_name(decode_sides(stage2, 64)), by_name(encode_sides(stage2, 64))
    for found in (decode, encode):
        assert found["exact tiles of 64"].difference < 1e-4
        # Maps wait between the passes, but less is there at a time.
        assert found["exact tiles of 64"].extra < found["whole"].extra
    assert decode["overlapping tiles of 64"].difference > 1e-2


def test_overlapping_tiles_of_what_is_local_are_the_whole() -> None:
    """Also where the sides of the latent are smaller than a tile, or no multiple of its step."""
    sizes = []

    def decode(latent: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(latent.shape[-2:]))
        return torch.nn.functional.interpolate(latent[:, :3], scale_factor=8)

    latent = torch.rand(1, 4, 13, 29, generator=torch.Generator().manual_seed(0))
    tiled = decode_overlapping(decode, latent, tile=64, overlap=16)
    assert set(sizes) == {(8, 8), (4, 16), (13, 4)}
    assert torch.allclose(tiled, decode(latent), atol=1e-6)


def test_a_control_that_has_a_say(stage2: Stage2) -> None:
    both, hints = stage2.x.expand(2, -1, -1, -1), stage2.hint.expand(2, -1, -1, -1)
    control = stage2.control(both, hints, both.new_full((2,), 500.0), stage2.context)
    assert all(float(residual.abs().max()) > 0 for residual in control)


def test_peak_of_tensors() -> None:
    x = torch.ones(1000)  # 4000 bytes, there before the call

    def call() -> torch.Tensor:
        first = x + 1
        second = first * 2
        second.view(10, 100).add_(x.view(10, 100))
        del first
        return torch.cat([second, second])

    result, peak = peak_tensors_of(call)
    assert peak == 12000  # second and the result; before it first and second, 8000
    assert torch.equal(result, torch.full((2000,), 5.0))


def test_peak_counts_what_gradients_keep() -> None:
    x = torch.ones(1000, requires_grad=True)
    _, without = peak_tensors_of(lambda: x.detach().exp().exp().exp())
    _, kept = peak_tensors_of(lambda: torch.autograd.grad(x.exp().exp().exp().sum(), x)[0])
    assert without == 8000
    assert kept >= 12000


def test_one_tile_is_the_whole_step(stage2: Stage2) -> None:
    assert torch.equal(stage2.tiled_step(128), stage2.step())


def test_a_size_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--diffbir", "--size", "100x128"]) == 2
    assert "divide by 64 for DiffBIR, but 100x128 came" in capsys.readouterr().err
