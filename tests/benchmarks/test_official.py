"""Checkouts of the official code, whose place small ones take that are made here."""

import sys

import pytest
import torch

from bir_core.benchmarks.cases import Case, Conditions, measure
from bir_core.benchmarks.comparing import compare
from bir_core.benchmarks.diffir import diffir_sides
from bir_core.benchmarks.official import require_checkouts
from bir_core.errors import BIRError
from bir_core.networks.autoencoder import VAEConfig
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.unet import UNetConfig

CPU = torch.device("cpu")
DIFFIR = DiffIRConfig(
    task="sr",
    scale=4,
    dim=8,
    num_blocks=(1, 1, 1, 1),
    num_refinement_blocks=1,
    layer_norm="BiasFree",
    n_encoder_res=1,
)
UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1,),
    num_head_channels=16,
    context_dim=16,
)
VAE = VAEConfig(ch=32, num_res_blocks=1)

# Asks for what the official file asks for, names its sizes in the same way, and draws its noise.
S2_ARCH = """
from basicsr.utils.registry import ARCH_REGISTRY
import torch
import DiffIR.archs.common
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

@ARCH_REGISTRY.register()
class DiffIRS2(DiffIRStage2):
    def __init__(self, *, LayerNorm_type, scale, num_blocks, heads, **sizes):
        print("a line that belongs to no table")
        super().__init__(DiffIRConfig(
            task="sr", scale=scale, layer_norm=LayerNorm_type, num_blocks=tuple(num_blocks),
            heads=tuple(heads), **sizes))
        self.register_buffer("posterior_mean_coef1", None)

    def forward(self, img):
        return super().forward(img, torch.randn(len(img), 256))
"""
CONTROLNET = """
from omegaconf.listconfig import ListConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.unet import SDUNet, UNetConfig

def config(sizes):
    names = ("in_channels", "model_channels", "num_res_blocks", "num_head_channels", "context_dim")
    own = {name: sizes[name] for name in names}
    lists = {name: tuple(sizes[name]) for name in ("channel_mult", "attention_resolutions")}
    return UNetConfig(**own, **lists)

class ControlledUnetModel(SDUNet):
    def __init__(self, *, out_channels, **sizes):
        super().__init__(config(sizes))

class ControlNet(IRControlNet):
    def __init__(self, *, hint_channels, **sizes):
        super().__init__(config(sizes))

    def forward(self, x, hint, timesteps, context):
        return super().forward(x, hint, timesteps, context)
"""
AUTOENCODER = """
from bir_core.networks.autoencoder import SDVAE, VAEConfig

class AutoencoderKL(SDVAE):
    def __init__(self, sizes, embed_dim):
        super().__init__(VAEConfig(
            ch=sizes["ch"], ch_mult=tuple(sizes["ch_mult"]), embed_dim=embed_dim,
            num_res_blocks=sizes["num_res_blocks"], z_channels=sizes["z_channels"]))
"""


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def diffir(tmp_path):
    file = "DiffIR/archs/S2_arch.py"
    return write(
        tmp_path,
        {
            f"DiffIR-RealSR/{file}": S2_ARCH,
            f"DiffIR-demotionblur/{file}": S2_ARCH,
            "DiffIR-RealSR/DiffIR/archs/common.py": "",
            "DiffIR-RealSR/DiffIR/__init__.py": "raise RuntimeError('runs what is not needed')",
        },
    )


@pytest.fixture
def diffbir(tmp_path):
    return write(
        tmp_path,
        {
            "diffbir/model/controlnet.py": CONTROLNET,
            "diffbir/model/vae.py": AUTOENCODER,
            "diffbir/model/__init__.py": "raise RuntimeError('runs what is not needed')",
        },
    )


def sides(checkout, config=DIFFIR):
    return diffir_sides(config, 16, 8, CPU, official=checkout)


def test_diffir_runs_with_our_weights_and_noise(diffir, capsys):
    require_checkouts(diffir, None)
    before, path = set(sys.modules), list(sys.path)
    found = compare(sides(diffir), CPU, 1)
    assert [side.side for side in found] == ["official", "plain", "streamed"]
    assert found[1].difference == 0
    assert found[2].difference < 1e-5
    assert not {name for name in set(sys.modules) - before if "DiffIR" in name or "basic" in name}
    assert sys.path == path
    assert capsys.readouterr().out == ""


def test_diffbir_shares_our_weights(diffbir):
    require_checkouts(None, diffbir)
    conditions = Conditions(device="cpu", repeats=1, official_diffbir=str(diffbir))
    for kind, first_of_ours in (("step", "cfg"), ("decode", "whole")):
        case = Case(kind=kind, height=64, width=128, tile=64)
        official, ours, *_ = measure(case, conditions, UNET, VAE)
        assert (official.side, ours.side) == ("official", first_of_ours)
        assert ours.difference == 0
        assert official.operations == ours.operations


def test_the_official_networks_know_float32_only(diffbir):
    conditions = Conditions(
        device="cpu", repeats=1, dtype="bfloat16", official_diffbir=str(diffbir)
    )
    first, *_ = measure(Case(kind="step", height=64, width=64), conditions, UNET, VAE)
    assert first.side == "cfg"


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(BIRError, match=r"official DiffIR with DiffIR-RealSR.*S2_arch\.py in it"):
        require_checkouts(tmp_path, None)
    with pytest.raises(BIRError, match="official DiffBIR with diffbir/model/controlnet.py in it"):
        require_checkouts(None, tmp_path)


def test_a_package_that_is_missing(diffir):
    write(diffir / "DiffIR-RealSR", {"DiffIR/archs/common.py": "import no_such_package_here"})
    with pytest.raises(BIRError, match="No module named 'no_such_package_here'.*install"):
        sides(diffir)


def test_code_of_other_sizes(diffir):
    other = S2_ARCH.replace("**sizes))", "**(sizes | {'dim': 16})))")
    write(diffir / "DiffIR-RealSR", {"DiffIR/archs/S2_arch.py": other})
    with pytest.raises(BIRError, match="the weights of its published files, but G"):
        sides(diffir)


def test_inpainting_is_not_measured_against(diffir):
    with pytest.raises(BIRError, match="measured for sr and deblur, but a network for inpainting"):
        sides(diffir, DiffIRConfig(task="inpainting", num_refinement_blocks=0))
