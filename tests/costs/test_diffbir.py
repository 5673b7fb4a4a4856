"""A whole run: calls against what the pipeline does, and each option against its part."""

from dataclasses import replace

import pytest
import torch
from diffbir_models import tiny_networks

from bir_core.costs.counting import total
from bir_core.costs.diffbir import diffbir_cost, evaluations
from bir_core.costs.networks import count_published
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.restoration_modules import spandrel_problem
from bir_core.diffbir.settings import DiffBIRSettings, official_settings
from bir_core.diffusion.sampling import SAMPLERS


def stages(upscale=4, size=(128, 128), version="v2.1", task="sr", **changed):
    settings = replace(official_settings(version), **changed)
    run = diffbir_cost(version, task, size, upscale, settings)
    return {stage.name: stage for stage in run.stages}


@pytest.fixture(scope="module")
def usual():
    return stages()


def test_stages_in_their_order(usual):
    names = ["text_encoder", "swinir", "sd_vae, encoding", "ir_controlnet", "sd_unet"]
    assert list(usual) == [*names, "sd_vae, decoding"]
    assert [stage.calls for stage in usual.values()] == [2, 1, 1, 20, 20, 1]


def test_each_stage_is_its_network(usual):
    for name in ("swinir", "ir_controlnet", "sd_unet", "text_encoder"):
        one = total(count_published(name, (512, 512)).parts)
        assert usual[name].cost == one.calls(usual[name].calls)
    both = usual["sd_vae, encoding"].cost + usual["sd_vae, decoding"].cost
    assert both == total(count_published("sd_vae", (512, 512)).parts)


class Module(torch.nn.Module):
    scale = 1

    def forward(self, image):
        return image


@pytest.mark.parametrize(
    "changed",
    [
        {"sampler": "euler", "steps": 3, "cfg": 4.0},
        {"sampler": "heun", "steps": 3, "cfg": 1.0},
        {"sampler": "spaced", "steps": 2, "tile": 64, "overlap": 24, "short_side": 0},
        {"sampler": "dpmpp_2s_ancestral", "steps": 2, "strength": 0.0},
    ],
)
def test_calls_are_those_of_the_pipeline(changed):
    networks = tiny_networks()
    called = dict.fromkeys(("sd_unet", "ir_controlnet"), 0)
    for name in called:

        def hook(module, inputs, name=name):
            called[name] += len(inputs[0])

        networks[name].register_forward_pre_hook(hook)
    settings = DiffBIRSettings(**{"short_side": 64, **changed})
    embedding = torch.zeros(1, 4, 32)
    pipeline = DiffBIR(**networks, stage1=Module(), version="v1")
    pipeline(torch.rand(1, 3, 90, 70), embedding, embedding, upscale_by=1, settings=settings)
    run = diffbir_cost("v1", "sr", (90, 70), 1, settings)
    counted = {stage.name: stage.calls for stage in run.stages if stage.name in called}
    assert counted == {name: calls for name, calls in called.items() if calls}


def test_samplers_of_second_order_ask_twice_but_at_the_end():
    steps = {
        name: evaluations(replace(official_settings("v2.1"), sampler=name)) for name in SAMPLERS
    }
    twice = ("heun", "dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde")
    assert steps == {name: 19 if name in twice else 10 for name in SAMPLERS}


@pytest.mark.parametrize(
    ("changed", "factor"), [({"steps": 20}, 2), ({"cfg": 1.0}, 0.5), ({"size": (128, 256)}, 3)]
)
def test_what_changes_the_sampling(usual, changed, factor):
    """512 x 1024 pixels are three tiles of 512 that overlap by half."""
    found = stages(**changed)["sd_unet"]
    assert found.calls == factor * usual["sd_unet"].calls
    assert found.cost.multiply_adds == factor * usual["sd_unet"].cost.multiply_adds
    assert found.cost.parameters == usual["sd_unet"].cost.parameters


def test_the_whole_at_once_instead_of_tiles():
    found = stages(size=(128, 256), tile=0)["sd_unet"]
    assert found.calls == 20
    one = total(count_published("sd_unet", (512, 1024)).parts)
    assert found.cost == one.calls(20)


def test_stage1_in_tiles_computes_what_overlaps_twice(usual):
    found = stages(stage1_tile=256)["swinir"]
    assert found.calls == 9  # tiles that share 64 pixels
    assert found.cost.multiply_adds == 9 / 4 * usual["swinir"].cost.multiply_adds


def test_without_control_there_is_no_controlnet():
    assert "ir_controlnet" not in stages(strength=0.0)


def test_small_pictures_are_restored_at_512(usual):
    assert stages(size=(32, 32)) == usual
    assert stages(size=(32, 32), short_side=0)["sd_unet"].cost.multiply_adds < (
        usual["sd_unet"].cost.multiply_adds / 10
    )


@pytest.mark.skipif(spandrel_problem() is not None, reason=f"spandrel {spandrel_problem()}")
def test_v2_takes_bsrnet_at_the_size_of_the_input():
    found = stages(version="v2")
    assert found["bsrnet"].cost == total(count_published("bsrnet", (128, 128)).parts)
    assert found["sd_unet"].calls == 100
