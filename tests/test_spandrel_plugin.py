"""DiffIR files through spandrel, without ComfyUI."""

import pytest
import torch
from parity import fill_by_rule
from tolerances import SPLIT_NETWORK

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.compact.memory_plan import compact_strips
from bir_core.compact.restore import restore_compact
from bir_core.diffir.restore import restore
from bir_core.errors import BIRError
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

pytest.importorskip("spandrel", reason="spandrel is not installed")
from spandrel import MAIN_REGISTRY, ModelLoader  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402

from bir_core.spandrel_plugin import (  # noqa: E402
    ARCHITECTURE_ID,
    COMPACT_ID,
    DiffIRArchitecture,
    register,
    restorer_in_strips,
)

TASKS = [("sr", 4, 8), ("sr", 2, 16), ("sr", 1, 32), ("deblur", 1, 8)]


def small_network(task="sr", scale=4, stage=DiffIRStage2):
    config = DiffIRConfig(
        task=task,
        scale=scale,
        dim=8,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=0 if task == "inpainting" else 1,
        heads=(1, 2, 2, 2),
        n_encoder_res=1,
    )
    network = stage(config).eval().requires_grad_(False)
    fill_by_rule(network, 0)
    return network


@pytest.fixture(autouse=True)
def registered():
    register()


def test_registering_twice_keeps_one_entry():
    register()
    entries = [a for a in MAIN_REGISTRY if a.architecture.id == ARCHITECTURE_ID]
    assert len(entries) == 1


@pytest.mark.parametrize(("task", "scale", "multiple"), TASKS)
def test_file_loads_and_runs_as_bir_core_does(tmp_path, task, scale, multiple):
    path = tmp_path / "model.safetensors"
    save_checkpoint(small_network(task, scale), path)
    descriptor = ModelLoader().load_from_file(path)
    assert descriptor.architecture.id == ARCHITECTURE_ID
    assert descriptor.scale == scale
    assert descriptor.purpose == ("SR" if scale > 1 else "Restoration")
    assert descriptor.size_requirements.multiple_of == multiple
    image = torch.rand(1, 3, 35, 41, generator=torch.Generator().manual_seed(0))
    expected = restore(image, load_model(path), seed=0)
    # The weights lie at other addresses in memory, by which kernels of a CPU choose their sums.
    torch.testing.assert_close(descriptor(image), expected, atol=SPLIT_NETWORK, rtol=0)
    torch.testing.assert_close(descriptor(image), descriptor(image), atol=0, rtol=0)


@pytest.mark.parametrize("wrapper", ["params_ema", "params", "state_dict"])
def test_wrapped_state_dict_is_detected(wrapper):
    state_dict = {f"module.{key}": value for key, value in small_network().state_dict().items()}
    assert ModelLoader().load_from_state_dict({wrapper: state_dict}).scale == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_dtype_of_its_input(dtype):
    descriptor = ModelLoader().load_from_state_dict(small_network("deblur", 1).state_dict())
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    exact = descriptor(image)
    half = descriptor.to(dtype)(image.to(dtype))
    assert half.dtype == dtype
    # Each of some twenty layers rounds to half an eps of numbers around 1; these walk at random.
    torch.testing.assert_close(half.float(), exact, atol=16 * torch.finfo(dtype).eps, rtol=0)


def test_callback_sees_the_progress_and_can_cancel():
    class Cancelled(Exception):
        pass

    calls = []

    def callback(done, total):
        calls.append((done, total))
        if done > 3:
            raise Cancelled

    descriptor = DiffIRArchitecture(callback).load(small_network().state_dict())
    with pytest.raises(Cancelled):
        descriptor(torch.zeros(1, 3, 64, 64))
    assert calls[-1][0] == 4 < calls[-1][1]


def test_stage_1_is_refused():
    with pytest.raises(BIRError, match="stage 2"):
        ModelLoader().load_from_state_dict(small_network(stage=DiffIRStage1).state_dict())


def test_inpainting_is_refused_with_the_way_to_load_it():
    with pytest.raises(BIRError, match="Load DiffIR Model"):
        ModelLoader().load_from_state_dict(small_network("inpainting", 1).state_dict())


def test_other_networks_are_left_to_spandrel():
    network = ESRGAN(num_filters=8, num_blocks=1)
    assert ModelLoader().load_from_state_dict(network.state_dict()).architecture.id == "ESRGAN"


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_compact_module_opens_without_us_and_goes_through_in_strips(tmp_path, scale):
    network = CompactRestorer(CompactConfig(scale=scale, features=5, layers=2))
    draw_near_identity(network.eval().requires_grad_(False), torch.Generator().manual_seed(1))
    save_checkpoint(network, tmp_path / "model.safetensors")
    descriptor = ModelLoader().load_from_file(tmp_path / "model.safetensors")
    assert (descriptor.architecture.id, descriptor.scale) == (COMPACT_ID, scale)
    image = torch.rand(1, 3, 40, 31, generator=torch.Generator().manual_seed(0))
    calls = []
    restorer = restorer_in_strips(descriptor, lambda *call: calls.append(call))
    restored = restorer.restore(image)
    torch.testing.assert_close(restored, descriptor(image), atol=1e-5, rtol=0)
    assert torch.equal(restored, restore_compact(image, load_model(tmp_path / "model.safetensors")))
    assert calls[-1][0] == calls[-1][1]
    assert restorer.memory(40, 31, 1, "cpu") == compact_strips(network.config, 40, 31)
    # The weights are the descriptor's, not a copy.
    descriptor.model.body[0].weight.data.zero_()
    assert not torch.equal(restorer.restore(image), restored)


def test_who_needs_tiles(tmp_path):
    save_checkpoint(small_network(), tmp_path / "model.safetensors")
    diffir = ModelLoader().load_from_file(tmp_path / "model.safetensors")
    in_strips = restorer_in_strips(diffir)
    assert in_strips.restore is diffir
    assert in_strips.memory(64, 64, 1, "cuda").fastest > 0
    network = ESRGAN(num_filters=8, num_blocks=1)
    assert restorer_in_strips(ModelLoader().load_from_state_dict(network.state_dict())) is None
