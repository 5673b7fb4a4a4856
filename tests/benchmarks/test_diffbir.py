"""What `bir bench --diffbir` compares, on small networks."""

import pytest
import torch

from bir_core.benchmarks.diffbir import Stage2, compare, comparisons
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


def test_sides_do_what_they_say(stage2: Stage2) -> None:
    found = {
        name: {side.side: side for side in compare(sides, CPU, 1)}
        for name, sides in comparisons(stage2, 64).items()
    }
    step = found["step"]
    assert step["unguided"].difference == 0
    assert step["guided in latents"].difference > 1e-3
    assert step["guided in rgb"].difference > 1e-6
    assert step["in tiles of 64"].difference > 1e-6
    for name in ("decode", "encode"):
        assert found[name]["in tiles of 64"].difference < 1e-4
        # Maps wait between the passes, but less is there at a time.
        assert found[name]["in tiles of 64"].extra < found[name]["whole"].extra
    whole, tiles = step["guided in rgb"], step["guided in rgb, VAE in tiles of 64"]
    assert whole.extra > 2 * step["unguided"].extra
    assert tiles.extra < 0.5 * whole.extra
    assert abs(tiles.difference - whole.difference) < 1e-4 * whole.difference
    assert all(side.seconds > 0 for sides in found.values() for side in sides.values())


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
    assert "divide by 64 for --diffbir, but 100x128 came" in capsys.readouterr().err
