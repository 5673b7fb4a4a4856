"""Tiny networks with random weights, to start trainings from, and recipes that go on from them."""

import re

import torch

from bir_core.checkpoints import save_checkpoint
from bir_core.networks.compact import CompactRestorer
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.estimator import Estimator
from bir_core.networks.swinir import SwinIR
from bir_core.training.methods.diffir import draw_at_order_one
from bir_core.training.methods.table import load_recipe, recipe_text

# Of each recipe, its network.
NETWORKS = {
    "smoke_s1": DiffIRStage1,
    "smoke_s2": DiffIRStage2,
    "smoke_inpainting_s1": DiffIRStage1,
    "smoke_inpainting_s2": DiffIRStage2,
    "smoke_swinir": SwinIR,
    "smoke_restoration_module": CompactRestorer,
    "smoke_estimate": Estimator,
}


def write_start(recipe, path, changes=(), network=None):
    """Write random weights of the sizes of a recipe, whose features keep their magnitude, or of the
    kind `network`."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = (network or NETWORKS[recipe])(load_recipe(recipe, changes).network)
        if isinstance(model, DiffIRStage1 | DiffIRStage2):
            draw_at_order_one(model)
            tail = model.G.output if hasattr(model.G, "output") else model.G.tail[1]
            torch.nn.init.normal_(tail.weight, std=0.01)
    save_checkpoint(model, path)
    return path


def write_recipe_without_sizes(recipe, path):
    """A recipe file that leaves out the table `network`."""
    text, count = re.subn(r"\[network\]\n(?:.+\n)+\n", "", recipe_text(recipe))
    assert count == 1
    path.write_text(text, encoding="utf-8")
    return path
