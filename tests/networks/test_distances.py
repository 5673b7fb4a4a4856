"""LPIPS and DISTS, on random weights."""

from functools import partial

import metric_weights
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bir_core.checkpoints.distances import DISTS_FILE, LPIPS_FILES, read_dists, read_lpips
from bir_core.errors import BIRError
from bir_core.networks.distances import DISTS, LPIPS
from bir_core.networks.perceptual import VGG16, AlexNet

READERS = {"alex": lambda: LPIPS(AlexNet()), "vgg": lambda: LPIPS(VGG16()), "dists": DISTS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    metric_weights.write_distances(folder)
    return folder


@pytest.fixture(scope="module")
def distances(folder):
    return {
        "alex": read_lpips("alex", folder),
        "vgg": read_lpips("vgg", folder),
        "dists": read_dists(folder),
    }


def pair(height=70, width=90, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hq = torch.rand(batch, 3, height, width, generator=generator)
    return (hq + 0.2 * torch.randn(hq.shape, generator=generator)).clamp(0, 1), hq


def theirs_of_pyiqa(name, ours, monkeypatch):
    """The network of pyiqa with our weights."""
    file = "dists_arch" if name == "dists" else "lpips_arch"
    module = pytest.importorskip(f"pyiqa.archs.{file}", reason="pyiqa is not installed")
    for trunk in ("alexnet", "vgg16"):  # or pyiqa would download their weights
        empty = partial(getattr(module.models, trunk), weights=None)
        monkeypatch.setattr(module.models, trunk, lambda weights, empty=empty: empty())
    options = {} if name == "dists" else {"net": name}
    network = (module.DISTS if name == "dists" else module.LPIPS)(pretrained=False, **options)
    weights = ours.state_dict()
    state = network.state_dict()
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] in ("alpha", "beta"):
            state[key] = weights[parts[0]].view_as(value)
        elif parts[0].startswith(("net", "stage")) and parts[-1] in ("weight", "bias"):
            state[key] = weights[".".join(("network.features", *parts[-2:]))]
        elif parts[0].startswith("lin"):
            # Every head has two names: `lin0.model.1` and `lins.0.model.1`.
            number = parts[1] if parts[0] == "lins" else parts[0][-1]
            state[key] = weights[f"heads.{number}"].view_as(value)
    network.load_state_dict(state)
    return network.eval()


@pytest.mark.parametrize("name", READERS)
@torch.no_grad()
def test_values_are_those_of_pyiqa(name, distances, monkeypatch):
    ours = distances[name]
    theirs = theirs_of_pyiqa(name, ours, monkeypatch)
    for restored, hq in (pair(), pair(64, 33, batch=1, seed=1), pair(128, 128, batch=1, seed=2)):
        expected = theirs(restored, hq).flatten()
        assert expected.min() > 1e-3
        torch.testing.assert_close(ours(restored, hq), expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_dists_of_a_scaled_picture_is_that_of_its_formula():
    """With weights for the picture itself only. If a = c b, means and deviations scale by c, so
    both similarities are 2 c / (1 + c^2) where the constants do not count."""
    network = DISTS()
    network.alpha[3:] = 0
    network.beta[3:] = 0
    _, hq = pair(32, 32, batch=1)
    assert float(network(hq / 2, hq)) == pytest.approx(1 - 2 * 0.5 / 1.25, abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(READERS)), st.integers(31, 50), st.integers(31, 50))
@torch.no_grad()
def test_a_distance(distances, name, height, width):
    distance = distances[name]
    restored, hq = pair(height, width)
    values = distance(restored, hq)
    assert values.shape == (2,) and values.dtype == torch.float32
    assert values.min() > 0
    assert distance(hq, hq).abs().max() < 1e-6
    torch.testing.assert_close(distance(hq, restored), values, rtol=0, atol=1e-6)
    alone = torch.cat([distance(a[None], b[None]) for a, b in zip(restored, hq, strict=True)])
    torch.testing.assert_close(alone, values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", READERS)
def test_a_step_against_the_gradient_brings_pictures_nearer(name, distances):
    distance = distances[name]
    restored, hq = pair(48, 48)
    restored.requires_grad_()
    before = distance(restored, hq)
    (slope,) = torch.autograd.grad(before.sum(), restored)
    assert slope.abs().amax((1, 2, 3)).min() > 0
    assert not any(parameter.requires_grad for parameter in distance.parameters())
    with torch.no_grad():
        step = slope / torch.linalg.vector_norm(slope, dim=(1, 2, 3), keepdim=True)
        assert (distance(restored - 0.01 * step, hq) < before).all()


@pytest.mark.parametrize("name", READERS)
def test_gradients_are_finite_where_all_features_are_zero(name, distances):
    # Without biases all features of a picture of ImageNet's mean are 0.
    distance = READERS[name]()
    distance.load_state_dict(distances[name].state_dict())
    for key, parameter in distance.network.named_parameters():
        if key.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    flat = distance.normalise.mean.expand(1, 3, 40, 40).clone().requires_grad_()
    assert all((f == 0).all() for f in distance.network(distance.normalise(flat))[:1])
    distance(flat, pair(40, 40, batch=1)[1]).sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize("name", ["alex", "vgg"])
@torch.no_grad()
def test_levels_are_the_first_terms_of_the_sum(name, distances, folder):
    whole = distances[name]
    restored, hq = pair(48, 40)
    sums = []
    for levels in range(1, 6):
        some = read_lpips(name, folder, levels=levels)
        without = LPIPS(whole.network)
        weights = {k: v.clone() for k, v in whole.state_dict().items()}
        for number in range(levels, 5):
            weights[f"heads.{number}"].zero_()
        without.network = READERS[name]().network
        without.load_state_dict(weights)
        values = some(restored, hq)
        torch.testing.assert_close(values, without(restored, hq), rtol=0, atol=1e-6)
        sums.append(values)
        least = some.network.least_sides[-1 + levels]
        small = pair(least, least + 1)
        assert some(*small).isfinite().all()
        if least > 1:
            with pytest.raises(BIRError, match=f"at least {least} pixels, but 40x{least - 1} came"):
                some(*pair(least - 1, 40))
    assert (torch.stack(sums).diff(dim=0) > 1e-4).all()


@pytest.mark.parametrize("name", READERS)
def test_half_precision_within_autocast_stays_near(name, distances):
    restored, hq = pair(48, 48)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        values = distances[name](restored, hq)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, distances[name](restored, hq), rtol=0.1, atol=0.01)


@pytest.mark.parametrize("name", READERS)
def test_pictures_that_are_no_pair(name, distances):
    restored, hq = pair(40, 40)
    for other in (hq[..., :39], hq[:1], hq[:, :1], hq[0]):
        with pytest.raises(BIRError, match="two RGB images of the same size"):
            distances[name](restored, other)


def test_absent_weights_name_the_command(tmp_path, monkeypatch):
    for read in (lambda: read_lpips("alex", tmp_path), lambda: read_dists(tmp_path)):
        with pytest.raises(BIRError, match="run `bir weights measures`, which fetches them"):
            read()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(BIRError) as caught:
        read_lpips("vgg")
    assert str(tmp_path / "hub" / "bir" / "lpips_vgg.safetensors") in str(caught.value)


def test_other_weights_in_their_place(tmp_path, folder):
    vgg, alex = LPIPS_FILES["vgg"], LPIPS_FILES["alex"]
    (tmp_path / "bir").mkdir()
    (tmp_path / alex).hardlink_to(folder / vgg)
    with pytest.raises(BIRError, match=r"they are others \(see network.features.0.weight\); run"):
        read_lpips("alex", tmp_path)
    (tmp_path / vgg).hardlink_to(folder / vgg)
    state = load_file(folder / DISTS_FILE)
    del state["beta"]
    save_file(state, tmp_path / DISTS_FILE)
    with pytest.raises(BIRError, match=r"lpips_vgg.*dists.*others \(see beta\)"):
        read_dists(tmp_path)
    (tmp_path / DISTS_FILE).write_bytes((folder / DISTS_FILE).read_bytes()[:200])
    with pytest.raises(BIRError, match="damaged or cut off"):
        read_dists(tmp_path)


def test_networks_and_levels_that_are_not_there(folder):
    with pytest.raises(BIRError, match="alex or vgg, but squeeze came"):
        read_lpips("squeeze", folder)
    for levels in (0, 6):
        with pytest.raises(BIRError, match=f"from 1 to 5 levels of LPIPS, but {levels} came"):
            read_lpips("alex", folder, levels=levels)
