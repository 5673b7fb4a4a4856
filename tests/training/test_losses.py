"""The losses, and one step of each phase, against the official training vectors."""

from unittest import mock

import pytest
import torch
from parity import config_from_metadata, fill_by_rule, load_vectors

from bir_core.networks.diffir import DiffIRStage1, DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig
from bir_core.training.data import Batch
from bir_core.training.losses import pixel_l1, prior_kl, prior_l1
from bir_core.training.methods.diffir import JointLoss, PriorLoss, Stage1Loss

NETS = ["realsr_x4", "realsr_x2", "realsr_x1", "srgan_x4_b2", "deblur_b2"]


def stages(name):
    """Both stages with the weights of the vectors, and the batch and noise of the training step."""
    vectors, metadata = load_vectors(f"diffir_net_{name}")
    stage1 = DiffIRStage1(DiffIRConfig(**config_from_metadata(metadata, 1)))
    model = DiffIRStage2(DiffIRConfig(**config_from_metadata(metadata, 2)))
    fill_by_rule(stage1, int(metadata["seed0"]))
    fill_by_rule(model, int(metadata["s2_seed0"]))
    batch = Batch(vectors["input"], vectors["gt"], torch.Generator())
    return stage1.requires_grad_(False), model, batch, vectors


def losses_with_noise(loss, batch, noise):
    with mock.patch("torch.randn", return_value=noise):
        return loss(batch)


@pytest.mark.parametrize("name", NETS)
def test_joint_phase_gives_the_official_losses_and_gradients(name):
    stage1, model, batch, vectors = stages(name)
    losses = losses_with_noise(JointLoss(model, stage1), batch, vectors["train_noise"])
    shown = torch.stack([losses[key].double() for key in ("pixel", "prior", "prior_kl")])
    torch.testing.assert_close(shown, vectors["train_losses"].double(), rtol=2e-5, atol=1e-7)
    losses["total"].backward()
    gradients = {key: value.grad for key, value in sorted(model.named_parameters())}
    norms = torch.stack([gradients[key].norm() for key in gradients]).double()
    torch.testing.assert_close(norms, vectors["train_grad_norms"].double(), rtol=1e-3, atol=1e-6)
    stored = [key for key in vectors if key.startswith("train_grad::")]
    assert stored
    for key in stored:
        ours = gradients[key.removeprefix("train_grad::")]
        tolerance = 1e-3 * float(vectors[key].abs().max()) + 1e-7
        torch.testing.assert_close(ours, vectors[key], rtol=0, atol=tolerance)
    assert all(parameter.grad is None for parameter in stage1.parameters())


def test_first_phase_reaches_condition_and_denoiser_only():
    stage1, model, batch, vectors = stages("realsr_x4")
    losses = losses_with_noise(PriorLoss(model, stage1), batch, vectors["train_noise"])
    official = vectors["train_losses"][1].double()
    torch.testing.assert_close(losses["total"].double(), official, rtol=2e-5, atol=0)
    losses["total"].backward()
    touched = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert touched == {"condition", "denoise"}


def test_stage_1_loss_is_the_mean_absolute_error():
    stage1, _, batch, vectors = stages("realsr_x4")
    total = Stage1Loss(stage1)(batch)["total"]
    torch.testing.assert_close(total, (vectors["s1_out"] - batch.hq).abs().mean())


def test_values_from_the_formulas():
    a, b = torch.tensor([[0.0, 0.3]]), torch.tensor([[0.15, 0.0]])
    assert float(prior_l1(a, b)) == pytest.approx(0.225)
    p = torch.tensor([torch.e, 1.0]) / (torch.e + 1)  # softmax(b / 0.15)
    q = torch.tensor([1.0, torch.e**2]) / (torch.e**2 + 1)
    assert float(prior_kl(a, b)) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-5)
    assert float(pixel_l1(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.25))) == 0.25


def test_no_gradient_reaches_the_target():
    z, target = torch.rand(2, 256, requires_grad=True), torch.rand(2, 256, requires_grad=True)
    (prior_l1(z, target) + prior_kl(z, target)).backward()
    assert z.grad is not None
    assert target.grad is None
