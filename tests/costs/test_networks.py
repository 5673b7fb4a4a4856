"""The published networks against the numbers of their authors and of others who counted."""

import pytest
import torch

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.checkpoints.architectures import ARCHITECTURES
from bir_core.costs.counting import total
from bir_core.costs.networks import CALLS, PUBLISHED, count_file, count_published
from bir_core.diffbir.restoration_modules import spandrel_problem
from bir_core.diffbir.versions import BSRNET, SCUNET
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.weights import BUILTIN_NAMES, NAMES_APART

SIZE = (256, 256)
# Of a 256 x 256 input: convolutions, linear layers and products of attention of the official code.
OFFICIAL = {
    "realsr_x4": (722.5e9, 24_971_206),
    "realsr_x2": (180.8e9, 24_981_574),
    "realsr_x1": (45.4e9, 25_023_046),
    "deblur": (121.0e9, 26_911_934),
    "inpainting": (50.6e9, 26_402_474),
    "inpainting_big": (70.5e9, 49_482_922),
}
PARAMETERS = {
    "realsr_x4_s1": 24_801_478,
    "deblur_s1": 26_742_206,
    "inpainting_big_s1": 49_313_194,
    "ir_controlnet": 363_153_280,
    "sd_unet": 865_910_724,
    "swinir": 15_792_587,
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_diffir(name):
    whole = total(count_published(name, SIZE).parts)
    multiply_adds, parameters = OFFICIAL[name]
    assert whole.multiply_adds == pytest.approx(multiply_adds, rel=0.01)
    assert whole.parameters == parameters


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_of_the_others(name):
    assert total(count_published(name, (64, 64)).parts).parameters == PARAMETERS[name]


def test_the_paper_prints_about_what_is_counted():
    counted = count_published("realsr_x4", SIZE)
    assert counted.printed == pytest.approx(total(counted.parts).multiply_adds, rel=0.03)
    assert count_published("realsr_x4", (264, 256)).printed is None
    assert count_published("realsr_x1", SIZE).printed is None


def test_parts_are_those_of_the_official_network():
    parts = count_published("realsr_x4", SIZE).parts
    prior = parts["condition.E"] + parts["condition.mlp"]
    assert prior.multiply_adds == pytest.approx(77.4e9, rel=0.01)
    assert prior.parameters == 1_314_688 and parts["denoise.resmlp"].parameters == 197_376


def test_every_network_of_the_table_can_be_called():
    assert set(CALLS) == {row.name for row in ARCHITECTURES}
    assert {row for row, *_ in PUBLISHED.values()} | {"compact", "damage_finder", "estimator"} == (
        set(CALLS)
    )


@pytest.mark.parametrize("name", [*BUILTIN_NAMES, *NAMES_APART])
def test_built_in_networks(name):
    (counted,) = count_file(name, (61, 40))
    whole = total(counted.parts)
    assert whole.multiply_adds > 0 and whole.written > 0
    weights = load_model(name).parameters()
    assert whole.parameters == sum(each.numel() for each in weights)
    multiple = load_model(name).config.size_multiple
    assert counted.size == tuple(side + -side % multiple for side in (61, 40))


def test_a_compact_module_by_its_formula(tmp_path):
    config = CompactConfig(scale=2, features=8, layers=3)
    save_checkpoint(CompactRestorer(config), tmp_path / "module.safetensors")
    (counted,) = count_file(tmp_path / "module.safetensors", (30, 50))
    chain = 3 * 8 + 3 * 8 * 8 + 8 * 12
    assert total(counted.parts).multiply_adds == 9 * chain * 30 * 50


def test_twice_the_picture_takes_twice(tmp_path):
    once, twice = (
        total(count_published("swinir", (64, side)).parts).multiply_adds for side in (64, 128)
    )
    assert twice == 2 * once


def test_networks_on_latents_pad_to_what_they_divide_by():
    assert count_published("sd_unet", (100, 65)).size == (128, 128)


@pytest.mark.skipif(spandrel_problem() is not None, reason=f"spandrel {spandrel_problem()}")
@pytest.mark.parametrize(("name", "module"), [("bsrnet", BSRNET), ("scunet", SCUNET)])
def test_networks_of_spandrel(name, module):
    counted = count_published(name, (60, 64))
    assert total(counted.parts).parameters == module.weights
    assert counted.size == ((60, 64) if name == "bsrnet" else (64, 64))


def test_nothing_is_drawn_or_read():
    state = torch.random.get_rng_state()
    count_published("deblur", (64, 64))
    assert torch.equal(torch.random.get_rng_state(), state)
