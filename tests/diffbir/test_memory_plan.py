"""The memory plan of DiffBIR: against measured peaks, and what it promises for every memory."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffbir_models import tiny_networks
from hypothesis import given, settings
from hypothesis import strategies as st

import bir_core.diffbir.pipeline
from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.diffbir.memory_plan import PLENTY, TILES, plan_diffbir
from bir_core.diffbir.network_memory import (
    SWINIR_MAPS,
    VAE_GRADIENT_MAPS,
    VAE_MAPS,
    control_memory,
    fitting_tile,
    plan_stage1,
    stage2_memory,
    tiles_at_a_time,
)
from bir_core.diffbir.networks import official_networks
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.restoration_modules import RestorationModule, in_strips
from bir_core.diffbir.settings import DiffBIRSettings, settled
from bir_core.diffbir.stage1 import stage1_sizes
from bir_core.memory import USABLE, weight_bytes
from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.networks.unet import SDUNet, UNetConfig

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
GB = 10**9


def eval_mode(network):
    return network.eval().requires_grad_(False)


# Measured peaks: an estimate may be above them, within reason, and never below.


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_of_unet_and_controlnet(dtype):
    config = UNetConfig(model_channels=64, context_dim=64)
    unet, control = (eval_mode(kind(config)).to(dtype) for kind in (SDUNet, IRControlNet))
    x = torch.zeros(2, 4, 16, 24, dtype=dtype)
    context, timesteps = torch.zeros(2, 77, 64, dtype=dtype), torch.ones(2)

    def step():
        return unet(x, timesteps, context, control(x, x, timesteps, context))

    _, peak = peak_tensors_of(step)
    networks = SimpleNamespace(sd_unet=unet)
    estimate = stage2_memory(networks, 8 * 16, 8 * 24, 2)
    assert 0.9 * estimate < peak <= estimate
    _, peak = peak_tensors_of(lambda: control(x, x, timesteps, context)[-1])
    estimate = control_memory(config, 2, 16, 24, dtype.itemsize)
    assert 0.9 * estimate < peak <= estimate


@pytest.fixture(scope="module")
def vae():
    return eval_mode(SDVAE(VAEConfig(ch=32)))


def test_maps_of_the_whole_vae_and_of_its_gradient(vae):
    pixels, latent = torch.rand(1, 3, 64, 96), torch.randn(1, 4, 8, 12)
    numbers = 32 * 64 * 96 * 4
    for half, x in ((vae.encode, pixels), (vae.decode, latent)):
        with torch.no_grad():
            _, peak = peak_tensors_of(lambda half=half, x=x: half(x))
        assert 0.7 * VAE_MAPS * numbers < peak <= VAE_MAPS * numbers
    source = latent.requires_grad_()
    with torch.enable_grad():
        _, peak = peak_tensors_of(lambda: torch.autograd.grad(vae.decode(source).sum(), source)[0])
    assert 0.9 * VAE_GRADIENT_MAPS * numbers < peak <= VAE_GRADIENT_MAPS * numbers


@torch.no_grad()
def test_maps_of_stage1():
    """Of SwinIR what they are, of any other network an upper bound."""
    swinir = eval_mode(SwinIR(SwinIRConfig(depths=(6, 6), num_heads=(6, 6))))
    _, peak = peak_tensors_of(lambda: swinir(torch.rand(1, 3, 128, 128)))
    estimate = SWINIR_MAPS * 128 * 128 * 4
    assert 0.9 * estimate < peak <= estimate
    arch = pytest.importorskip("spandrel.architectures.ESRGAN.__arch.RRDB")
    bsrnet = eval_mode(arch.RRDBNet(num_filters=64, num_blocks=1, scale=4))
    _, peak = peak_tensors_of(lambda: bsrnet(torch.rand(1, 3, 48, 48)))
    module = RestorationModule(bsrnet, 4, "ESRGAN", bsrnet)
    estimate = plan_stage1(module, (48, 48), None, PLENTY, device_type="cpu").work
    assert 0.3 * estimate < peak <= estimate


def test_stage1_alone():
    module = RestorationModule(lambda x: x, 1, "custom")
    whole = plan_stage1(module, (512, 512), None, PLENTY, device_type="cuda")
    assert plan_stage1(module, (512, 512), None, whole.work, device_type="cuda") == whole
    assert whole.tile == 0
    large = plan_stage1(module, (4096, 4096), None, 1.9 * whole.work, device_type="cuda")
    assert large.tile == 704
    assert fitting_tile((4096, 4096), 10, 1) == 64
    # A tile that is set counts, not the picture.
    chosen = plan_stage1(module, (4096, 4096), 512, PLENTY, device_type="cuda")
    assert (chosen.tile, chosen.work) == (512, whole.work)


def test_tiles_at_a_time():
    assert [tiles_at_a_time(5, 10, room, CUDA) for room in (-9, 9, 31, 999)] == [1, 1, 3, 5]
    assert tiles_at_a_time(99, 10, 10**6, CUDA) == 8
    assert tiles_at_a_time(5, 10, 999, CPU) == 1


# What is promised for every memory.


@pytest.fixture(scope="module")
def official():
    return official_networks("v2.1", "sr", torch.float16)


def planned(networks, memory, height=1024, width=768, *, host=10**12, **more):
    options = more.pop("settings", DiffBIRSettings())
    sizes = stage1_sizes(height, width, "enlarge_first", 2.0, options.short_side)
    return plan_diffbir(
        networks,
        sizes,
        "enlarge_first",
        options,
        **{"device": CUDA, "memory": memory, "host_memory": host, **more},
    )


@settings(max_examples=12)
@given(st.integers(GB, 60 * GB), st.integers(1, 8), st.booleans())
def test_more_memory_never_means_smaller_pieces(official, memory, images, offload):
    plan, richer = (
        planned(official, each, images=images, offload=offload) for each in (memory, 2 * memory)
    )
    for name in ("encoding", "sampling", "decoding"):
        assert richer.stage(name).tile >= plan.stage(name).tile
    before, after = (each.stage("stage 1").tile or 10**9 for each in (plan, richer))
    assert after >= before
    assert richer.images >= plan.images
    assert richer.fits or not plan.fits
    if plan.fits:
        assert all(stage.memory <= USABLE * memory for stage in plan.stages)


@settings(max_examples=12)
@given(st.integers(GB, 30 * GB), st.integers(256, 4096), st.integers(256, 4096))
def test_offloading_never_takes_more(official, memory, height, width):
    usual, offloaded = (
        planned(official, memory, height, width, offload=each) for each in (False, True)
    )
    assert offloaded.fits or not usual.fits
    for one, other in zip(usual.stages, offloaded.stages, strict=True):
        assert other.weights < one.weights


def test_a_result_depends_on_the_memory_only_where_it_is_scarce(official):
    """The sampling keeps to its tiles while they fit, and what else is in the batch changes no
    tile."""
    for memory in (6 * GB, 12 * GB, 48 * GB):
        plan = planned(official, memory)
        assert plan.fits
        assert plan.stage("sampling").tile == TILES[0]
    assert planned(official, 48 * GB).stage("sampling").tile_batch > 1
    tight = planned(official, 6 * GB, images=64)
    assert tight.images == 1
    assert tight.stage("sampling").tile == TILES[0]
    assert planned(official, 200 * GB, images=4).images == 4
    poor = planned(official, int(3.8 * GB), offload=False)
    assert poor.stage("sampling").tile < TILES[0]


def test_a_card_of_six_gigabytes(official):
    """For which networks wait on the host: from 1024 x 768 to 4096 x 3072 pixels in float16."""
    sizes = {"height": 1536, "width": 2048}
    assert planned(official, 6 * GB, **sizes, offload=True).fits
    wide = official_networks("v2.1", "sr", torch.float32)
    assert not planned(wide, 6 * GB, **sizes).fits
    assert planned(wide, 8 * GB, **sizes, offload=True).fits


def test_maps_that_the_device_cannot_hold_wait_on_the_host(official):
    rich, poor = planned(official, 100 * GB), planned(official, 6 * GB)
    assert rich.stage("decoding").parked == 0
    assert poor.stage("decoding").parked > 0
    assert not planned(official, 6 * GB, host=GB).fits
    on_cpu = planned(official, 100 * GB, device=CPU)
    assert on_cpu.stage("decoding").parked == 0
    assert on_cpu.stage("sampling").tile_batch == 1


def test_8192_pixels_fit_ten_gigabytes_with_maps_in_a_file(official):
    """Where neither device nor host holds them; the price is said, and a disk that is too small."""
    poor = {"height": 4096, "width": 4096, "host": 16 * GB, "offload": True}
    plan = planned(official, 10 * GB, **poor, disk=110 * GB)
    assert plan.fits
    assert plan.filed == plan.stage("decoding").filed == 384 * 8192**2 * 4
    assert plan.stage("encoding").filed == 256 * 8192**2 * 4
    assert all(stage.parked < 16 * GB * USABLE for stage in plan.stages)
    assert plan.stage("decoding").moved > 5 * plan.filed
    assert "a file of 103.1 GB" in str(plan)
    without = planned(official, 10 * GB, **poor, disk=100 * GB)
    assert not without.fits
    assert "decoding needs 103.1 GB of the 100.0 GB free disk" in without.verdict("memory")
    # In memory wherever that does, with the same tiles.
    rich = planned(official, 10 * GB, **{**poor, "host": 140 * GB}, disk=110 * GB)
    assert rich.filed == 0 and rich.stage("decoding").parked == plan.filed
    on_cpu = planned(official, 16 * GB, **{**poor, "offload": False}, device=CPU, disk=110 * GB)
    assert on_cpu.fits and on_cpu.filed == plan.filed


def test_choices_of_the_user_stay(official):
    chosen = {"tile": 128, "tile_batch": 3, "vae_tile": 128, "stage1_tile": 192}
    options = DiffBIRSettings(**chosen)
    for memory in (GB, 100 * GB):
        plan = planned(official, memory, settings=options)
        assert settled(options, plan) == options
    whole = DiffBIRSettings(tile=0, vae_tile=0, stage1_tile=0)
    plan = planned(official, GB, settings=whole)
    assert [stage.pieces for stage in plan.stages] == ["whole"] * 4
    assert not plan.fits
    without = replace(official, stage1=None)
    assert settled(options, planned(without, 100 * GB, settings=options)) == options


def test_pictures_within_a_tile_need_no_batch_of_tiles(official):
    plan = planned(official, 100 * GB, 256, 256)
    assert plan.stage("sampling").tile_batch == 1


def test_guidance_in_pixels_counts_the_way_back(official):
    """As a whole, in tiles on the device, and in tiles with the maps on the host."""
    guided = {"guidance": 1.0, "guidance_space": "rgb"}
    whole, rich, poor = (
        planned(official, memory, settings=DiffBIRSettings(**guided, **tile)).stage("sampling")
        for memory, tile in ((100 * GB, {"tile": 0}), (100 * GB, {}), (8 * GB, {}))
    )
    assert whole.work > 20_000 * 2048 * 1536
    assert rich.parked == 0 and rich.work < 0.5 * whole.work
    assert poor.parked > 0 and poor.work < 0.2 * rich.work
    assert poor.tile == TILES[0]


def test_diffir_in_stage1_takes_strips():
    config = DiffIRConfig(dim=16, task="deblur", num_blocks=(1, 1, 1, 1))
    model = eval_mode(DiffIRStage2(config))
    pipeline = DiffBIR(**tiny_networks(), stage1=in_strips(model), version="v2.1")
    stage = pipeline.plan(512, 512, memory=8 * GB).stage("stage 1")
    assert stage.tile == 0
    assert stage.rows > 0
    tiled = pipeline.plan(512, 512, memory=8 * GB, settings=DiffBIRSettings(stage1_tile=128))
    assert tiled.stage("stage 1").tile == 128
    # A tile takes what its strips take, whatever the size of the picture.
    alone = plan_stage1(in_strips(model), (128, 128), None, 8 * GB, device_type="cpu")
    both = [
        plan_stage1(in_strips(model), size, 128, 8 * GB, device_type="cpu")
        for size in ((512, 512), (4096, 4096))
    ]
    assert [stage.work for stage in both] == [alone.work] * 2
    assert 0 < alone.work < stage.work
    assert "strips of" in stage.pieces


# In a run.


def run_with(free, monkeypatch, count=1, **chosen):
    pipeline = DiffBIR(**tiny_networks(), version="v2.1")
    weights = weight_bytes(*pipeline.networks.modules)
    monkeypatch.setattr(bir_core.diffbir.pipeline, "free_memory", lambda device: free)
    options = DiffBIRSettings(**{"steps": 2, "short_side": 0, "overlap": 32, **chosen})
    image = torch.rand(count, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    embedding = torch.zeros(1, 4, 32)
    plan = pipeline.plan(192, 192, upscale_by=1.0, settings=options, images=count)
    assert plan.memory == free + weights
    return plan, pipeline(image, embedding, embedding, upscale_by=1.0, settings=options)


def test_a_run_keeps_to_its_plan_and_says_it(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "bir_core.diffbir.pipeline")
    plan, scarce = run_with(3 * 10**6, monkeypatch)
    assert plan.stage("sampling").tile == 64
    assert str(plan) in caplog.text
    assert "sampling tiles of 64" in caplog.text
    _, expected = run_with(GB, monkeypatch, tile=64, vae_tile=64)
    torch.testing.assert_close(scarce, expected, rtol=0, atol=1e-4)


def test_a_batch_that_does_not_fit_is_restored_picture_by_picture(monkeypatch):
    plan, scarce = run_with(16 * 10**6, monkeypatch, count=3)
    assert plan.images == 1
    richer, expected = run_with(10 * GB, monkeypatch, count=3)
    assert richer.images == 3
    torch.testing.assert_close(scarce, expected, rtol=0, atol=1e-4)


def test_a_run_that_may_not_fit_is_tried_with_a_warning(monkeypatch, caplog):
    plan, restored = run_with(10**6, monkeypatch, vae_tile=0)
    assert not plan.fits
    assert "may not have the memory" in caplog.text
    assert torch.isfinite(restored).all()
