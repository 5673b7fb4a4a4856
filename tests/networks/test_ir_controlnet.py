"""IRControlNet against numbers of the official code, and its start from the UNet."""

import pytest
import torch
from parity import assert_rule_check, fill_by_rule_w, load_vectors, unet_settings

from bir_core.errors import BIRError
from bir_core.networks.ir_controlnet import IRControlNet
from bir_core.networks.unet import SDUNet, UNetConfig


def small_config():
    return UNetConfig(
        model_channels=32,
        channel_mult=(1, 2),
        num_res_blocks=1,
        num_head_channels=16,
        context_dim=12,
        attention_resolutions=(1,),
    )


def small_input():
    generator = torch.Generator().manual_seed(5)
    x, hint = torch.randn(2, 2, 4, 8, 6, generator=generator)
    return x, hint, torch.tensor([999, 3]), torch.randn(2, 7, 12, generator=generator)


def random_unet():
    torch.manual_seed(0)
    return SDUNet(small_config())


@pytest.mark.parametrize(("name", "count"), [("small4", 13), ("tiny", 5)])
@torch.no_grad()
def test_control_equals_official(name, count):
    vectors, metadata = load_vectors(f"diffbir_controlnet_{name}")
    network = IRControlNet(UNetConfig(**unet_settings(metadata["config_controlnet"])))
    check = fill_by_rule_w(network, int(metadata["rule_base_controlnet"]))
    assert_rule_check(check, metadata["rule_check_controlnet"])
    arguments = [vectors[key] for key in ("x", "hint", "timesteps", "context")]
    control = network(*arguments)
    assert len(control) == count
    for index, ours in enumerate(control):
        official = vectors[f"control.{index}"]
        assert ours.shape == official.shape
        assert (ours - official).abs().max() <= 1e-4 * official.abs().max()


@torch.no_grad()
def test_start_from_the_unet_changes_nothing_yet():
    unet = random_unet()
    network = IRControlNet.from_unet(unet)
    x, hint, timesteps, context = small_input()
    control = network(x, hint, timesteps, context)
    assert all(not residual.any() for residual in control)
    assert torch.equal(
        unet(x, timesteps, context, control),
        unet(x, timesteps, context),
    )
    # Behind the zero convolutions is the UNet's own encoder, which the hint does not reach yet.
    emb = network.embed_time(timesteps, x)
    ours = network.encode(torch.cat([x, hint], dim=1), emb, context)
    for mine, theirs in zip(ours, unet.encode(x, emb, context), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_training_reaches_the_hint_after_one_step():
    unet = random_unet().requires_grad_(False)
    network = IRControlNet.from_unet(unet, checkpoint=True)
    first = network.input_blocks[0][0].weight
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    x, hint, timesteps, context = small_input()
    hint_gradients = []
    for _ in range(2):
        optimiser.zero_grad()
        eps = unet(x, timesteps, context, network(x, hint, timesteps, context))
        (eps - hint).square().mean().backward()
        hint_gradients.append(float(first.grad[:, 4:].abs().max()))
        assert network.zero_convs[0][0].weight.grad.abs().max() > 0
        assert network.middle_block_out[0].weight.grad.abs().max() > 0
        optimiser.step()
    assert hint_gradients[0] == 0 < hint_gradients[1]
    assert all(parameter.grad is None for parameter in unet.parameters())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda hint: hint[:, :3], "(B, 4, H, W)"),
        (lambda hint: hint[..., :4], "size of the noisy one"),
        (lambda hint: hint[:1], "batch"),
    ],
)
def test_wrong_hint_is_said(change, sentence):
    x, hint, timesteps, context = small_input()
    with pytest.raises(BIRError) as caught:
        IRControlNet(small_config())(x, change(hint), timesteps, context)
    assert sentence in str(caught.value)
