"""Networks that find damage by a rule, to test what is around them."""

import torch

from bir_core.checkpoints import save_checkpoint
from bir_core.networks.damage import CONTRAST, GREY, DamageConfig, DamageFinder


def small_finder(seed=0):
    """A network of the smallest sizes with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DamageFinder(DamageConfig(features=(4, 6))).eval().requires_grad_(False)


def bright_finder():
    """A network that takes for damage what is brighter than 0.9 in the mean of the colours."""
    network = small_finder()
    for parameter in network.parameters():
        parameter.zero_()
    # Channel 4 c + p of the unshuffled picture is colour c of the pixel p in 2 x 2.
    for pixel in range(4):
        network.first.weight[pixel, pixel::4, 1, 1] = 1 / (3 * CONTRAST)
        network.last.weight[pixel, pixel, 1, 1] = 100
    network.last.bias.fill_(-100 * (0.9 - GREY))
    return network


def save_bright_finder(path):
    """The same as a checkpoint file."""
    save_checkpoint(bright_finder(), path)
    return path
