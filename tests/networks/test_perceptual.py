"""The perceptual networks against torchvision's and timm's, with random weights."""

import types

import pytest
import timm
import torch
import torchvision
from torch import nn

from bir_core.networks.perceptual import VGG16, VGG19, AlexNet, DilatedResNet50, L2Pooling


def test_vgg19_gives_the_features_before_the_relu():
    torch.manual_seed(0)
    reference = torchvision.models.vgg19(weights=None).features.eval()
    network = VGG19().eval()
    network.load_state_dict({f"features.{k}": v for k, v in reference.state_dict().items()})
    image = torch.randn(1, 3, 32, 48)
    convolutions = [i for i, layer in enumerate(reference) if isinstance(layer, nn.Conv2d)]
    # Of the 16 convolutions: the 2nd, 4th, 8th, 12th and 16th.
    places = {"conv1_2": 1, "conv2_2": 3, "conv3_4": 7, "conv4_4": 11, "conv5_4": 15}
    with torch.no_grad():
        features = network(image, tuple(places))
        assert list(features) == list(places)
        for name, place in places.items():
            expected = image
            for layer in reference[: convolutions[place] + 1]:
                expected = layer(expected.clone())  # its ReLUs work in place
            torch.testing.assert_close(features[name], expected)
            assert (features[name] < 0).any()


@pytest.mark.parametrize("build", [VGG16, AlexNet])
@pytest.mark.parametrize("levels", [1, 3, 5])
@torch.no_grad()
def test_levels_end_with_the_last_relu_before_a_pooling_or_a_convolution(build, levels):
    torch.manual_seed(0)
    published = {VGG16: torchvision.models.vgg16, AlexNet: torchvision.models.alexnet}[build]
    reference = published(weights=None).features.eval()
    network = build(levels)
    weights = {f"features.{name}": value for name, value in reference.state_dict().items()}
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    # The places in torchvision's list: relu1_2, relu2_2, relu3_3, relu4_3, relu5_3; and all ReLUs.
    places = {VGG16: (3, 8, 15, 22, 29), AlexNet: (1, 4, 7, 9, 11)}[build][:levels]
    image = torch.randn(1, 3, 48, 64)
    features = network(image)
    assert [each.shape[1] for each in features] == list(build.channels[:levels])
    for place, ours in zip(places, features, strict=True):
        torch.testing.assert_close(ours, reference[: place + 1](image.clone()))
        assert ours.std() > 0
    least = build.least_sides[levels - 1]
    assert min(network(torch.randn(1, 3, least, least))[-1].shape[-2:]) == 1
    if least > 1:
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 3, least - 1, least - 1))


@torch.no_grad()
def test_l2_pooling_is_the_root_of_a_weighted_mean_of_squares():
    x = torch.randn(2, 5, 7, 8, generator=torch.Generator().manual_seed(0))
    pooled = L2Pooling()(x)
    assert pooled.shape == (2, 5, 4, 4)
    weights = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    expected = (x[:, :, 1:4, 3:6].square() * weights).sum((2, 3)).sqrt()  # around (2, 4)
    torch.testing.assert_close(pooled[:, :, 1, 2], expected)
    # Beyond the border all is 0.
    corner = (x[:, :, :2, :2].square() * weights[1:, 1:]).sum((2, 3)).sqrt()
    torch.testing.assert_close(pooled[:, :, 0, 0], corner)


@pytest.mark.parametrize("build", [VGG16, VGG19, AlexNet])
def test_layers_come_from_the_operations(build):
    class Convolution(nn.Conv2d):
        pass

    network = build(operations=types.SimpleNamespace(Conv2d=Convolution))
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == {VGG16: 13, VGG19: 16, AlexNet: 5}[build]
    assert all(isinstance(layer, Convolution) for layer in convolutions)


def test_dilated_resnet_computes_what_timm_does():
    torch.manual_seed(0)
    reference = timm.create_model(
        "resnet50s", pretrained=False, features_only=True, output_stride=8, out_indices=(1, 2, 3, 4)
    ).eval()
    for layer in reference.modules():
        if isinstance(layer, nn.BatchNorm2d):  # so that it is not the identity
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.normal_(layer.running_mean, 0, 0.1)
    stem = {"conv1.0": "conv1", "conv1.1": "bn1", "conv1.3": "conv2", "conv1.4": "bn2"}
    stem |= {"conv1.6": "conv3", "bn1": "bn3"}
    weights = {}
    for name, value in reference.state_dict().items():
        module, _, rest = name.rpartition(".")
        weights[f"{stem.get(module, module)}.{rest}"] = value
    network = DilatedResNet50().eval()
    network.load_state_dict(weights)
    image = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        ours, theirs = network(image), reference(image)
    assert [tuple(each.shape[1:]) for each in ours] == [
        (256, 16, 12),
        (512, 8, 6),
        (1024, 8, 6),
        (2048, 8, 6),
    ]
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)
        assert expected.std() > 1e-3
