"""The losses of the GAN stage and of inpainting against their formulas, gradients included."""

import pytest
import torch

from bir_core.training.losses import (
    feature_matching,
    feature_sum,
    known_l1,
    masked_discriminator,
    non_saturating_generator,
    r1_penalty,
    vanilla_gan,
)


def gradient(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return (3 * torch.randn(2, 1, 3, 4)).requires_grad_()


@pytest.mark.parametrize("real", [True, False])
def test_vanilla_gan_is_the_cross_entropy(logits, real):
    loss = vanilla_gan(logits, real=real)
    p = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(loss, -(p if real else 1 - p).log().mean())
    torch.testing.assert_close(gradient(loss, logits)[0], (p - float(real)) / logits.numel())


def test_generator_loss_is_the_softplus(logits):
    loss = non_saturating_generator(logits)
    torch.testing.assert_close(loss, torch.log(1 + torch.exp(-logits)).mean())
    p = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(gradient(loss, logits)[0], (p - 1) / logits.numel())


def test_discriminator_counts_what_lies_outside_the_hole_as_real(logits):
    real = torch.randn(2, 1, 3, 4, requires_grad=True)
    hole = torch.zeros(2, 1, 6, 8)
    hole[0, :, 2:4, 6:] = 1  # one cell of the logits
    hole[1, :, :, 1::2] = 1  # between the pixels that nearest neighbours take
    penalty = torch.tensor(0.25)
    loss = masked_discriminator(real, logits, hole, penalty)
    m = torch.zeros_like(logits, requires_grad=False)
    m[0, 0, 1, 3] = 1

    def softplus(x):
        return torch.log(1 + torch.exp(x))

    expected = softplus(-real) + m * softplus(logits) + (1 - m) * softplus(-logits)
    torch.testing.assert_close(loss, expected.mean() + penalty)
    of_real, of_fake = gradient(loss, real, logits)
    torch.testing.assert_close(of_real, (torch.sigmoid(real) - 1) / 24)
    torch.testing.assert_close(of_fake, (torch.sigmoid(logits) - (1 - m)) / 24)


def test_penalty_is_the_squared_gradient_of_a_quadratic_judge():
    """D(x) = sum a x^2 / 2 has the gradient a x."""
    image = torch.randn(4, 3, 2, 2, requires_grad=True)
    a = torch.randn(3, 2, 2, requires_grad=True)
    logits = (0.5 * a * image**2).sum(dim=(1, 2, 3), keepdim=True)
    penalty = r1_penalty(logits, image)
    torch.testing.assert_close(penalty, (a * image).square().sum() / 4)
    torch.testing.assert_close(gradient(penalty, a)[0], (2 * a * image**2).sum(0) / 4)


def test_features_are_averaged_or_summed_over_layers():
    ours = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2)]
    target = [torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 2, 2)]
    errors = [((a - b) ** 2).sum() / a.numel() for a, b in zip(ours, target, strict=True)]
    torch.testing.assert_close(feature_matching(ours, target), (errors[0] + errors[1]) / 2)
    torch.testing.assert_close(feature_sum(ours, target), errors[0] + errors[1])
    loss = feature_matching(ours, target)
    torch.testing.assert_close(gradient(loss, ours[0])[0], (ours[0] - target[0]) / 96)
    assert torch.autograd.grad(loss, target[0], allow_unused=True) == (None,)


def test_known_pixels_are_compared():
    restored, hq = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4)
    hole = (torch.rand(2, 1, 4, 4) < 0.5).float()
    loss = known_l1(restored, hq, hole)
    differences = [(restored - hq)[b, :, y, x].abs() for b, _, y, x in (hole == 0).nonzero()]
    torch.testing.assert_close(loss, torch.stack(differences).sum() / 96)
    expected = (1 - hole) * torch.sign(restored - hq) / 96
    torch.testing.assert_close(gradient(loss, restored)[0], expected)


def test_losses_are_float32_in_mixed_precision(logits):
    half = logits.to(torch.bfloat16)
    image = torch.rand(2, 3, 4, 4).to(torch.bfloat16)
    losses = [
        vanilla_gan(half, real=True),
        non_saturating_generator(half),
        masked_discriminator(half, half, torch.ones(2, 1, 4, 4), torch.zeros(())),
        feature_matching([half], [half]),
        known_l1(image, image, torch.ones(2, 1, 4, 4)),
    ]
    assert {loss.dtype for loss in losses} == {torch.float32}
