"""Parts of a network that do not learn."""

import pytest
import torch
from start_models import write_start
from torch import nn

from bir_core import load_model
from bir_core.errors import BIRError
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.training.ema import ExponentialAverage
from bir_core.training.methods.table import load_recipe, make_training
from bir_core.training.optimizers import OptimizerRecipe
from bir_core.training.phases import Phase, Training, Update, freeze_parts, parts_by_prefix
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles

# An average, in which rounding would show.
SHORT = ("iterations=4", "save_every=2", "validation.every=0", "data.batch=2", "ema=0.9")
DIFFIR_TAIL = {"G.tail.0.0.weight", "G.tail.0.2.bias", "G.tail.1.weight"}
# Recipe, part, some of its weights, all other parts.
CASES = [
    ("smoke_s1", "encoder", {"E.E.0.weight", "E.mlp.2.bias"}, "tail body"),
    ("smoke_s1", "tail", DIFFIR_TAIL, "encoder body"),
    ("smoke_s2", "encoder", {"condition.E.0.weight"}, "prior tail body"),
    ("smoke_s2", "prior", {"denoise.resmlp.0.weight"}, "encoder tail body"),
    ("smoke_s2", "body", {"G.patch_embed.proj.weight", "G.refinement.0.attn.temperature"}, "tail"),
    ("smoke_inpainting_s1", "tail", {"G.output.weight"}, "encoder body"),
    ("smoke_inpainting_s2", "body", {"G.latent.0.ffn.project_in.weight"}, "tail"),
    (
        "smoke_swinir",
        "body",
        {"conv_first.1.weight", "norm.weight", "conv_after_body.bias"},
        "tail",
    ),
    ("smoke_swinir", "tail", {"conv_up1.weight", "conv_hr.bias", "conv_last.weight"}, "body"),
    ("smoke_restoration_module", "body", {"body.0.weight", "body.5.weight"}, "tail"),
    ("smoke_restoration_module", "tail", {"body.6.weight", "body.6.bias"}, "body"),
    ("smoke_estimate", "body", {"convolutions.0.weight", "convolutions.5.bias"}, "judge"),
]


def train(recipe, data, output, **more):
    return run_recipe(recipe, data=data, output=output, device="cpu", **more)


@pytest.mark.parametrize(("name", "part", "some", "others"), CASES)
def test_a_frozen_part_stays_bit_for_bit_and_the_others_move(
    name, part, some, others, pictures, tmp_path
):
    start = write_start(name, tmp_path / "start.safetensors")
    changes = (*SHORT, f"freeze=['{part}']", "optimizer.weight_decay=0.1")
    recipe = load_recipe(name, changes, start)
    parts = make_training(recipe, StartFiles()).parts
    assert some <= parts[part] and part in recipe.freeze
    before = load_model(start).state_dict()
    after = load_model(train(recipe, pictures, tmp_path / "whole")).state_dict()
    assert all(torch.equal(before[key], after[key]) for key in parts[part])
    for other in others.split():
        # (A few weights have no gradient at the very start.)
        moved = sum(not torch.equal(before[key], after[key]) for key in parts[other])
        assert moved > 0.8 * len(parts[other]), other
    cut = load_recipe(name, (*changes, "iterations=2"), start)
    train(cut, pictures, tmp_path / "cut")
    train(recipe, pictures, tmp_path / "cut", resume=True)
    for file in ("model.safetensors", "state.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("name", ["smoke_s1", "smoke_s2", "smoke_swinir"])
def test_every_weight_belongs_to_one_part(name, tmp_path):
    start = write_start(name, tmp_path / "start.safetensors")
    training = make_training(load_recipe(name, (), start), StartFiles())
    names = [key for part in training.parts.values() for key in part]
    assert sorted(names) == sorted(key for key, _ in training.model.named_parameters())
    assert not training.frozen


def test_a_new_network_may_have_frozen_parts_too(pictures, tmp_path):
    """As the body that stage 1 has learned, in stage 2."""
    stage1 = write_start("smoke_s1", tmp_path / "s1.safetensors")
    changes = (*SHORT, "encoder_iterations=2", "freeze=['body', 'tail']")
    recipe = load_recipe("smoke_s2", changes)
    model = train(recipe, pictures, tmp_path / "out", files=StartFiles(stage1=stage1))
    before, after = (load_model(path).G.state_dict() for path in (stage1, model))
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("name", "freeze", "sentence"),
    [
        ("smoke_s1", "['prior']", "diffir_s1, which are: .*; but 'prior' came"),
        ("smoke_s1", "['encoder', 'head']", "encoder, tail, body; but 'head' came"),
        ("smoke_s2", "['E']", "encoder, prior, tail, body; but 'E' came"),
        ("smoke_swinir", "['encoder']", "tail, body; but 'encoder' came"),
        ("smoke_restoration_module", "['encoder']", "tail, body; but 'encoder' came"),
        ("smoke_s1", "['encoder', 'tail', 'body']", "leave something to learn.*iteration 1 on"),
        ("smoke_restoration_module", "['tail', 'body']", "leave something to learn"),
    ],
)
def test_what_cannot_be_frozen_is_refused(name, freeze, sentence, tmp_path):
    start = write_start(name, tmp_path / "start.safetensors")
    with pytest.raises(BIRError, match=sentence):
        make_training(load_recipe(name, (f"freeze={freeze}",), start), StartFiles())


def test_a_phase_in_which_nothing_learns_is_refused(tmp_path):
    stage1 = write_start("smoke_s1", tmp_path / "s1.safetensors")
    recipe = load_recipe("smoke_s2", ("freeze=['encoder', 'prior']",))
    with pytest.raises(BIRError, match="iteration 1 on; freeze less"):
        make_training(recipe, StartFiles(stage1=stage1))


def test_a_network_without_parts_has_none_to_freeze():
    model = nn.Linear(1, 1)
    update = Update("network", model, list(model.parameters()), OptimizerRecipe(rate=1e-3))
    training = Training(model, (Phase(1, (update,)),), lambda network, lq, hq: lq)
    with pytest.raises(BIRError, match="of some_method, which are: none; but 'body' came"):
        freeze_parts(training, ("body",), "some_method")
    assert freeze_parts(training, (), "some_method") == training


def test_freezing_may_not_change_on_the_way(pictures, tmp_path):
    recipe = load_recipe("smoke_restoration_module", (*SHORT, "iterations=2"))
    train(recipe, pictures, tmp_path)
    with pytest.raises(BIRError, match="`freeze`"):
        changed = load_recipe("smoke_restoration_module", (*SHORT, "freeze=['body']"))
        train(changed, pictures, tmp_path, resume=True)


def test_the_average_leaves_frozen_weights_alone():
    torch.manual_seed(0)
    model = CompactRestorer(CompactConfig(scale=1, features=8, layers=2))
    parts = parts_by_prefix(model, {"tail": ("body.6.",)})
    average = ExponentialAverage(model, 0.9, parts["tail"])
    plain = ExponentialAverage(model, 0.9)
    for _ in range(20):
        average.update(model)
        plain.update(model)
    weights = dict(model.named_parameters())
    for name, value in average.average.named_parameters():
        assert name not in parts["tail"] or torch.equal(value, weights[name])
    drifted = [not torch.equal(v, weights[n]) for n, v in plain.average.named_parameters()]
    assert any(drifted)  # by rounding, so that the option does something
