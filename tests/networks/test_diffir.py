"""The plain DiffIR network against numbers of the official code."""

import json

import pytest
import torch
from parity import DATA, config_from_metadata, fill_by_rule, load_vectors
from tolerances import IPR

from bir_core.errors import BIRError
from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2, DIRformerBlock
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.networks.diffir_prior import CPEN, IPRDenoiser, IPRDiffusion, draw_noise

NETS = sorted(path.stem for path in DATA.glob("diffir_net_*.safetensors"))
CPENS = sorted(path.stem for path in DATA.glob("diffir_cpen_*.safetensors"))


def assert_close_to_maximum(ours, official, tolerance=1e-4):
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= tolerance * official.abs().max()


def pad(image, metadata, scale=1):
    multiple = int(metadata.get("pad_multiple", 1)) * scale
    height, width = image.shape[-2:]
    padding = (0, -width % multiple, 0, -height % multiple)
    return torch.nn.functional.pad(image, padding, mode="reflect")


def small_config(**changes):
    sizes = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "n_encoder_res": 1}
    return DiffIRConfig(**{"task": "sr", "scale": 4, **sizes, **changes})


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_stage_1_equals_official(name):
    vectors, metadata = load_vectors(name)
    config = DiffIRConfig(**config_from_metadata(metadata, 1))
    network = DiffIRStage1(config)
    wsum = fill_by_rule(network, int(metadata["seed0"]))
    torch.testing.assert_close(
        torch.tensor(wsum, dtype=torch.float64), vectors["s1_wsum"], rtol=1e-6, atol=0
    )
    lq = pad(vectors["input"], metadata)
    hq = pad(vectors["gt"], metadata, config.scale)
    torch.testing.assert_close(network.encode(lq, hq), vectors["s1_ipr"], **IPR)
    height, width = vectors["s1_out"].shape[-2:]
    assert_close_to_maximum(network(lq, hq)[..., :height, :width], vectors["s1_out"])


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_stage_2_equals_official(name):
    vectors, metadata = load_vectors(name)
    network = DiffIRStage2(DiffIRConfig(**config_from_metadata(metadata, 2)))
    wsum = fill_by_rule(network, int(metadata["s2_seed0"]))
    torch.testing.assert_close(
        torch.tensor(wsum, dtype=torch.float64), vectors["s2_wsum"], rtol=1e-6, atol=0
    )
    lq, noise = pad(vectors["input"], metadata), vectors["s2_noise"]
    cond = network.encode_condition(lq)
    torch.testing.assert_close(cond, vectors["s2_cond"], **IPR)
    states = [noise, *network.reverse(noise, cond)]
    for index, t in enumerate(reversed(range(4))):
        # what enters and leaves the denoiser, in the order of its calls
        torch.testing.assert_close(states[index], vectors["s2_steps_in"][index], **IPR)
        denoised = network.denoise(states[index], t, cond)
        torch.testing.assert_close(denoised, vectors["s2_steps_x0"][index], **IPR)
    torch.testing.assert_close(states[-1], vectors["s2_ipr"], **IPR)
    height, width = vectors["s2_out"].shape[-2:]
    assert_close_to_maximum(network(lq, noise)[..., :height, :width], vectors["s2_out"])


@pytest.mark.parametrize("name", [name for name in NETS if not name.endswith("_odd")])
def test_training_pass_and_gradients_equal_official(name):
    vectors, metadata = load_vectors(name)
    network = DiffIRStage2(DiffIRConfig(**config_from_metadata(metadata, 2)))
    fill_by_rule(network, int(metadata["s2_seed0"]))
    lq, target, z_s1 = vectors["input"], vectors["gt"], vectors["s1_ipr"]
    states = network.reverse(
        network.diffusion.q_sample(z_s1, vectors["train_noise"]), network.encode_condition(lq)
    )
    torch.testing.assert_close(torch.stack(states), vectors["train_ipr_list"], **IPR)
    out = network.G(lq, states[-1])
    assert_close_to_maximum(out, vectors["train_out"])
    pixel, prior = (out - target).abs().mean(), (states[-1] - z_s1).abs().mean()
    torch.testing.assert_close(
        torch.stack([pixel, prior]).double(), vectors["train_losses"][:2], rtol=1e-5, atol=0
    )
    (pixel + prior).backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    norms = torch.tensor(
        [-1.0 if gradients[n] is None else gradients[n].double().norm() for n in sorted(gradients)],
        dtype=torch.float64,
    )
    torch.testing.assert_close(norms, vectors["train_grad_norms"], rtol=1e-3, atol=1e-6)
    for key in vectors:
        if key.startswith("train_grad::"):
            ours = gradients[key.removeprefix("train_grad::")]
            assert_close_to_maximum(ours, vectors[key], 1e-3)


@pytest.mark.parametrize("name", CPENS)
@torch.no_grad()
def test_cpen_equals_official(name):
    vectors, metadata = load_vectors(name)
    settings = json.loads(metadata["config"])
    unshuffle = 4 // settings["scale"]
    lq = torch.nn.functional.pixel_unshuffle(vectors["x"], unshuffle)
    if settings["stage"] == "S1":
        lq = torch.cat([lq, torch.nn.functional.pixel_unshuffle(vectors["gt"], 4)], dim=1)
    network = CPEN(lq.shape[1], settings["n_encoder_res"])
    fill_by_rule(network, int(metadata["seed0"]), prefix="E.")
    torch.testing.assert_close(network(lq), vectors["ipr"], **IPR)


@pytest.mark.parametrize("kind", ["withbias", "biasfree"])
@torch.no_grad()
def test_block_equals_official(kind):
    vectors, metadata = load_vectors(f"diffir_block_{kind}")
    settings = json.loads(metadata["config"])
    config = small_config(
        dim=settings["dim"],
        heads=(settings["heads"],) * 4,
        ffn_expansion_factor=settings["ffn_expansion_factor"],
        layer_norm=settings["LayerNorm_type"],
    )
    block = DIRformerBlock(config, settings["dim"], settings["heads"])
    block.load_state_dict(
        {key.removeprefix("w::"): value for key, value in vectors.items() if key[:3] == "w::"}
    )
    x, z = vectors["x"], vectors["ipr"]
    attended = block.attn(block.norm1(x), z)
    torch.testing.assert_close(attended, vectors["attn"], rtol=1e-5, atol=1e-5)
    fed = block.ffn(block.norm2(x + attended), z)
    torch.testing.assert_close(fed, vectors["ffn"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(block(x, z), vectors["out"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_reverse_loop_equals_official():
    vectors, _ = load_vectors("diffir_reverse_loop")
    config = small_config()
    denoise, diffusion = IPRDenoiser(config), IPRDiffusion(config)
    denoise.load_state_dict(
        {k.removeprefix("w::"): v.float() for k, v in vectors.items() if k.startswith("w::")}
    )
    z = vectors["z_T"]
    for step, t in enumerate(reversed(range(4))):
        z_0 = denoise(z, t, vectors["cond"])
        torch.testing.assert_close(z_0, vectors["x0"][step], **IPR)
        z = diffusion.posterior_mean(z_0, z, t)
        torch.testing.assert_close(z, vectors["z"][step], **IPR)
    torch.testing.assert_close(
        diffusion.q_sample(vectors["z_gt"], vectors["z_T"]), vectors["q_sample"], **IPR
    )


def test_schedules_equal_official():
    vectors, _ = load_vectors("diffir_schedules")
    prefixes = sorted({key.split("/")[0] for key in vectors})
    assert len(prefixes) == 4
    for prefix in prefixes:
        timesteps, start, end = prefix[1:].split("_")
        diffusion = IPRDiffusion(
            small_config(timesteps=int(timesteps), linear_start=float(start), linear_end=float(end))
        )
        for table in ("betas", "alphas_cumprod", "posterior_mean_coef1", "posterior_mean_coef2"):
            ours = torch.as_tensor(getattr(diffusion, table), dtype=torch.float32)
            torch.testing.assert_close(ours, vectors[f"{prefix}/{table}"], **IPR)


@torch.no_grad()
def test_noise_of_an_image_does_not_depend_on_the_batch():
    together = draw_noise(3, seed=7)
    for index in range(3):
        assert torch.equal(together[index], draw_noise(1, seed=7 + index)[0])


@pytest.mark.parametrize("shape", [(1, 3, 8, 12), (1, 4, 8, 8), (3, 8, 8)])
def test_wrong_input_is_said(shape):
    network = DiffIRStage2(small_config())
    with pytest.raises(BIRError, match="expects"):
        network(torch.zeros(shape))


@pytest.mark.parametrize("changes", [{"scale": 3}, {"task": "deblur", "scale": 4}, {"dim": 9}])
def test_impossible_configuration_is_said(changes):
    with pytest.raises(BIRError, match="should"):
        small_config(
            **{"heads": (1, 2, 4, 8), **changes}
            if "dim" not in changes
            else {"dim": 9, "heads": (2, 2, 4, 8)}
        )
