"""Weights of every architecture with a tensor of another shape: refused in a sentence."""

import random

import pytest
import torch
from diffbir_models import TINY_SWINIR, TINY_UNET, TINY_VAE, text_tower_weights

from bir_core import BIRError, load_model
from bir_core.networks.autoencoder import SDVAE
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.networks.damage import DamageConfig, DamageFinder
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.estimator import Estimator, EstimatorConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR
from bir_core.networks.unet import SDUNet

DIFFIR = DiffIRConfig(
    task="sr",
    scale=4,
    dim=8,
    num_blocks=(1, 1, 1, 1),
    num_refinement_blocks=1,
    n_encoder_res=1,
    encoder_features=4,
)
NETWORKS = {
    "diffir_s1": lambda: DiffIRStage1(DIFFIR),
    "diffir_s2": lambda: DiffIRStage2(DIFFIR),
    "swinir": lambda: SwinIR(TINY_SWINIR),
    "compact": lambda: CompactRestorer(CompactConfig(scale=2, features=4, layers=1)),
    "damage_finder": lambda: DamageFinder(DamageConfig(features=(4, 6))),
    "estimator": lambda: Estimator(EstimatorConfig(features=2, hidden=4)),
    "ir_controlnet": lambda: IRControlNet(TINY_UNET),
    "sd_unet": lambda: SDUNet(TINY_UNET),
    "sd_vae": lambda: SDVAE(TINY_VAE),
}
SHAPES = ((), (0,), (1,), (7,), (0, 3), (3, 5), (1, 1, 1), (2, 3, 4, 5), (1, 0, 3, 3), (1,) * 6)


def odd_shapes(state, draw):
    """The state with one tensor of another shape."""
    name = draw.choice(sorted(state))
    value = state[name]
    shape = draw.choice([*SHAPES, (*value.shape, 1), tuple(2 * side for side in value.shape)])
    if tuple(value.shape) == shape:
        shape = (3, *shape)
    return {**state, name: torch.zeros(shape)}, f"{name} {shape}"


@pytest.mark.parametrize("name", [*NETWORKS, "text_encoder"])
def test_other_shapes_are_refused_in_a_sentence(name):
    draw = random.Random(name)
    if name == "text_encoder":
        state = {k: v for k, v in text_tower_weights(0)[0].items() if "resblocks.2" not in k}
        # The last block of the published layout does not run, and may be anything.
        state |= {k.replace(".1.", ".2."): v for k, v in state.items() if "resblocks.1." in k}
        used = {k: v for k, v in state.items() if "resblocks.2." not in k and "ln_final" in k}
    else:
        state = dict(NETWORKS[name]().state_dict())
        used = state
    load_model(state, architecture=name)
    from_sizes = {key: value for key, value in used.items() if key.endswith("weight")}
    for number in range(24):
        changed, what = odd_shapes(from_sizes if number % 2 else used, draw)
        with pytest.raises(BIRError) as caught:
            load_model({**state, **changed}, architecture=name)
        sentence = str(caught.value)
        assert sentence.endswith(".") and "\n" not in sentence, what


def test_other_shapes_in_the_layout_of_diffusers():
    shapes = {f"self_attn.{letter}_proj.{kind}" for letter in "qkv" for kind in ("weight", "bias")}
    place = "encoder.layers.0."
    whole = {place + name: torch.ones((4, 4) if "weight" in name else 4) for name in shapes}
    whole["embeddings.token_embedding.weight"] = torch.ones(9, 4)
    for odd in (torch.ones(5), torch.tensor(1.0), torch.ones(2, 2, 2)):
        with pytest.raises(BIRError, match="q, k and v of one shape"):
            load_model({**whole, f"{place}self_attn.k_proj.weight": odd})
