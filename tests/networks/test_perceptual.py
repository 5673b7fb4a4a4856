"""The perceptual networks against torchvision's and timm's, with random weights."""

import timm
import torch
import torchvision
from torch import nn

from bir_core.networks.perceptual import VGG19, DilatedResNet50


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
