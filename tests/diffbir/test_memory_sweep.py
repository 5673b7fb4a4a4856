"""The plan of DiffBIR against the measured peak of each stage, over sizes, pieces and settings.

Measured in memory are sizes that narrow networks restore in seconds. The maps of the VAE are also
counted without being computed, up to 8192 pixels.
"""

import pytest
import torch
from diffbir_models import tiny_networks

from bir_core.benchmarks.tensor_memory import TensorMemory, peak_tensors_of
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.exact_vae.maps import Parking
from bir_core.exact_vae.memory_plan import peak_bytes
from bir_core.exact_vae.operations import decoder_operations, encoder_operations
from bir_core.exact_vae.passes import run_tiled
from bir_core.networks.autoencoder import SDVAE, VAEConfig
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.networks.unet import SDUNet, UNetConfig
from bir_core.pictures.files import WRITING_PICTURES, Picture, write_picture

STAGES = {
    "remove_degradation": "stage 1",
    "encode": "encoding",
    "sample": "sampling",
    "decode": "decoding",
}


def eval_mode(network):
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def networks():
    config = UNetConfig(model_channels=32, context_dim=32, num_head_channels=32)
    swinir = SwinIRConfig(depths=(1,), num_heads=(2,))
    return {
        "sd_unet": eval_mode(SDUNet(config)),
        "ir_controlnet": eval_mode(IRControlNet(config)),
        "sd_vae": eval_mode(SDVAE(VAEConfig(ch=32))),
        "stage1": eval_mode(SwinIR(swinir)),
    }


def peaks(pipeline, image, **options):
    """Peak bytes of each stage: everything that is alive until the next one begins."""
    embedding, found = torch.zeros(1, 4, 32), {}
    with TensorMemory() as memory:

        def watched(name):
            work, stage = getattr(pipeline, name), STAGES[name]

            def call(*args, **more):
                before.append(stage)
                found[before[-2]] = memory.restart()
                return work(*args, **more)

            return call

        before = ["before"]
        for name in STAGES:
            setattr(pipeline, name, watched(name))
        pipeline(image, embedding, embedding, upscale_by=1.0, **options)
        found[before[-1]] = memory.restart()
    return found


def assert_as_planned(plan, found):
    for stage in plan.stages:
        measured = found[stage.name]
        assert 0.95 * measured <= stage.work <= 1.15 * measured, stage


@pytest.mark.parametrize(
    ("size", "chosen"),
    [
        ((64, 64), {}),
        ((128, 320), {}),
        ((200, 150), {"vae_tile": 64, "tile": 64, "overlap": 32}),
        ((256, 256), {"vae_tile": 64, "stage1_tile": 128}),
        ((256, 192), {"guidance": 1.0, "blending": 0.5, "padding": "black"}),
        ((250, 190), {"color_fix": "adain", "cfg": 1.0, "vae_tile": 128}),
        ((192, 192), {"color_fix": "none", "stage1_tile": 64, "sampler": "euler"}),
    ],
)
def test_each_stage_takes_what_is_planned(networks, size, chosen):
    options = DiffBIRSettings(**{"steps": 2, "short_side": 0, **chosen})
    pipeline = DiffBIR(**networks, version="v2.1")
    plan = pipeline.plan(*size, upscale_by=1.0, settings=options)
    found = peaks(pipeline, torch.rand(1, 3, *size), settings=options)
    assert_as_planned(plan, found)


def test_maps_in_a_file_take_what_is_planned(networks, monkeypatch, tmp_path):
    """Of a run whose memory does not hold them."""
    options = DiffBIRSettings(steps=1, short_side=0, vae_tile=64, tile=64)
    pipeline = DiffBIR(**{**networks, "stage1": None}, version="v2.1", folder=tmp_path)
    free = 8 * 10**6
    for module in ("diffbir.pipeline", "exact_vae.tiled"):
        monkeypatch.setattr(f"bir_core.{module}.free_memory", lambda device: free)
    plan = pipeline.plan(256, 256, upscale_by=1.0, settings=options)
    assert plan.stage("decoding").filed == 384 // 4 * 256 * 256 * 4
    assert plan.stage("encoding").filed and not plan.stage("sampling").filed
    found = peaks(pipeline, torch.rand(1, 3, 256, 256), settings=options)
    assert_as_planned(plan, found)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "chosen",
    [
        {"tile": 0, "vae_tile": 0},
        {"tile": 64, "overlap": 0, "tile_batch": 4},
        {"guidance": 1.0, "guidance_space": "rgb"},
        {"guidance": 1.0, "guidance_space": "rgb", "tile": 64, "vae_tile": 64},
    ],
)
def test_a_whole_run_stays_within_its_plan(chosen):
    """Where pieces of several shapes are alive together the plan is an upper bound."""
    pipeline = DiffBIR(**tiny_networks(), version="v2.1")
    options = DiffBIRSettings(**{"steps": 3, "short_side": 0, **chosen})
    plan = pipeline.plan(160, 192, upscale_by=1.0, settings=options)
    found = peaks(pipeline, torch.rand(1, 3, 160, 192), settings=options)
    for stage in plan.stages:
        assert found[stage.name] <= 1.05 * stage.work
    assert max(found.values()) > 0.2 * max(stage.work for stage in plan.stages)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("side", [64, 448, 1024, 2112, 4096, 8192])
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_maps_of_the_vae_at_any_size(side, half, dtype):
    """On a device that computes nothing, with tiles of half of the side."""
    vae = eval_mode(SDVAE(VAEConfig(ch=32)).to("meta", dtype))
    tile, meta = max(64, side // 2), torch.device("meta")
    if half == "decoder":
        operations, shape = decoder_operations(vae.decoder), (1, 4, side // 8, side // 8)
    else:
        operations, shape = encoder_operations(vae.encoder), (1, 3, side, side)
    x = torch.empty(shape, dtype=dtype, device=meta)
    result, measured = peak_tensors_of(
        lambda: run_tiled(operations, x, tile=tile, parking=Parking(meta, torch.float32))
    )
    planned = peak_bytes(
        operations,
        *shape[-2:],
        tile=tile,
        dtype=dtype,
        parked=torch.float32,
        elsewhere=False,
        copied=False,
    )
    assert result.device == meta
    assert 0.95 * measured <= planned <= 1.15 * measured


@pytest.mark.parametrize("size", [(64, 64), (300, 500), (1500, 1000)])
def test_writing_takes_what_is_planned(size, tmp_path):
    def written():
        image = torch.rand(1, 3, *size)
        write_picture(tmp_path / "new.png", Picture(image=image))
        return image

    _, measured = peak_tensors_of(written)
    planned = WRITING_PICTURES * 12 * size[0] * size[1]
    assert 0.95 * measured <= planned <= 1.15 * measured
