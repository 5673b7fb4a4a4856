"""Degradation on another device than the CPU, which draws the noise there.

"meta" stands for that device: its tensors have no values, so that a step that brought them to the
CPU would fail.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bir_core.degradations import degrade, get_preset
from bir_core.degradations.draws import noise_generator_for
from bir_core.degradations.noise import gaussian_noise, poisson_noise

DEVICE = torch.device("meta")
ON_DEVICE = ("realesrgan_x4", "realesrgan_x4_usm", "diffbir_v1", "simple_x4", "codeformer")
SEEDS = range(6)


class DeviceGenerator(torch.Generator):
    """Says that it lives on the device."""

    device = DEVICE


class Copies(TorchDispatchMode):
    """Notes how many elements every copy to another device has."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if function is torch.ops.aten._to_copy.default and arguments[0].device != made.device:
            self.sizes.append(made.numel())
        return made


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def degraded_on_device(preset, side, seed):
    hq = torch.rand(2, 3, side, side, device=DEVICE)
    with Copies() as copies:
        made = degrade(hq, get_preset(preset), generator=seeded(seed), noise=DeviceGenerator())
    assert made.lq.device == DEVICE
    return copies.sizes, made.draws


@pytest.mark.parametrize("preset", ON_DEVICE)
def test_no_picture_and_no_noise_goes_between_cpu_and_device(preset):
    """What is copied there, as kernels, is no larger for larger pictures."""
    kinds = set()
    for seed in SEEDS:
        small, _ = degraded_on_device(preset, 32, seed)
        large, draws = degraded_on_device(preset, 64, seed)
        assert small == large
        kinds |= {value for name, value in draws.items() if name.endswith("noise_kind")}
    assert kinds == (set() if preset in ("simple_x4", "codeformer") else {"gaussian", "poisson"})


def test_a_generator_on_the_cpu_has_its_noise_copied():
    """So that the test above can fail."""
    image, values = torch.rand(2, 3, 8, 8, device=DEVICE), torch.ones(2)
    with Copies() as copies:
        gaussian_noise(image, values, values > 2, seeded(0))
    assert image.numel() in copies.sizes
    with pytest.raises(NotImplementedError, match="meta"):
        poisson_noise(image, values, values > 2, seeded(0))


@pytest.mark.parametrize("preset", ON_DEVICE)
def test_the_second_generator_draws_the_noise_and_nothing_else(preset):
    hq = torch.rand(2, 3, 48, 48, generator=seeded(9))

    def made(seed, noise):
        return degrade(hq, get_preset(preset), generator=seeded(seed), noise=noise)

    first = made(0, seeded(1))
    assert torch.equal(first.lq, made(0, seeded(1)).lq)
    other = made(0, seeded(2))
    assert not torch.equal(first.lq, other.lq)
    assert str(first.draws) == str(other.draws)
    assert str(first.draws) != str(made(3, seeded(1)).draws)


@pytest.mark.parametrize("preset", ["realesrgan_x4", "simple_x4", "codeformer"])
def test_without_a_second_generator_the_first_draws_all(preset):
    hq = torch.rand(2, 3, 48, 48, generator=seeded(9))
    alone, shared = seeded(4), seeded(4)
    ours = degrade(hq, get_preset(preset), generator=alone)
    theirs = degrade(hq, get_preset(preset), generator=shared, noise=shared)
    assert torch.equal(ours.lq, theirs.lq)
    assert torch.equal(alone.get_state(), shared.get_state())


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_where_torch_cannot_draw_it_the_generator_stays(device):
    generator = seeded(5)
    assert noise_generator_for(torch.device(device), generator) is generator
    assert torch.equal(generator.get_state(), seeded(5).get_state())


def test_a_cuda_generator_has_a_seed_from_the_other(monkeypatch):
    """A generator on the CPU stands for that of CUDA."""
    places = []
    real = torch.Generator

    def generator_on(device):
        places.append(device)
        return real()

    generator, again = seeded(6), seeded(6)
    monkeypatch.setattr(torch, "Generator", generator_on)
    cuda = torch.device("cuda", 1)
    seeds = [noise_generator_for(cuda, generator).initial_seed() for _ in range(2)]
    assert places == [cuda, cuda]
    assert seeds[0] != seeds[1]
    assert seeds == [noise_generator_for(cuda, again).initial_seed() for _ in range(2)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("preset", ON_DEVICE)
def test_the_same_state_gives_the_same_picture_on_a_gpu(preset):
    cuda = torch.device("cuda")
    hq = torch.rand(2, 3, 64, 64, generator=seeded(9)).to(cuda)

    def made(seed):
        generator = seeded(seed)
        noise = noise_generator_for(cuda, generator)
        return degrade(hq, get_preset(preset), generator=generator, noise=noise).lq

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))
