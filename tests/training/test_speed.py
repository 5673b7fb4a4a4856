"""Switches of speed: each has an effect, and the numbers stay."""

import pytest
import torch
from diffbir_models import TINY_SWINIR, filled, save_base
from safetensors.torch import load_file
from start_models import write_start

from bir_core.checkpoints import save_checkpoint
from bir_core.networks.swinir import SwinIR
from bir_core.training import loop, speed
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

BASE = ("data.batch=2", "iterations=2", "save_every=1", "ema=0.0")


def trained(pictures, output, *changes, **more):
    recipe = load_recipe("smoke_s1", (*BASE, *changes))
    return run_recipe(recipe, data=pictures, output=output, device="cpu", **more)


def gradients(output):
    """Adam's first moments after one iteration are 0.1 times the gradients."""
    moments = read_state(output / "state.safetensors").part("optimizer.network")
    return {name: value for name, value in moments.items() if name.endswith("exp_avg")}


@pytest.mark.parametrize("switch", ["channels_last=true", "optimizer.fused=true", "tf32=true"])
def test_a_switch_leaves_the_numbers(pictures, tmp_path, switch):
    plain = trained(pictures, tmp_path / "plain", "iterations=1")
    switched = trained(pictures, tmp_path / "switched", "iterations=1", switch)
    assert load_file(plain).keys() == load_file(switched).keys()
    before, after = gradients(tmp_path / "plain"), gradients(tmp_path / "switched")
    largest = max(float(value.abs().max()) for value in before.values())
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-4 * largest)


def test_switches_reach_the_weights_and_the_optimizer(pictures, tmp_path, monkeypatch):
    seen = []
    step = loop.Run.step

    def watched(self, *arguments):
        kernel = self.training.model.G.patch_embed.proj.weight
        group = self.optimizers[0].param_groups[0]
        last = kernel.is_contiguous(memory_format=torch.channels_last)
        seen.append((last, group["fused"]))
        return step(self, *arguments)

    monkeypatch.setattr(loop.Run, "step", watched)
    trained(pictures, tmp_path / "plain", "iterations=1")
    on = ("channels_last=true", "optimizer.fused=true")
    trained(pictures, tmp_path / "on", "iterations=1", *on)
    assert seen == [(False, None), (True, True)]


def test_a_fused_update_of_channels_last_is_resumed_exactly(pictures, tmp_path):
    """The file keeps the moments in the usual order, not in that of the weights' memory."""
    on = ("channels_last=true", "optimizer.fused=true")
    whole = trained(pictures, tmp_path / "whole", *on)
    trained(pictures, tmp_path / "cut", "iterations=1", *on)
    cut = trained(pictures, tmp_path / "cut", *on, resume=True)
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_holds_for_the_losses_and_is_put_back(pictures, tmp_path, monkeypatch, allowed):
    seen = []
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    step = loop.Run.step

    def watched(self, *arguments):
        self.losses[0].register_forward_pre_hook(
            lambda *_: seen.append((matmul.allow_tf32, cudnn.allow_tf32))
        )
        return step(self, *arguments)

    before = matmul.allow_tf32, cudnn.allow_tf32
    monkeypatch.setattr(loop.Run, "step", watched)
    trained(pictures, tmp_path, "iterations=1", f"tf32={str(allowed).lower()}")
    assert seen == [(allowed, allowed)]
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that torch.compile finds. The backend that compiles nothing still gets them, and
    needs no C++ compiler."""
    found = []

    def backend(graph, inputs):
        found.append(graph)
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled(self, backend=backend))
    return found


@pytest.fixture(scope="module")
def start_files(tmp_path_factory):
    """What each recipe starts from."""
    folder = tmp_path_factory.mktemp("starts")
    save_base(folder / "base.ckpt")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "swinir.safetensors")
    stage1 = {"stage1": write_start("smoke_s1", folder / "s1.safetensors")}
    stage2 = {"start_from": write_start("smoke_s2", folder / "s2.safetensors")}
    inpainting = write_start("smoke_inpainting_s1", folder / "inpainting.safetensors")
    return {
        "smoke_s2": stage1,
        "smoke_gan": stage1 | stage2,
        "smoke_inpainting_s2": {"stage1": inpainting},
        "smoke_ir_controlnet": {
            "base": folder / "base.ckpt",
            "restoration_module": folder / "swinir.safetensors",
        },
    }


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("smoke_s1", ()),
        ("smoke_s2", ("encoder_iterations=1", "iterations=2")),
        ("smoke_gan", ()),
        # Tracing it takes a minute.
        pytest.param("smoke_inpainting_s1", (), marks=pytest.mark.slow),
        pytest.param("smoke_inpainting_s2", (), marks=pytest.mark.slow),
        ("smoke_restoration_module", ()),
        ("smoke_restoration_module", ("losses={l1={weight=1.0},gan={weight=0.1}}",)),
        ("smoke_swinir", ()),
        ("smoke_ir_controlnet", ()),
    ],
)
def test_a_compiled_network_has_the_same_numbers_and_names(
    pictures, tmp_path, graphs, start_files, name, changes
):
    short = ("data.batch=2", "iterations=1", "save_every=1", "ema=0.0", *changes)
    files = StartFiles(**start_files.get(name, {}))

    def state(*more):
        output = tmp_path / str(len(more))
        recipe = load_recipe(name, (*short, *more))
        run_recipe(recipe, data=pictures, output=output, device="cpu", files=files)
        return read_state(output / "state.safetensors").tensors

    plain = state()
    assert not graphs
    compiled = state("compile=true")
    assert graphs
    assert compiled.keys() == plain.keys()
    moments = {key: value for key, value in plain.items() if key.endswith("exp_avg")}
    largest = max(float(value.abs().max()) for value in moments.values())
    for key, value in moments.items():
        torch.testing.assert_close(compiled[key], value, rtol=0, atol=1e-4 * largest, msg=key)


class _Part(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = torch.nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.kernel(x).relu()


class _Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.part = _Part()

    def forward(self, x):
        return self.part(x)


def test_a_part_that_a_loss_calls_alone_is_compiled(graphs):
    """As G of DiffIR in its second stage; the whole gives the same then."""
    network = _Whole()
    names, x = list(network.state_dict()), torch.rand(1, 1, 8, 8)
    expected = network(x)
    speed.compile_in_place(network)
    torch.testing.assert_close(network.part(x), expected)
    assert len(graphs) == 1
    torch.testing.assert_close(network(x), expected)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize(
    ("flags", "units"),
    [("flags : fpu avx2", False), ("flags : fpu avx512_bf16", True), ("Features : bf16", True)],
)
def test_bf16_without_units_is_said_once(pictures, tmp_path, monkeypatch, caplog, flags, units):
    file = tmp_path / "cpuinfo"
    file.write_text(flags)
    monkeypatch.setattr(speed, "CPU_FLAGS", file)
    trained(pictures, tmp_path / "fp32", "iterations=1")
    assert "bf16" not in caplog.text
    trained(pictures, tmp_path / "bf16", "iterations=1", "precision=bf16")
    assert caplog.text.count("no bf16 units on cpu: precision=fp32 is faster") == (not units)
