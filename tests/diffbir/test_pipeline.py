"""The whole pipeline against the official code, and what every option does."""

import importlib.util
import json
from functools import partial

import pytest
import rrdbnet
import torch
from diffbir_models import TINY_SWINIR, filled, networks_of_vectors, swinir_of_vectors
from diffbir_models import tiny_networks as make_tiny_networks
from parity import load_vectors
from torch import nn

from bir_core.compact.restore import restore_compact
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.prompts import encode_prompts
from bir_core.diffbir.restoration_modules import load_restoration_module
from bir_core.diffbir.runs import Request
from bir_core.diffbir.settings import DiffBIRSettings, official_settings
from bir_core.diffusion.noise import brownian_noise, draw_normal, image_generators
from bir_core.diffusion.sampling import SAMPLERS
from bir_core.diffusion.schedules import sampling_schedule
from bir_core.errors import BIRError
from bir_core.images import from_channels_last
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.swinir import SwinIR
from bir_core.networks.unet import UNetConfig

OFFICIAL = {"tile": 0, "vae_tile": 0, "padding": "black", "steps": 3}
QUICK = {"steps": 2, "short_side": 0, "tile": 0, "vae_tile": 0}


class Watched(DiffBIR):
    """Keeps what the stages gave."""

    def encode(self, *arguments, **more):
        self.latent = super().encode(*arguments, **more)
        return self.latent

    def sample(self, *arguments, **more):
        self.sampled = super().sample(*arguments, **more)
        return self.sampled


def relative_error(ours, official):
    return float((ours - official).abs().max() / official.abs().max())


@pytest.mark.parametrize("name", ["bsr", "swinir"])
def test_equals_official_from_end_to_end(name, tmp_path):
    """v2 (BSRNet through spandrel, spaced, eps) and v2.1 (SwinIR, SDE sampler, v, rescaled cfg)."""
    pytest.importorskip("open_clip")
    vectors, metadata = load_vectors("diffbir_e2e")
    lq = load_vectors("diffbir_stage1")[0][f"{name}.lq"]
    args = json.loads(metadata[f"{name}.args"])
    networks, text_encoder = networks_of_vectors(metadata)
    if name == "bsr":
        pytest.importorskip("spandrel")
        torch.save(rrdbnet.of_vectors(metadata), tmp_path / "BSRNet.pth")
        module = load_restoration_module(tmp_path / "BSRNet.pth")
        stage1 = {"stage1": module.restore, "stage1_scale": module.scale, "version": "v2"}
        settings, upscale_by = DiffBIRSettings(sampler="spaced", cfg=4.0, **OFFICIAL), 4.0
    else:
        stage1 = {"stage1": swinir_of_vectors(metadata), "version": "v2.1"}
        settings, upscale_by = DiffBIRSettings(cfg=8.0, rescale_cfg=True, **OFFICIAL), 1.0
    assert (settings.cfg, settings.rescale_cfg) == (args["cfg_scale"], args["rescale_cfg"])
    shapes = json.loads(metadata[f"{name}.draw_shapes"])
    drawn = []

    def noise(like):
        assert list(like.shape) == shapes[len(drawn)]
        seed = int(metadata[f"{name}.noise_seed"]) + len(drawn)
        drawn.append(seed)
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))

    pipeline = Watched(**networks, **stage1)
    prompts = encode_prompts(text_encoder, [args["pos_prompt"], args["neg_prompt"]]).split(1)
    restored = pipeline(
        from_channels_last(lq[None].float() / 255),
        *prompts,
        upscale_by=upscale_by,
        settings=settings,
        noise=noise,
    )
    assert len(drawn) == len(shapes)
    for ours, key in ((pipeline.latent, "c_latent"), (pipeline.sampled, "z")):
        assert relative_error(ours[..., ::4, ::4], vectors[f"{name}.{key}_sub4"]) <= 1e-4
    ours = (255 * restored).to(torch.uint8)[0, :, ::4, ::4].permute(1, 2, 0).int()
    steps = (ours - vectors[f"{name}.out_sub4"].int()).abs()
    assert ours.shape == vectors[f"{name}.out_sub4"].shape
    assert steps.max() <= 1
    assert (steps == 0).float().mean() > 0.99


@pytest.fixture(scope="module")
def networks():
    return make_tiny_networks()


@pytest.fixture(scope="module")
def pipeline(networks):
    return DiffBIR(**networks, version="v2.1")


def embedding(seed):
    return torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(seed))


def picture(height=64, width=64, count=1, seed=0):
    small = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bilinear")
    return smooth.clamp(0, 1)


def restored(pipeline, image, *, seed=0, upscale_by=1.0, callback=None, task="sr", **settings):
    return pipeline(
        image,
        embedding(1),
        embedding(2),
        upscale_by=upscale_by,
        settings=DiffBIRSettings(**{**QUICK, **settings}),
        seed=seed,
        callback=callback,
        task=task,
    )


@pytest.mark.parametrize(("height", "width"), [(64, 64), (1, 1), (37, 90), (130, 65)])
def test_any_size(pipeline, height, width):
    out = restored(pipeline, picture(height, width), upscale_by=1.5 if height > 1 else 2.0)
    factor = 1.5 if height > 1 else 2.0
    assert out.shape == (1, 3, int(height * factor), int(width * factor))
    assert out.dtype == torch.float32 and out.is_contiguous()
    assert out.min() >= 0 and out.max() <= 1
    assert out.std() > 0.001 or height == 1


@pytest.mark.parametrize("color_fix", ["wavelet", "adain", "none"])
def test_grey_stays_grey(networks, color_fix):
    swinir = filled(SwinIR(TINY_SWINIR), 5000)
    pipeline = DiffBIR(**networks, stage1=swinir, version="v2.1")
    image = picture(count=2)
    image[0] = image[0, :1].clone()
    grey, coloured = restored(pipeline, image, upscale_by=1.5, short_side=128, color_fix=color_fix)
    assert torch.equal(grey, grey[:1].expand(3, -1, -1)) and grey.std() > 0.001
    assert not torch.equal(coloured, coloured[:1].expand(3, -1, -1))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("version", ["v2", "v2.1"])
def test_every_sampler_runs_and_depends_on_the_seed(networks, version, sampler):
    pipeline = DiffBIR(**networks, version=version)
    outs = [restored(pipeline, picture(), sampler=sampler, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(outs[0], outs[1])
    assert not torch.allclose(outs[0], outs[2], atol=1e-3)


def test_an_image_of_a_batch_is_as_alone(pipeline):
    batch = torch.cat([picture(seed=0), picture(seed=1)])
    together = restored(pipeline, batch, seed=5, noise_aug=50)
    for index in range(2):
        alone = restored(pipeline, batch[index, None], seed=5 + index, noise_aug=50)
        torch.testing.assert_close(together[index, None], alone, rtol=0, atol=1e-4)


def test_shared_noise_makes_equal_frames_equal(pipeline):
    frames = torch.cat([picture(seed=0), picture(seed=1), picture(seed=0)])
    settings = DiffBIRSettings(**QUICK, noise_aug=50)
    prompts = embedding(1), embedding(2)
    call = partial(pipeline, frames, *prompts, upscale_by=1.0, settings=settings, seed=5)
    shared, each = call(shared_noise=True), call()
    torch.testing.assert_close(shared[2], shared[0], rtol=0, atol=1e-4)
    assert not torch.allclose(each[2], each[0], atol=1e-3)
    alone = restored(pipeline, frames[1, None], seed=5, noise_aug=50)
    torch.testing.assert_close(shared[1, None], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 3},
        {"cfg": 1.0},
        {"rescale_cfg": True},
        {"strength": 0.0},
        {"strength": 0.5},
        {"noise_aug": 199},
        {"start": "condition"},
        {"guidance": 2.0},
        {"guidance": 2.0, "guidance_loss": "mse"},
        {"guidance": 2.0, "guidance_space": "rgb"},
        {"blending": 0.3},
        {"guidance": 2.0, "guidance_repeats": 3},
        {"color_fix": "adain"},
        {"color_fix": "none"},
        {"padding": "black"},
        {"short_side": 128},
        {"tile": 64, "overlap": 32},
        {"sampler": "euler_ancestral", "sampler_options": {"eta": 0.5}},
        {"sampler": "euler", "sampler_options": {"s_churn": 1.0}},
    ],
)
def test_every_option_changes_the_result(networks, changed):
    # The steps that start at sigma 1e4 are not for random eps networks.
    version = "v2.1" if "sampler" in changed else "v2"
    pipeline = DiffBIR(**networks, version=version)
    image = picture(72, 80)
    usual = restored(pipeline, image, sampler=changed.get("sampler", "spaced"))
    other = restored(pipeline, image, **{"sampler": "spaced", **changed})
    assert other.shape == usual.shape
    assert (other - usual).abs().max() > 1e-4


@pytest.mark.parametrize("changed", [{"guidance_start": 0.0}, {"guidance_stop": 1000.0}])
def test_guidance_outside_of_its_time_does_nothing(pipeline, changed):
    image = picture()
    guided = restored(pipeline, image, guidance=2.0, **changed)
    assert torch.equal(guided, restored(pipeline, image))


def test_guidance_per_512_pixels_is_that_of_a_scale_for_this_size(pipeline):
    image = picture()
    at_any_size = restored(pipeline, image, guidance=0.5, guidance_per="512x512")
    of_this = restored(pipeline, image, guidance=0.5 * 64**2 / 512**2)
    torch.testing.assert_close(at_any_size, of_this)
    assert (at_any_size - restored(pipeline, image, guidance=0.5)).abs().max() > 1e-4


def test_blending_goes_to_the_picture_of_stage1(pipeline):
    image = picture()
    usual, half, whole = (restored(pipeline, image, blending=share) for share in (0.0, 0.5, 1.0))
    run = pipeline.decide(
        Request(height=64, width=64, upscale_by=1.0, settings=DiffBIRSettings(**QUICK))
    )
    stage1 = pipeline.remove_degradation(image, run, callback=lambda *_: None)
    torch.testing.assert_close(whole, stage1.clamp(0, 1))
    assert (half - usual).abs().max() > 1e-4


def test_guidance_brings_the_sample_closer_to_the_condition(networks):
    pipeline = Watched(**networks, version="v2")
    distances = []
    for scale in (0.0, 0.5 * 64**2 / 512**2):  # the recommended scale, for this size
        restored(pipeline, picture(), sampler="spaced", steps=5, guidance=scale)
        distances.append(float((pipeline.sampled - pipeline.latent).pow(2).mean()))
    assert distances[1] < 0.9 * distances[0]


def test_exact_tiles_of_the_vae_change_nothing(pipeline):
    image = picture(130, 100)
    whole = restored(pipeline, image)
    torch.testing.assert_close(restored(pipeline, image, vae_tile=64), whole, rtol=0, atol=1e-4)


def test_overlap_is_half_a_tile_at_most(pipeline):
    image = picture(130, 130)
    half, more = (restored(pipeline, image, tile=64, overlap=overlap) for overlap in (32, 256))
    assert torch.equal(half, more)


def test_tile_batch_changes_nothing(pipeline):
    image = picture(130, 130)
    one, four = (
        restored(pipeline, image, tile=64, overlap=32, tile_batch=count) for count in (1, 4)
    )
    torch.testing.assert_close(one, four, rtol=0, atol=1e-4)


@pytest.mark.parametrize("task", ["sr", "denoise", "face"])
@pytest.mark.parametrize("version", ["v1", "v2", "v2.1"])
def test_stage1_sees_the_size_of_the_official_order(networks, task, version):
    seen = []

    def stage1(x):
        seen.append(tuple(x.shape[-2:]))
        return x

    pipeline = DiffBIR(**networks, version=version, stage1=stage1)
    out = restored(pipeline, picture(40, 48), upscale_by=1.5, task=task, short_side=70)
    assert out.shape[-2:] == (60, 72)
    expected = {("v2", "sr"): (40, 48), ("v2", "denoise"): (60, 72)}
    assert seen == [expected.get((version, task), (128, 128))]


def test_stage1_in_tiles_and_with_a_scale(networks):
    swinir = filled(SwinIR(TINY_SWINIR), 5000)
    swinir.conv_last.weight.mul_(0.3)
    pipeline = DiffBIR(**networks, stage1=swinir, version="v2.1")
    image = picture(128, 128)
    whole = restored(pipeline, image)
    assert (whole - restored(pipeline, image, stage1_tile=64)).abs().max() > 1e-5
    enlarging = nn.Upsample(scale_factor=2, mode="nearest")
    pipeline = DiffBIR(**networks, stage1=enlarging, stage1_scale=2, version="v2")
    assert restored(pipeline, picture(32, 40), upscale_by=4.0).shape[-2:] == (128, 160)


def test_a_model_as_stage1_says_its_scale(networks):
    model = CompactRestorer(CompactConfig(scale=2, features=4, layers=1)).eval()
    draw_near_identity(model.requires_grad_(False), torch.Generator().manual_seed(0))
    said = DiffBIR(**networks, stage1=model, version="v2")
    asked = DiffBIR(
        **networks, stage1=lambda x: restore_compact(x, model), stage1_scale=2, version="v2"
    )
    image = picture(32, 40)
    assert torch.equal(restored(said, image), restored(asked, image))


def test_a_stage1_of_another_scale_than_it_says_is_refused(networks):
    enlarging = nn.Upsample(scale_factor=4, mode="nearest")
    pipeline = DiffBIR(**networks, stage1=lambda x: enlarging(x), version="v2")
    with pytest.raises(BIRError, match=r"1 times the size of its input, but .* came; state the"):
        restored(pipeline, picture(32, 40))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype):
    image = picture()
    exact = restored(DiffBIR(**make_tiny_networks(), version="v2.1"), image)
    half = make_tiny_networks()
    for name in ("sd_unet", "ir_controlnet"):
        half[name].to(dtype)
    ours = restored(DiffBIR(**half, version="v2.1"), image)
    assert ours.dtype == torch.float32
    assert 0 < (ours - exact).abs().max() < 0.1
    half["sd_vae"].to(dtype)
    everything = restored(DiffBIR(**half, version="v2.1"), image)
    assert 0 < (everything - ours).abs().max() < 0.1
    in_tiles = restored(DiffBIR(**half, version="v2.1"), picture(128, 128), tile=64, vae_tile=64)
    assert torch.isfinite(in_tiles).all()


def test_overflow_of_half_precision_is_repeated_in_float32(caplog):
    networks = make_tiny_networks()
    image = picture()
    networks["sd_unet"].input_blocks[0][0].weight.mul_(1e4)
    networks["sd_unet"].to(torch.bfloat16).float()  # what half precision can hold
    networks["ir_controlnet"].to(torch.bfloat16).float()
    expected = restored(DiffBIR(**networks, version="v2.1"), image)

    class Overflowing(nn.Module):
        """Overflows in half precision, as a wide network does in float16."""

        def __init__(self, network):
            super().__init__()
            self.network, self.config = network, network.config

        def forward(self, x, *others):
            out = self.network(x, *others)
            return out if x.dtype == torch.float32 else out * float("inf")

    networks["sd_unet"] = Overflowing(networks["sd_unet"].to(torch.bfloat16))
    networks["ir_controlnet"].to(torch.bfloat16)
    torch.testing.assert_close(restored(DiffBIR(**networks, version="v2.1"), image), expected)
    assert "repeating in float32" in caplog.text
    assert next(networks["sd_unet"].parameters()).dtype == torch.bfloat16


def test_numbers_that_are_none_are_an_error_with_the_stage(networks):
    broken = make_tiny_networks()
    broken["sd_vae"].decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(BIRError, match="The decoded picture"):
        restored(DiffBIR(**broken, version="v2.1"), picture())


def test_without_memory_the_tiles_become_smaller(networks, caplog):
    class Small(nn.Module):
        """Has memory for latents of 8 x 8."""

        def __init__(self, network):
            super().__init__()
            self.network, self.config = network, network.config

        def forward(self, x, *others):
            if x.shape[-1] > 8:
                raise torch.OutOfMemoryError("out of memory")
            return self.network(x, *others)

    image = picture(128, 128)
    pipeline = DiffBIR(**{**networks, "sd_unet": Small(networks["sd_unet"])}, version="v2.1")
    tiled = restored(pipeline, image, overlap=32)
    assert "tiles of 64 pixels" in caplog.text
    direct = restored(DiffBIR(**networks, version="v2.1"), image, tile=64, overlap=32)
    torch.testing.assert_close(tiled, direct)
    networks_without = {**networks, "sd_unet": Small(networks["sd_unet"])}
    networks_without["sd_unet"].forward = lambda *_: (_ for _ in ()).throw(
        torch.OutOfMemoryError("out of memory")
    )
    with pytest.raises(BIRError, match="a tile of 64 pixels"):
        restored(DiffBIR(**networks_without, version="v2.1"), image)


def test_start_noise_is_that_of_the_seed(networks):
    """The first draw is what the nodes take for the same seed."""
    drawn = []

    def noise(like):
        drawn.append(like)
        return draw_normal(image_generators(7, len(like)), like)

    pipeline = DiffBIR(**networks, version="v2.1")
    options = DiffBIRSettings(**QUICK, sampler="euler")
    arguments = {"upscale_by": 1.0, "settings": options}
    ours = pipeline(picture(), embedding(1), embedding(2), noise=noise, **arguments)
    assert len(drawn) == 1
    seeded = pipeline(picture(), embedding(1), embedding(2), seed=7, **arguments)
    assert torch.equal(ours, seeded)


def test_noise_of_the_sde_samplers_is_a_brownian_path(networks):
    """Seeded like the noise of the start, over the levels of the run."""
    pytest.importorskip("torchsde", reason="torchsde is not installed")
    options = DiffBIRSettings(**{**QUICK, "steps": 3})
    assert options.sampler == "dpmpp_3m_sde"
    pipeline = DiffBIR(**networks, version="v2.1")
    sigmas = sampling_schedule("edm", pipeline.alphas_cumprod, 3).sigmas
    drawn = []

    def noise(like):
        step = len(drawn)
        drawn.append(step)
        if step == 0:
            return draw_normal(image_generators(7, 1), like)
        return brownian_noise([7], like, sigmas)(*sigmas[step - 1 : step + 1].tolist())

    arguments = {"upscale_by": 1.0, "settings": options}
    ours = pipeline(picture(), embedding(1), embedding(2), noise=noise, **arguments)
    assert len(drawn) == 3
    seeded = pipeline(picture(), embedding(1), embedding(2), seed=7, **arguments)
    torch.testing.assert_close(ours, seeded, rtol=0, atol=1e-5)


def test_sde_sampler_without_torchsde(networks, monkeypatch):
    """A sentence before any work; with noise of one's own, or another sampler, it is not needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = []
    pipeline = DiffBIR(**networks, version="v2.1")
    with pytest.raises(BIRError, match="or choose another sampler"):
        restored(pipeline, picture(), callback=lambda *step: told.append(step))
    assert told == []
    restored(pipeline, picture(), sampler="euler_ancestral")
    settings = DiffBIRSettings(**QUICK)
    texts = embedding(1), embedding(2)
    pipeline(picture(), *texts, upscale_by=1.0, settings=settings, noise=torch.randn_like)


def test_callback_is_told_every_stage_and_may_cancel(pipeline):
    told = []
    restored(pipeline, picture(), callback=lambda *step: told.append(step), vae_tile=64)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["stage 1", "encoding", "sampling", "decoding"]
    assert [step for step in told if step[0] == "sampling"] == [
        ("sampling", 1, 2),
        ("sampling", 2, 2),
    ]

    class Cancelled(Exception):
        pass

    def cancel(stage, done, total):
        if stage == "sampling":
            raise Cancelled

    with pytest.raises(Cancelled):
        restored(pipeline, picture(), callback=cancel)


def test_official_settings():
    chosen = {v: official_settings(v) for v in ("v1", "v2", "v2.1")}
    found = {v: (one.sampler, one.steps, one.cfg) for v, one in chosen.items()}
    assert found == {
        "v1": ("spaced", 50, 1.0),
        "v2": ("spaced", 50, 4.0),
        "v2.1": ("dpmpp_3m_sde", 10, 8.0),
    }


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sampler": "plms"}, "one of the samplers"),
        ({"sampler": "spaced", "sampler_options": {"eta": 1.0}}, "has the options none"),
        ({"sampler": "euler", "sampler_options": {"eta": 1.0}}, "s_churn"),
        ({"sampler": "lms", "sampler_options": {"order": 1.5}}, "from 1 to 8"),
        ({"noise_aug": 1000}, "0 to 999"),
        ({"tile": 100}, "multiple of 64"),
        ({"overlap": -8, "tile": 64}, "overlap of -8"),
        ({"color_fix": "lab"}, "adain, none for color_fix"),
        ({"start": "image"}, "noise, condition for start"),
        ({"guidance_loss": "l1"}, "for guidance_loss"),
        ({"guidance_per": "pixel"}, "for guidance_per"),
        ({"blending": 1.5}, "share from 0 to 1"),
        ({"sampler": "ddim", "steps": 3}, "divides 1000"),
        ({"steps": 0}, "between 1 and 1000"),
        ({"stage1_tile": 100}, "multiple of 64"),
        ({"vae_tile": 32}, "at least 64 pixels"),
        ({"tile_batch": 0}, "At least one tile"),
        ({"guidance_repeats": 0}, "at least once"),
    ],
)
def test_bad_settings(pipeline, settings, sentence):
    with pytest.raises(BIRError, match=sentence):
        restored(pipeline, picture(), **settings)


def test_bad_input(networks, pipeline):
    with pytest.raises(BIRError, match="v1, v2, v2.1"):
        DiffBIR(**networks, version="v3")
    other = IRControlNet(UNetConfig(model_channels=64, channel_mult=(1,), context_dim=32))
    with pytest.raises(BIRError, match="sizes of the base"):
        DiffBIR(**{**networks, "ir_controlnet": other}, version="v2.1")
    with pytest.raises(BIRError, match="negative prompt"):
        pipeline(picture(), embedding(1), settings=DiffBIRSettings(**QUICK))
    with pytest.raises(BIRError, match="embedding of a prompt"):
        pipeline(picture(), embedding(1)[0], embedding(2), settings=DiffBIRSettings(**QUICK))
    with pytest.raises(BIRError, match="B, 3, H, W"):
        pipeline(picture()[:, :1], embedding(1), embedding(2))
    with pytest.raises(BIRError, match="finite"):
        pipeline(picture() * float("nan"), embedding(1), embedding(2))
