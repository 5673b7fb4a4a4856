"""The discriminators against their layouts, layer by layer."""

import torch
from torch.nn import functional as F

from bir_core.networks.discriminators import NLayerDiscriminator, UNetDiscriminator


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_unet_has_the_published_size_and_names():
    with torch.device("meta"):
        network = UNetDiscriminator()
    # 3x3 and 4x4 convolutions by hand; only the first and the last have biases.
    inner = 16 * (64 * 128 + 128 * 256 + 256 * 512) + 9 * (512 * 256 + 256 * 128 + 128 * 64)
    assert count(network) == (3 * 64 * 9 + 64) + inner + 2 * 9 * 64 * 64 + (64 * 9 + 1) == 4376897
    names = {f"conv{layer}.weight_{part}" for layer in range(1, 9) for part in ("orig", "u", "v")}
    plain = {f"conv{layer}.{part}" for layer in (0, 9) for part in ("weight", "bias")}
    assert set(network.state_dict()) == names | plain


def test_unet_computes_its_layout():
    torch.manual_seed(0)
    # Double precision: the first estimates of the norms are far too small.
    network = UNetDiscriminator(features=4).eval().double()
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)

    def weight(layer):
        """The stored matrix divided by its spectral norm, as the power iteration estimates it."""
        state = network.state_dict()
        original = state[f"conv{layer}.weight_orig"]
        u, v = state[f"conv{layer}.weight_u"], state[f"conv{layer}.weight_v"]
        return original / (u @ original.flatten(1) @ v)

    def act(x):
        return torch.where(x > 0, x, 0.2 * x)

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    state = network.state_dict()
    skips = [act(F.conv2d(image, state["conv0.weight"], state["conv0.bias"], padding=1))]
    for layer in (1, 2, 3):
        skips.append(act(F.conv2d(skips[-1], weight(layer), stride=2, padding=1)))
    x = skips.pop()
    for layer in (4, 5, 6):
        x = act(F.conv2d(up(x), weight(layer), padding=1)) + skips.pop()
    for layer in (7, 8):
        x = act(F.conv2d(x, weight(layer), padding=1))
    expected = F.conv2d(x, state["conv9.weight"], state["conv9.bias"], padding=1)
    result = network(image)
    assert result.shape == (2, 1, 16, 24)
    torch.testing.assert_close(result, expected)


def test_spectral_norms_come_to_one_in_training():
    torch.manual_seed(0)
    network = UNetDiscriminator(features=4).train()
    for _ in range(30):
        network(torch.rand(1, 3, 8, 8))
    for layer in range(1, 9):
        largest = torch.linalg.matrix_norm(getattr(network, f"conv{layer}").weight.flatten(1), 2)
        torch.testing.assert_close(largest, torch.ones(()), rtol=0.03, atol=0)


def test_nlayer_has_the_layout_of_lama():
    with torch.device("meta"):
        network = NLayerDiscriminator()
        logits, features = network(torch.empty(1, 3, 256, 256))
    widths = (3, 64, 128, 256, 512, 512, 1)
    convolutions = sum(16 * a * b + b for a, b in zip(widths, widths[1:], strict=False))
    assert count(network) == convolutions + 2 * (128 + 256 + 512 + 512) == 6962369
    # Padding 2 of a kernel of 4: n -> n // 2 + 1 with stride 2, n + 1 with stride 1.
    assert [tuple(each.shape[1:]) for each in features] == [
        (64, 129, 129),
        (128, 65, 65),
        (256, 33, 33),
        (512, 17, 17),
        (512, 18, 18),
    ]
    assert logits.shape == (1, 1, 19, 19)
    assert {name.split(".")[0] for name in network.state_dict()} == {f"model{i}" for i in range(6)}


def test_nlayer_computes_its_layout():
    torch.manual_seed(0)
    network = NLayerDiscriminator(features=2, layers=2).train()
    image = torch.rand(3, 3, 12, 12)
    state = {name: value.clone() for name, value in network.state_dict().items()}

    def convolve(x, name, stride):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=2)

    x = F.leaky_relu(convolve(image, "model0.0", 2), 0.2)
    expected = [x]
    for layer, stride in ((1, 2), (2, 1)):
        x = convolve(x, f"model{layer}.0", stride)
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        expected.append(x := F.leaky_relu((x - mean) / (variance + 1e-5).sqrt(), 0.2))
    logits, features = network(image)
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, convolve(x, "model3.0", 1), rtol=1e-4, atol=1e-5)
