"""The network that finds damage, and its files."""

import pytest
import torch

from bir_core import inspect, load_model
from bir_core.checkpoints import save_checkpoint
from bir_core.errors import BIRError
from bir_core.networks.damage import DamageConfig, DamageFinder, draw_weights

SMALL = DamageConfig(features=(4, 6, 8))


def finder(config=SMALL, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DamageFinder(config).eval().requires_grad_(False)


def picture(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_it_gives_a_logit_for_each_pixel():
    assert SMALL.size_multiple == 8 and DamageConfig().size_multiple == 16
    assert finder()(picture(2, 3, 24, 40)).shape == (2, 1, 24, 40)
    assert finder(DamageConfig())(picture(1, 3, 16, 16)).shape == (1, 1, 16, 16)


def test_its_size_is_that_of_a_small_network():
    parameters = sum(value.numel() for value in finder(DamageConfig()).parameters())
    assert 0.2e6 < parameters < 0.7e6


def test_a_part_of_a_picture_gives_what_the_whole_does():
    """Nothing is normalised over places: beyond the reach of the border, parts are exact."""
    network, whole = finder(), picture(1, 3, 512, 64)
    reach = 208  # 3 blocks at an eighth of the size with 1 + 2 + 4 + 3 pixels, and what follows
    part = network(whole[..., 64:, :])
    assert torch.allclose(network(whole)[..., 64 + reach :, :], part[..., reach:, :], atol=1e-5)


def test_it_sees_far():
    image = picture(1, 3, 256, 256).requires_grad_()
    finder(DamageConfig())(image)[..., 128, 128].backward()
    rows = image.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert int(rows.max() - rows.min()) >= 200


@pytest.mark.parametrize("features", [(4, 6), (4, 6, 8), (24, 40, 64, 80)])
def test_the_file_says_what_it_is(features, tmp_path):
    network = finder(DamageConfig(features=features))
    save_checkpoint(network, tmp_path / "model.safetensors")
    info = inspect(tmp_path / "model.safetensors")
    assert (info.architecture, info.task, info.scale) == ("damage_finder", "detection", 1)
    assert info.config == network.config
    image = picture(1, 3, 16, 32)
    assert torch.equal(load_model(tmp_path / "model.safetensors")(image), network(image))


@pytest.mark.parametrize("features", [(), (4,), (4, 0)])
def test_too_few_levels_or_channels_are_refused(features):
    with pytest.raises(BIRError, match="two levels or more"):
        DamageConfig(features=features)


def test_the_start_finds_next_to_nothing_and_is_drawn_from_the_generator():
    first, second = finder(seed=1), finder(seed=2)
    for network in (first, second):
        draw_weights(network, torch.Generator().manual_seed(5))
    image = picture(1, 3, 64, 64)
    assert torch.equal(first(image), second(image))
    assert 0.001 < float(first(image).sigmoid().median()) < 0.3
    draw_weights(second, torch.Generator().manual_seed(6))
    assert not torch.equal(first(image), second(image))
