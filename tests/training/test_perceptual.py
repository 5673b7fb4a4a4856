"""Perceptual losses, with random weights in files of the published forms."""

import pytest
import torch
from safetensors.torch import save_file

from bir_core.errors import BIRError
from bir_core.networks.perceptual import VGG19, DilatedResNet50
from bir_core.training.perceptual import (
    ResNetLoss,
    VGG19Loss,
    read_dilated_resnet50,
    read_vgg19,
)

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(scope="module")
def vgg19_file(tmp_path_factory):
    """As torchvision saves it, with the start of its classifier."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(VGG19().state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture
def pictures():
    torch.manual_seed(1)
    return torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16)


def test_vgg19_loss_is_its_formula(vgg19_file, pictures):
    restored, hq = pictures
    network = read_vgg19(vgg19_file)
    loss = VGG19Loss(network)(restored, hq)
    expected = torch.zeros(())
    for place, weight in ((2, 0.1), (7, 0.1), (16, 1), (25, 1), (34, 1)):
        layers = network.features[: place + 1]
        ours, target = layers((restored - MEAN) / DEVIATION), layers((hq - MEAN) / DEVIATION)
        expected = expected + weight * (ours - target).abs().mean()
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, restored)
    (theirs,) = torch.autograd.grad(expected, restored)
    torch.testing.assert_close(ours, theirs)
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_resnet_loss_is_its_formula(tmp_path, pictures):
    restored, hq = pictures
    torch.manual_seed(2)
    state = DilatedResNet50().state_dict()
    # Older files have no counters.
    weights = {name: value for name, value in state.items() if "num_batches" not in name}
    save_file(weights, tmp_path / "encoder.safetensors")
    network = read_dilated_resnet50(tmp_path / "encoder.safetensors")
    loss = ResNetLoss(network)(restored, hq)
    assert not network.training  # its batch norms use what they stored
    maps = zip(
        network((restored - MEAN) / DEVIATION), network((hq - MEAN) / DEVIATION), strict=True
    )
    expected = sum(((a - b) ** 2).mean() for a, b in maps)
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, restored)
    (theirs,) = torch.autograd.grad(expected, restored)
    torch.testing.assert_close(ours, theirs)


def test_vgg19_is_looked_for_where_torch_hub_keeps_it(vgg19_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BIRError, match=r"VGG19 at .*/hub/checkpoints/vgg19-dcbb9e9d.pth, but"):
        read_vgg19(None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / vgg19_file.name).write_bytes(vgg19_file.read_bytes())
    found = read_vgg19(None).state_dict()
    given = read_vgg19(vgg19_file).state_dict()
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_absent_and_wrong_files_are_sentences(vgg19_file, tmp_path):
    with pytest.raises(BIRError, match="encoder_epoch_20.pth .* --perceptual, or set .* weight"):
        read_dilated_resnet50(None)
    with pytest.raises(BIRError, match=r"dilated ResNet-50 .* another network \(see its key conv1"):
        read_dilated_resnet50(vgg19_file)
    # A deeper network holds all keys of this one.
    deeper = DilatedResNet50().state_dict()
    deeper["layer3.6.conv1.weight"] = deeper["layer3.5.conv1.weight"].clone()
    torch.save(deeper, tmp_path / "deeper.pth")
    with pytest.raises(BIRError, match="another network .* key layer3.6.conv1.weight"):
        read_dilated_resnet50(tmp_path / "deeper.pth")
