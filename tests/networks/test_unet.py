"""The UNet against numbers of the official code."""

import pytest
import torch
from parity import assert_rule_check, fill_by_rule_w, load_vectors, unet_settings

from bir_core.errors import BIRError
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.layers import timestep_embedding
from bir_core.networks.unet import SDUNet, UNetConfig


def assert_close_to_maximum(ours, official, tolerance=1e-4):
    assert ours.shape == official.shape
    assert (ours - official).abs().max() <= tolerance * official.abs().max()


def official_networks(metadata):
    networks = []
    for kind, build in (("unet", SDUNet), ("controlnet", IRControlNet)):
        network = build(UNetConfig(**unet_settings(metadata[f"config_{kind}"])))
        check = fill_by_rule_w(network, int(metadata[f"rule_base_{kind}"]))
        assert_rule_check(check, metadata[f"rule_check_{kind}"])
        networks.append(network)
    return networks


def small_config(**changes):
    sizes = {"model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1}
    heads = {"num_head_channels": 16, "context_dim": 12, "attention_resolutions": (1, 2)}
    return UNetConfig(**{**sizes, **heads, **changes})


def small_input(batch=2, **kwargs):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(batch, 4, 8, 6, generator=generator).to(**kwargs)
    context = torch.randn(batch, 7, 12, generator=generator).to(**kwargs)
    return x, torch.linspace(999, 3, batch), context


def random_unet(**changes):
    torch.manual_seed(0)
    return SDUNet(small_config(**changes))


@torch.no_grad()
def test_four_levels_equal_official():
    vectors, metadata = load_vectors("diffbir_controlnet_small4")
    unet, _ = official_networks(metadata)
    control = [vectors[f"control.{index}"] for index in range(13)]
    before = list(control)
    eps = unet(vectors["x"], vectors["timesteps"], vectors["context"], control)
    assert_close_to_maximum(eps, vectors["eps"])
    assert all(a is b for a, b in zip(control, before, strict=True))


@pytest.mark.parametrize(
    ("name", "strength"), [("eps_s1", 1), ("eps_s0p7", 0.7), ("eps_nocontrol", None)]
)
@torch.no_grad()
def test_strengths_equal_official(name, strength):
    vectors, metadata = load_vectors("diffbir_controlnet_tiny")
    unet, _ = official_networks(metadata)
    control = strength and [strength * vectors[f"control.{index}"] for index in range(5)]
    eps = unet(vectors["x"], vectors["timesteps"], vectors["context"], control)
    assert_close_to_maximum(eps, vectors[name])


@torch.no_grad()
def test_fractional_timesteps_equal_official():
    vectors, metadata = load_vectors("diffbir_controlnet_tiny")
    unet, controlnet = official_networks(metadata)
    timesteps = torch.tensor([500.25, 998.999])
    control = controlnet(vectors["x"], vectors["hint"], timesteps, vectors["context"])
    eps = unet(vectors["x"], timesteps, vectors["context"], control)
    assert_close_to_maximum(eps, vectors["eps_float_t"])


def test_time_embedding_is_cosines_then_sines():
    embedding = timestep_embedding(torch.tensor([0, 3]), 4)
    angles = torch.tensor([3.0, 3.0 * 10000**-0.5])
    expected = torch.stack([torch.tensor([1.0, 1, 0, 0]), torch.cat([angles.cos(), angles.sin()])])
    torch.testing.assert_close(embedding, expected)


@torch.no_grad()
def test_images_of_a_batch_do_not_mix():
    unet, (x, timesteps, context) = random_unet(), small_input(batch=3)
    together = unet(x, timesteps, context)
    for index in range(3):
        own = slice(index, index + 1)
        alone = unet(x[own], timesteps[own], context[own])
        torch.testing.assert_close(together[own], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01), (torch.float64, 1e-4)]
)
@torch.no_grad()
def test_other_precisions_stay_close(dtype, tolerance):
    unet = random_unet()
    x, timesteps, context = small_input()
    expected = unet(x, timesteps, context)
    eps = unet.to(dtype)(x.to(dtype), timesteps, context.to(dtype))
    assert eps.dtype == dtype
    assert_close_to_maximum(eps.float(), expected, tolerance)


@torch.no_grad()
def test_norms_of_large_values_do_not_overflow_in_half_precision():
    norm = random_unet().out[0].half()
    x = 1000 * torch.randn(1, 32, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    normalised = norm(x).float()
    assert normalised.isfinite().all()
    assert abs(float(normalised.std()) - 1) < 0.05


def test_checkpointing_recomputes_and_keeps_the_gradients():
    unet, (x, timesteps, context) = random_unet(), small_input()
    control = [
        torch.zeros(2, width, 8 // step, 6 // step)
        for width, step in ((32, 1), (32, 1), (32, 2), (64, 2), (64, 2))
    ]
    passes = {"plain": [], "checkpoint": []}
    gradients = {}
    for kind, calls in passes.items():
        unet.checkpoint = kind == "checkpoint"
        hook = unet.output_blocks[0].register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        leaves = [residual.clone().requires_grad_() for residual in control]
        unet(x, timesteps, context, leaves).square().sum().backward()
        gradients[kind] = [leaf.grad for leaf in leaves]
        hook.remove()
    assert (len(passes["plain"]), len(passes["checkpoint"])) == (1, 2)
    for plain, recomputed in zip(gradients["plain"], gradients["checkpoint"], strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(recomputed, plain)


BAD_CALLS = {
    "(B, 4, H, W)": lambda x, t, c: (x[:, :3], t, c),
    "divide by 2": lambda x, t, c: (x[..., :5], t, c),
    "text encoder of Stable Diffusion 2.1": lambda x, t, c: (x, t, c[..., :8]),
    "5 residuals, but 1 came": lambda x, t, c: (x, t, c, [x]),
}


@pytest.mark.parametrize("sentence", BAD_CALLS)
def test_wrong_input_is_said(sentence):
    with pytest.raises(BIRError) as caught:
        random_unet()(*BAD_CALLS[sentence](*small_input()))
    assert sentence in str(caught.value)


@pytest.mark.parametrize("changes", [{"model_channels": 40}, {"num_head_channels": 24}])
def test_impossible_configuration_is_said(changes):
    with pytest.raises(BIRError, match="should divide"):
        small_config(**changes)
