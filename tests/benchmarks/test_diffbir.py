"""What `bir bench --diffbir` compares, on small networks."""

import pytest
import torch

from bir_core.benchmarks.diffbir import Stage2, compare, comparisons
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
    assert all(side.seconds > 0 for sides in found.values() for side in sides.values())


def test_one_tile_is_the_whole_step(stage2: Stage2) -> None:
    assert torch.equal(stage2.tiled_step(128), stage2.step())


def test_a_size_that_does_not_fit_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--diffbir", "--size", "100x128"]) == 2
    assert "divide by 64 for --diffbir, but 100x128 came" in capsys.readouterr().err
