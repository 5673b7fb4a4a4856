"""Every seed from 0 to 2^64 - 1 serves every picture of a run."""

import pytest
import torch
from command_line import run_here

from bir_core.command_line.options import seed
from bir_core.diffusion.noise import image_generators
from bir_core.networks.diffir_prior import draw_noise
from bir_core.pictures.files import Picture, write_picture
from bir_core.seeds import SEEDS, image_generator, image_seed, image_seeds

LAST = SEEDS - 1


def test_after_the_last_seed_comes_the_first():
    assert [image_seed(LAST, index) for index in range(3)] == [LAST, 0, 1]
    draws = [torch.randn(4, generator=each) for each in image_generators(LAST, 2)]
    assert torch.equal(draws[0], torch.randn(4, generator=image_generator(LAST)))
    assert torch.equal(draws[1], torch.randn(4, generator=image_generator(0)))
    assert torch.equal(draw_noise(2, LAST)[1:], draw_noise(1, 0))


def test_shared_by_all_images():
    assert image_seeds(LAST, 3) == [LAST, 0, 1]
    assert image_seeds(LAST, 3, shared=True) == [LAST] * 3


def test_on_the_command_line(tmp_path):
    assert seed(str(LAST)) == LAST
    (tmp_path / "in").mkdir()
    for name in "ab":
        write_picture(tmp_path / "in" / f"{name}.png", Picture(torch.rand(1, 3, 32, 32)))
    done = run_here(
        "degrade", tmp_path / "in", tmp_path / "out", "--preset", "simple_x4", "--seed", LAST
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(SystemExit):
        run_here("degrade", tmp_path / "in", tmp_path / "more", "--seed", SEEDS)
