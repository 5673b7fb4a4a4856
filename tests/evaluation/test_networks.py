"""Networks that measure, with random weights in the files that they expect."""

import os
import pickle

import metric_weights
import pytest
import scipy.linalg
import torch
from training_pictures import write_pictures

from bir_core.errors import BIRError
from bir_core.evaluation.frechet import frechet_distance
from bir_core.evaluation.metrics import METRICS, Settings
from bir_core.evaluation.networks import face_crop, inception_features, pyiqa_network
from bir_core.evaluation.weight_files import require_weights
from bir_core.pictures.files import read_picture

pytest.importorskip("pyiqa", reason="pyiqa is not installed")
CPU = torch.device("cpu")
WRITERS = {
    "lpips_alex": metric_weights.write_distances,
    "lpips_vgg": metric_weights.write_distances,
    "dists": metric_weights.write_distances,
    "niqe": metric_weights.write_niqe,
    "musiq": metric_weights.write_musiq,
    "clip_iqa": metric_weights.write_clip,
    "fid": metric_weights.write_inception,
    "identity": metric_weights.write_arcface,
}


def pair(height=192, width=192):
    generator = torch.Generator().manual_seed(1)
    hq = torch.rand(1, 3, height, width, generator=generator)
    return (hq + 0.2 * torch.randn(hq.shape, generator=generator)).clamp(0, 1), hq


def measure(name, folder):
    if name == "clip_iqa":
        pytest.importorskip("clip", reason="CLIP's tokenizer is not installed, or setuptools >= 82")
    WRITERS[name](folder)
    metric = METRICS[name]
    require_weights(metric.files, folder)
    return metric.build(Settings(border=0, weights=folder, device=CPU))


@pytest.mark.parametrize("name", ["lpips_alex", "lpips_vgg", "dists"])
def test_distances_to_the_original(name, tmp_path):
    distance = measure(name, tmp_path)
    restored, hq = pair()
    assert float(distance(hq, hq)) == pytest.approx(0, abs=1e-6)
    near, far = float(distance((restored + 9 * hq) / 10, hq)), float(distance(restored, hq))
    assert 0 < near < far


@pytest.mark.parametrize("name", ["niqe", "musiq", "clip_iqa"])
def test_measures_without_an_original(name, tmp_path):
    quality = measure(name, tmp_path)
    restored, hq = pair()
    ours, other = float(quality(restored, None)), float(quality(hq, None))
    assert ours == float(quality(restored, None))
    assert abs(ours - other) > 1e-6


@pytest.mark.slow
def test_maniqa_needs_its_own_file_only(tmp_path):
    metric_weights.write_maniqa(tmp_path)
    network = METRICS["maniqa"].build(Settings(border=0, weights=tmp_path, device=CPU))
    network.net.test_sample = 1  # crop, of 20
    assert torch.isfinite(network(pair(64, 64)[0], None)).all()


def test_identity_is_the_cosine_of_embeddings(tmp_path):
    identity = measure("identity", tmp_path)
    restored, hq = pair(128, 128)
    assert float(identity(hq, hq)) == pytest.approx(1, abs=1e-5)
    assert float(identity(restored, hq)) < 1 - 1e-5


def test_the_crop_of_a_face_is_that_of_its_identity_loss():
    face = torch.arange(256.0).view(1, 1, 256, 1) + 1000 * torch.arange(256.0)
    crop = face_crop(face.expand(1, 3, 256, 256))
    assert crop.shape == (1, 3, 112, 112)
    # The mean keeps the centre: rows 35 to 222, columns 32 to 219.
    assert float(crop.mean()) == pytest.approx((35 + 222) / 2 + 1000 * (32 + 219) / 2, rel=1e-5)
    with pytest.raises(BIRError, match="aligned"):
        face_crop(torch.zeros(1, 3, 20, 30))


def test_features_are_those_that_pyiqa_takes_from_a_folder(tmp_path):
    from pyiqa.archs.fid_arch import get_folder_features

    features = measure("fid", tmp_path)
    paths = write_pictures(tmp_path / "pictures", count=2, size=(40, 56))
    inception = pyiqa_network("fid", tmp_path, CPU).net.model
    expected = get_folder_features(
        str(tmp_path / "pictures"),
        inception,
        num_workers=0,
        device=CPU,
        mode="legacy_pytorch",
        verbose=False,
    )
    ours = torch.cat([features(read_picture(path).image, None) for path in paths])
    assert ours.shape == (2, 2048) and ours.std() > 0
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


def test_frechet_distance_is_that_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    a = torch.randn(50, 6, generator=generator) @ mix
    b = torch.randn(40, 6, generator=generator) + 0.3
    first, second = torch.cov(a.double().T).numpy(), torch.cov(b.double().T).numpy()
    root = scipy.linalg.sqrtm(first @ second).real
    means = float((a.double().mean(0) - b.double().mean(0)).square().sum())
    expected = means + first.trace() + second.trace() - 2 * root.trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(BIRError, match="at least 2"):
        frechet_distance(a[:1], b)


def test_absent_files_are_named_with_their_source(tmp_path):
    metric_weights.write_distances(tmp_path)
    metric_weights.write_niqe(tmp_path)
    (tmp_path / "bir" / "dists.safetensors").unlink()
    named = [METRICS[name] for name in ("dists", "niqe", "musiq")]
    with pytest.raises(BIRError) as caught:
        require_weights([file for metric in named for file in metric.files], tmp_path)
    sentence = str(caught.value)
    assert (
        f"{tmp_path / 'bir' / 'dists.safetensors'} (written by `bir weights measures`)" in sentence
    )
    file = "musiq_koniq_ckpt-e95806b9.pth"
    assert f"{tmp_path / 'pyiqa' / file} (published at https://" in sentence
    assert "lpips" not in sentence and "niqe" not in sentence


@pytest.mark.parametrize("name", ["musiq", "niqe", "fid"])
def test_nothing_is_downloaded_and_nothing_stays_changed(name, tmp_path, monkeypatch):
    before = torch.hub.get_dir(), torch.hub.download_url_to_file
    with pytest.raises(BIRError, match="no such file"):
        pyiqa_network(name, tmp_path, CPU)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (torch.hub.get_dir(), torch.hub.download_url_to_file) == before
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert torch.hub.get_dir() == str(tmp_path / "hub")


class Executed:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_code_is_not_executed(tmp_path):
    trace = tmp_path / "executed"
    (tmp_path / "pyiqa").mkdir()
    torch.save({"weights": Executed(trace)}, tmp_path / METRICS["musiq"].files[0].path)
    with pytest.raises(BIRError, match="musiq"):
        pyiqa_network("musiq", tmp_path, CPU)
    assert not trace.exists()
    with open(tmp_path / "copy", "wb") as file:
        pickle.dump(Executed(trace), file)  # such a file does execute, where nobody takes care
    with open(tmp_path / "copy", "rb") as file:
        pickle.load(file).close()
    assert trace.exists()


def test_a_damaged_file(tmp_path):
    metric_weights.write_inception(tmp_path)
    path = tmp_path / METRICS["fid"].files[0].path
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BIRError, match="download them again"):
        inception_features(tmp_path, CPU)


def test_another_file_in_the_place_of_arcface(tmp_path):
    metric_weights.write_inception(tmp_path)
    (tmp_path / "facexlib").mkdir()
    target = tmp_path / METRICS["identity"].files[0].path
    (tmp_path / METRICS["fid"].files[0].path).rename(target)
    with pytest.raises(BIRError, match="its tensors are others"):
        METRICS["identity"].build(Settings(border=0, weights=tmp_path, device=CPU))
