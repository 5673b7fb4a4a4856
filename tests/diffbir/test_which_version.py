"""Which version of DiffBIR files are of, where nobody says it."""

import json

import pytest
import torch
from diffbir_models import TINY_UNET, filled, taught, tiny_networks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.checkpoints.loading import origin_of
from bir_core.checkpoints.origin import HEADER_KEY, Origin
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.versions import VERSIONS, DiffBIRVersion
from bir_core.diffbir.which_version import ask_base, ask_unet, version_of, versions_of_file
from bir_core.diffusion.schedules import sd_alphas_cumprod
from bir_core.errors import BIRError
from bir_core.memory import CPU
from bir_core.networks.unet import SDUNet

SHAPE = (4, 16, 16)


def trained(parameterization):
    """What the header of a file of our training says."""
    about = {"iteration": 9, "recipe": {"parameterization": parameterization}}
    return {HEADER_KEY: json.dumps(about)}


def best_base(parameterization, mean, deviation):
    """The best possible prediction for normal data of a mean and a deviation, by Bayes' rule."""
    alphas = sd_alphas_cumprod(zero_snr=parameterization == "v")

    def base(x, timestep):
        abar = alphas[timestep].float().reshape(-1, 1, 1, 1)
        seen = abar * deviation**2 + 1 - abar  # the variance of x
        noise = (1 - abar).sqrt() / seen * (x - abar.sqrt() * mean)
        clean = mean + abar.sqrt() * deviation**2 / seen * (x - abar.sqrt() * mean)
        if parameterization == "eps":
            return noise
        return abar.sqrt() * noise - (1 - abar).sqrt() * clean

    return base


@given(
    parameterization=st.sampled_from(["eps", "v"]),
    mean=st.floats(-1, 1),
    deviation=st.floats(0.05, 2),
)
def test_the_best_base_of_any_data_is_known(parameterization, mean, deviation):
    answer = ask_base(best_base(parameterization, mean, deviation), SHAPE, CPU)
    assert answer.predicts == parameterization


@pytest.mark.parametrize("level", [0.3, 0.0])
def test_bases_that_learned_are_known(level):
    assert ask_unet(taught(tiny_networks()["sd_unet"], lambda x: x), CPU).predicts == "eps"
    flat = taught(tiny_networks()["sd_unet"], lambda x: torch.full_like(x, level))
    assert ask_unet(flat, CPU).predicts == "v"


@pytest.mark.parametrize("seed", range(6))
def test_random_networks_are_not_taken_for_trained_ones(seed):
    torch.manual_seed(seed)
    assert ask_unet(SDUNet(TINY_UNET), CPU).predicts is None
    assert ask_unet(filled(SDUNet(TINY_UNET), 1000 * seed), CPU).predicts is None


def test_a_trace_of_the_noise_does_not_count_where_the_mean_is_zero():
    assert ask_base(lambda x, t: 0.005 * x.roll(1, -1), SHAPE, CPU).predicts == "v"


@pytest.mark.parametrize(
    "base",
    [
        lambda x, t: -x,
        lambda x, t: 0.7 * x + torch.ones_like(x),
        lambda x, t: x * float("nan"),
        lambda x, t: x.roll(1, -1),
    ],
)
def test_odd_bases_are_unclear(base):
    assert ask_base(base, SHAPE, CPU).predicts is None


@pytest.mark.parametrize(
    ("origin", "predicts", "version"),
    [
        (Origin("DiffBIR_v2-1.pt"), "v", "v2.1"),
        (Origin("v2.pth"), "eps", "v2"),
        (Origin("v1_general.pth"), None, "v1"),
        (Origin("mine.safetensors"), "v", "v2.1"),
        (Origin(), "v", "v2.1"),
        (Origin("mine.safetensors", trained("v")), None, "v2.1"),
        # The header is surer than a name.
        (Origin("my_v2.safetensors", trained("v")), "v", "v2.1"),
        (Origin("my_v2.safetensors", trained("eps")), "eps", "v2"),
        (Origin("my_v2.safetensors", {HEADER_KEY: "[}"}), None, "v2"),
        (Origin("my_v2.safetensors", {HEADER_KEY: '{"recipe": 3}'}), None, "v2"),
    ],
)
def test_version(origin, predicts, version):
    assert version_of(origin, predicts) == version


@pytest.mark.parametrize(
    ("origin", "predicts", "sentence"),
    [
        (Origin("DiffBIR_v2.1.pt"), "eps", "predicts v for DiffBIR_v2.1.pt.*predicts eps"),
        (Origin("v2.pth"), "v", "predicts eps for v2.pth.*as that of v2.1"),
        (Origin("v2.pth", trained("v")), "eps", "which is of DiffBIR v2.1"),
        (Origin("mine.pth"), None, "neither mine.pth nor the base tells v1, v2 from v2.1; name"),
        (
            Origin(),
            "eps",
            "neither IRControlNet nor the base, which predicts eps, tells v1 from v2",
        ),
    ],
)
def test_contradictions_and_silence_are_said(origin, predicts, sentence):
    with pytest.raises(BIRError, match=sentence):
        version_of(origin, predicts)


def test_another_version_is_another_row(monkeypatch):
    monkeypatch.setitem(VERSIONS, "v3", DiffBIRVersion(file_names=("v3",)))
    assert versions_of_file(Origin("v3.pth")) == ("v3",)
    assert version_of(Origin("v3.pth"), "eps") == "v3"


@pytest.fixture(scope="module")
def bases():
    """By what they predict."""
    learned = {"eps": lambda x: x, "v": lambda x: torch.full_like(x, 0.3)}
    return {name: taught(tiny_networks()["sd_unet"], each) for name, each in learned.items()}


def saved_control(path, metadata=None):
    save_checkpoint(tiny_networks()["ir_controlnet"], path, metadata=metadata)
    return load_model(path, architecture="ir_controlnet")


def test_the_class_finds_the_version(bases, tmp_path):
    others = {"sd_vae": tiny_networks()["sd_vae"]}
    unnamed = {**others, "ir_controlnet": saved_control(tmp_path / "mine.safetensors")}
    named = {**others, "ir_controlnet": saved_control(tmp_path / "v2.safetensors")}
    assert DiffBIR(sd_unet=bases["v"], **unnamed).version == "v2.1"
    found = DiffBIR(sd_unet=bases["eps"], **named)
    assert found.version == "v2" and found.alphas_cumprod[-1] > 0
    assert DiffBIR(sd_unet=bases["v"], **named, version="v1").version == "v1"
    with pytest.raises(BIRError, match="choose files that belong together"):
        DiffBIR(sd_unet=bases["v"], **named)
    with pytest.raises(BIRError, match="name the version"):
        DiffBIR(**tiny_networks())


class Wrapped(nn.Module):
    """A base of the official sizes that says no configuration."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x, timesteps, context, control=None):
        assert x.shape[1:] == (4, 32, 32) and context.shape[1:] == (77, 1024)
        return self.weight * x


def test_a_module_without_configuration_is_asked_with_the_official_sizes():
    assert ask_unet(Wrapped(), CPU).predicts == "eps"


def test_the_file_says_where_a_network_comes_from(tmp_path):
    metadata = trained("v")
    path = tmp_path / "mine.safetensors"
    control = saved_control(path, metadata)
    assert control.origin == origin_of(path, "ir_controlnet") == Origin(path.name, metadata)
    assert load_model(control.state_dict()).origin == Origin()
    with pytest.raises(BIRError, match="Expected a Stable Diffusion VAE file"):
        origin_of(path, "sd_vae")
