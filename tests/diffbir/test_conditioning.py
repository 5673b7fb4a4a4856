"""The condition of IRControlNet: its noise and its parts."""

import torch

from bir_core.diffbir.conditioning import augment_condition, condition_parts
from bir_core.diffusion.noise import Draws
from bir_core.seeds import image_seeds


def latents(count):
    return torch.randn(count, 4, 6, 8, generator=torch.Generator().manual_seed(1))


def augmented(latent, seed):
    """As a run with this seed has it, whose sampling starts from another noise."""
    draws = Draws(image_seeds(seed, len(latent)))
    draws(latent)
    return augment_condition(latent, torch.tensor(0.64, dtype=torch.float64), draws)


def test_noise_of_each_image_follows_its_own_seed():
    batch = latents(3)
    noisy = augmented(batch, 5)
    for index in range(3):
        alone = augmented(batch[index : index + 1], 5 + index)
        torch.testing.assert_close(noisy[index : index + 1], alone)
    noise = (noisy - 0.8 * batch) / 0.6
    assert 0.8 < float(noise.std()) < 1.2
    generator = torch.Generator().manual_seed(5)
    start_of_sampling, expected = torch.randn(2, 4, 6, 8, generator=generator)
    torch.testing.assert_close(noise[0], expected)
    correlation = torch.corrcoef(torch.stack([noise[0].flatten(), start_of_sampling.flatten()]))
    assert abs(float(correlation[0, 1])) < 0.3


def test_noise_leaves_the_global_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    augmented(latents(1), 0)
    assert torch.equal(torch.rand(1), expected)


def test_parts_lie_part_by_part():
    condition = latents(2)
    parts = condition_parts(condition, [(0, 0), (2, 3)], 4, 5, count=2)
    assert torch.equal(parts[:2], condition[:, :, :4, :5])
    assert torch.equal(parts[2:], condition[:, :, 2:6, 3:8])


def test_condition_of_fewer_or_more_images_than_samples():
    condition = latents(2)
    assert torch.equal(
        condition_parts(condition, [(0, 0)], 6, 8, count=3), condition[torch.tensor([0, 1, 0])]
    )
    assert torch.equal(condition_parts(condition, [(0, 0)], 6, 8, count=1), condition[:1])
