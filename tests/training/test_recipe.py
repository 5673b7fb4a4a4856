from math import cos, pi

import pytest

from bir_core.errors import BIRError
from bir_core.networks.diffir_config import OFFICIAL_CONFIGS
from bir_core.training.methods.table import (
    load_recipe,
    recipe_from_table,
    recipe_text,
    shipped_recipes,
)
from bir_core.training.optimizers import CosineCycles, Decay, Milestones, OptimizerRecipe
from bir_core.training.toml_tables import to_table

OFFICIAL = {
    "realsr_x4": "realsr_x4",
    "realsr_x2": "realsr_x2",
    "realsr_x1": "realsr_x1",
    "srgan_x4": "realsr_x4",
    "deblur": "deblur",
}


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_survive_a_round_trip(name):
    recipe = load_recipe(name)
    assert recipe_from_table(to_table(recipe)) == recipe


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("builtin_x4", "builtin_x4_sharp builtin_diffir_x4_s1 builtin_diffir_x4_s2 finetune_x4"),
        ("builtin_x1", "builtin_diffir_x1_s1 builtin_diffir_x1_s2 finetune_x1"),
    ],
)
def test_a_mixture_that_is_named_is_the_one_written_out(name, others, tmp_path):
    """So a training begun with its tables in the recipe goes on."""
    text = recipe_text(name)
    tables = text[text.index("[data.mixture") : text.index("[optimizer]")]
    for other in others.split():
        named = f'mixture = "{name}"\n'
        assert named in recipe_text(other)
        written = recipe_text(other).replace(named, "")
        (tmp_path / "written.toml").write_text(f"{written}\n{tables}")
        assert load_recipe(other) == load_recipe(tmp_path / "written.toml")


def test_parts_of_a_named_mixture_can_be_changed():
    changes = (
        "data.mixture.clean.weight=2",
        "data.mixture.mild.change.noise_sigma=[0, 6]",
        "data.mixture.own.preset=simple_x4",
    )
    before, after = (load_recipe("finetune_x4", each).data.mixture for each in ((), changes))
    assert after["noisy"] == before["noisy"]
    assert (before["clean"].weight, after["clean"].weight) == (1, 2)
    assert after["mild"].change == before["mild"].change | {"noise_sigma": [0, 6]}
    assert after["own"].preset == "simple_x4"
    other = load_recipe("finetune_x4", ("data.mixture=builtin_x2", "data.mixture.mild.weight=7"))
    assert other.data.mixture["clean"] == load_recipe("builtin_x2").data.mixture["clean"]
    assert other.data.mixture["mild"].weight == 7


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("finetune_x4", "tables"), ("smoke_s1", "tables"), ("builtin_x5", "shipped recipe")],
)
def test_a_mixture_of_a_recipe_without_one_ends_in_a_sentence(name, sentence):
    with pytest.raises(BIRError, match=sentence):
        load_recipe("finetune_x4", (f"data.mixture={name}",))


@pytest.mark.parametrize("stage", ["s1", "s2"])
@pytest.mark.parametrize(("name", "config"), OFFICIAL.items())
def test_official_recipes_have_the_official_networks(name, config, stage):
    recipe = load_recipe(f"{name}_{stage}")
    assert recipe.network == OFFICIAL_CONFIGS[config]
    assert recipe.method == f"diffir_{stage}"


@pytest.mark.parametrize("scale", [4, 1])
def test_stages_of_the_built_in_models_fit_together(scale):
    first, second = (load_recipe(f"builtin_diffir_x{scale}_{stage}") for stage in ("s1", "s2"))
    assert first.network == second.network
    assert first.validation.held_out == second.validation.held_out


def test_rates_of_realsr_stage_2():
    """2e-4 * 0.1^(i // 60000) in the first phase, 2e-4 * 0.5^((i - 100000) // 600000) in the
    second, where i counts from 1."""
    recipe = load_recipe("realsr_x4_s2")
    for i in (1, 59_999, 60_000, 99_999):
        expected = 2e-4 * 0.1 ** (i // 60_000)
        assert recipe.encoder_optimizer.rate_at(i - 1) == pytest.approx(expected)
    for i in (100_000, 699_999, 700_000, 1_000_000):
        expected = 2e-4 * 0.5 ** ((i - 100_000) // 600_000)
        assert recipe.optimizer.rate_at(i - recipe.encoder_iterations) == pytest.approx(expected)


def test_rate_of_deblur_stage_1_rises_in_its_first_cycle():
    recipe = load_recipe("deblur_s1")
    assert recipe.optimizer.rate_at(0) == pytest.approx(2e-4)
    assert recipe.optimizer.rate_at(91_999) == pytest.approx(2.85e-4, rel=1e-4)
    assert recipe.optimizer.rate_at(92_000) == pytest.approx(2e-4)
    middle = 1e-6 + 0.5 * (2e-4 - 1e-6) * (1 + cos(pi / 2))
    assert recipe.optimizer.rate_at(92_000 + 104_000) == pytest.approx(middle)
    assert recipe.optimizer.rate_at(10**9) == pytest.approx(1e-6)


def test_schedules():
    milestones = OptimizerRecipe(rate=1.0, schedule=Milestones(at=(10, 20), factor=0.5))
    assert [milestones.rate_at(i) for i in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]
    decay = OptimizerRecipe(rate=1.0, schedule=Decay(every=5, factor=0.1))
    assert decay.rate_at(14) == pytest.approx(0.01)
    cosine = OptimizerRecipe(rate=1.0, schedule=CosineCycles(periods=(10,), minima=(0.0,)))
    assert cosine.rate_at(5) == pytest.approx(0.5)
    warm = OptimizerRecipe(rate=1.0, warmup=4)
    assert [warm.rate_at(i) for i in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def test_progressive_stages_of_deblurring():
    data = load_recipe("deblur_s1").data
    seen = [data.stage_at(i).patch for i in (1, 92_000, 92_001, 172_000, 172_001, 300_000)]
    assert seen == [192, 192, 256, 256, 320, 512]
    assert data.stage_at(10**9).patch == 512


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("itterations=5", "iterations"),
        ("data.pach=64", "patch"),
        ("optimizer.schedule.kind=cosine", "minima|periods"),
        ("optimizer.rte=1e-3", "rate"),
        ("network.dims=8", "dim"),
        ("method=diffir_s3", "did you mean diffir_s"),
    ],
)
def test_a_misspelt_or_missing_key_is_named_with_the_nearest(change, named):
    with pytest.raises(BIRError, match=named):
        load_recipe("smoke_s1", (change,))


@pytest.mark.parametrize(
    "change",
    [
        "iterations=0",
        "iterations=many",
        "optimizer.rate=0.0",
        "optimizer.rate=2",
        "optimizer.betas=[0.9]",
        "optimizer.betas=[0.9, 1.0]",
        "data.patch=33",
        "data.batch=0",
        "data.pool=3",
        "data.source_patch=16",
        "data.augmentation=rotate",
        "data.progressive=[{ patch = 64, batch = 1, iterations = 5 }]",
        "optimizer.schedule.kind=stairs",
        "ema=1.0",
        "method=diffir_s3",
        "encoder_iterations=3",
        "network=5",
        "network.heads=[3, 1, 1, 1]",
        "validation.channel=rgby",
        "no_equals_sign",
    ],
)
def test_values_out_of_range_are_refused(change):
    with pytest.raises(BIRError):
        load_recipe("smoke_s1", (change,))


def test_changes_are_typed_as_toml():
    recipe = load_recipe("smoke_s1", ("data.batch=2", "optimizer.rate=1e-4", "precision=bf16"))
    assert (recipe.data.batch, recipe.optimizer.rate, recipe.precision) == (2, 1e-4, "bf16")


def test_a_recipe_file(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(BIRError, match="neither"):
        load_recipe(path)
    path.write_text("iterations = = 3", encoding="utf-8")
    with pytest.raises(BIRError, match="TOML"):
        load_recipe(path)
    path.write_text('method = "diffir_s1"\niterations = 3\n', encoding="utf-8")
    with pytest.raises(BIRError, match="key data"):
        load_recipe(path)


def test_the_nearest_name_of_a_shipped_recipe():
    with pytest.raises(BIRError, match="realsr_x4_s1"):
        load_recipe("realsr_x4_s11")
