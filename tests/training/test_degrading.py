"""Mixed and custom degradations of a recipe."""

from dataclasses import replace

import pytest
import torch

from bir_core.degradations import degrade, get_preset, preset_names
from bir_core.errors import BIRError
from bir_core.training import degrading
from bir_core.training.data import BatchSource, ExampleDataset, open_source
from bir_core.training.degrading import presets_of, recipe_degradation
from bir_core.training.methods.table import load_recipe
from bir_core.training.recipe import MixturePart

MIXTURE = (
    "data.degradation=mixture",
    "data.mixture.own.preset=simple_x4",
    "data.mixture.clean.preset=clean_x4",
)


def mixture(*changes):
    return load_recipe("smoke_restoration_module", (*MIXTURE, *changes))


def pair(recipe, count=64, seed=0):
    hq = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return hq, recipe_degradation(recipe)(hq, torch.Generator().manual_seed(seed))[0]


@pytest.mark.parametrize("changes", [MIXTURE, ("data.degradation=realesrgan_x4",)])
def test_a_training_draws_the_noise_of_a_device_there(changes, monkeypatch):
    """A second generator on the CPU stands for that of the device."""
    recipe = load_recipe("smoke_restoration_module", changes)

    def noise_of(seed):
        noise = torch.Generator().manual_seed(seed)
        monkeypatch.setattr(degrading, "noise_generator_for", lambda *_: noise)
        return pair(recipe, count=4)[1]

    assert torch.equal(noise_of(1), noise_of(1))
    assert not torch.equal(noise_of(1), noise_of(2))


def test_weights_are_shares():
    """3 of 4 pictures noisy; the bound is five deviations of 64 draws."""
    hq, lq = pair(mixture("data.mixture.own.weight=3"))
    clean = degrade(hq, get_preset("clean_x4"), generator=torch.Generator()).lq
    same = sum(torch.equal(one, other) for one, other in zip(lq, clean, strict=True))
    assert abs(same - 16) < 5 * (64 * 0.25 * 0.75) ** 0.5 and 0 < same < 64


def test_a_part_of_weight_zero_never_comes():
    hq, lq = pair(mixture("data.mixture.own.weight=0"))
    assert torch.equal(lq, degrade(hq, get_preset("clean_x4"), generator=torch.Generator()).lq)


@pytest.mark.parametrize(
    "preset, change",
    [
        ("bicubic_x4", 'resize_modes=["area"]'),
        ("defocus", "blur.defocus_radius=[9, 10]"),
        ("motion_blur", "blur.motion_length=[20, 21]"),
        ("varying", "noise_sigma=[50, 60]"),
        ("film_grain", "scan.jpeg_quality=[5, 6]"),
    ],
)
def test_presets_of_any_kind_are_parts_at_the_scale_of_the_recipe(preset, change):
    part = f"data.mixture.own.preset={preset}", "data.mixture.clean.weight=0"
    hq, before = pair(mixture(*part), count=8)
    _, after = pair(mixture(*part, f"data.mixture.own.change.{change}"), count=8)
    assert before.shape == (8, 3, 4, 4) and not torch.equal(before, after)
    clean = degrade(hq, get_preset("clean_x4"), generator=torch.Generator()).lq
    assert not torch.equal(before, clean)


@pytest.mark.parametrize(
    "change",
    [
        "noise_sigma=[40, 50]",
        "jpeg_quality=[5, 6]",
        "blur.sigma=[3.0, 4.0]",
        "blur.sizes=[3]",
        'order=["noise", "blur", "resize", "jpeg"]',
        "grey_probability=1.0",
    ],
)
def test_ranges_are_reached(change):
    _, before = pair(mixture("data.mixture.clean.weight=0"))
    _, after = pair(mixture("data.mixture.clean.weight=0", f"data.mixture.own.change.{change}"))
    assert not torch.equal(before, after)


def test_the_preset_keeps_what_is_not_changed():
    parts = presets_of(mixture("data.mixture.own.change.noise_sigma=[1, 2]").data)
    weight, preset = parts["own"]
    assert weight == 1 and preset.noise_sigma == (1.0, 2.0)
    assert preset.blur == get_preset("simple_x4").blur


@pytest.mark.parametrize(
    "changes, sentence",
    [
        (("data.mixture.own.change.noise=[1, 2]",), "noise_sigma"),
        (("data.mixture.own.change.noise_sigma=[2, 1]",), "noise_sigma"),
        (("data.mixture.own.change.blur.sigm=[1, 2]",), "sigma"),
        (("data.mixture.own.preset=simple",), "preset"),
        (("data.mixture.own.weight=-1",), "weight"),
        (("data.mixture.own.weight=0", "data.mixture.clean.weight=0"), "mixture"),
        (("data.degradation=simple_x4",), "mixture"),
        (("data.mixture.own.preset=diffbir_v1",), "smaller"),
    ],
)
def test_wrong_mixtures_end_in_a_sentence(changes, sentence):
    with pytest.raises(BIRError, match=sentence):
        recipe_degradation(mixture(*changes))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_may_be_a_part(name):
    part = MixturePart(preset=name, change={})
    data = replace(mixture().data, mixture={"only": part})
    assert presets_of(data) == {"only": (1.0, get_preset(name))}


def batches(recipe, pictures, first, last):
    source = BatchSource(
        ExampleDataset(open_source(pictures, recipe.data), recipe.data, scale=4, seed=0),
        recipe.data,
        recipe_degradation(recipe),
        torch.device("cpu"),
        seed=0,
    )
    return [batch for parts in source.iterations(first, last) for batch in parts]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same_pairs_from_any_iteration_on(pictures, workers):
    alone = batches(mixture("data.source_patch=96"), pictures, 1, 6)
    recipe = mixture("data.source_patch=96", f"data.workers={workers}")
    later = batches(recipe, pictures, 4, 6)
    for one, other in zip(alone[3:], later, strict=True):
        assert torch.equal(one.lq, other.lq) and torch.equal(one.hq, other.hq)
        assert one.iteration == other.iteration


@pytest.mark.parametrize("name", ["restoration_module", "swinir", "ir_controlnet"])
def test_holes_are_left_to_inpainting(name):
    with pytest.raises(BIRError, match="cuts no holes"):
        load_recipe(f"smoke_{name}", ("data.degradation=masks_thick_256",))
