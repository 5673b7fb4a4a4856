"""Reading weight files: wrappers, formats by content, sizes, types, and a life of its own."""

import os
import re
import struct
from types import SimpleNamespace

import pytest
import torch
from command_line import run_here
from damaged_files import flipped, with_members, written
from safetensors.torch import save, save_file

from bir_core import BIRError, inspect, load_model
from bir_core.checkpoints import loading, read_checkpoint, save_checkpoint, stored
from bir_core.checkpoints.files import open_checkpoint, require_whole
from bir_core.checkpoints.keys import unwrap, wrapping
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

FORMS = ("safetensors", "zip", "legacy")
FIRST = "body.0.weight"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    # Its middle layers are too large to be read with the header.
    return CompactRestorer(CompactConfig(scale=2, features=16, layers=2))


@pytest.fixture(scope="module")
def state(network):
    return dict(network.state_dict())


def same(model, state):
    found = model.state_dict()
    return found.keys() == state.keys() and all(value.equal(found[k]) for k, value in state.items())


@pytest.mark.parametrize("form", FORMS)
def test_what_happens_to_the_file_afterwards_does_not_matter(tmp_path, state, form):
    path = tmp_path / "model"
    path.write_bytes(written({"params": state}, form))
    model, content = load_model(path), unwrap(read_checkpoint(path))
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.write(b"\xff" * size)
    assert same(model, state) and content[FIRST].equal(state[FIRST])
    os.truncate(path, 0)
    assert same(model, state)
    assert all(value.equal(state[name]) for name, value in content.items())


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_shrinks_while_it_is_read(tmp_path, state, form):
    path = tmp_path / "model"
    path.write_bytes(written({"params": state}, form))
    with open_checkpoint(path) as checkpoint:
        os.truncate(path, 100)
        with pytest.raises(BIRError, match=r"damaged or cut off .*; download it again\.$"):
            checkpoint.everything()


def test_only_what_is_wanted_is_read(tmp_path, state, monkeypatch):
    """Of a file with several networks, and of none of it to say what it is."""
    other = {f"other.{number}": torch.ones(4096) for number in range(4)}
    path = tmp_path / "model"
    read = []
    of_file = stored.Checkpoint._range
    monkeypatch.setattr(
        stored.Checkpoint, "_range", lambda self, *at: read.append(at) or of_file(self, *at)
    )
    save_file({f"preprocess_model.{name}": value for name, value in other.items()}, path)
    with open_checkpoint(path) as checkpoint:
        assert not read and all(value.is_meta for value in checkpoint.content.values())
    path.write_bytes(written({"params": state}, "zip"))
    inspect(path)
    small = sum(value.numel() <= stored.SMALL for value in state.values())
    assert len(read) == small < len(state)
    load_model(path)
    assert len(read) == small + len(state)


@pytest.mark.parametrize("form", FORMS)
def test_views_and_parameters_are_read_as_they_were(tmp_path, form):
    large = torch.randn(60, 90)
    tensors = {
        "parameter": torch.nn.Parameter(large.clone()),
        "transposed": large.t(),
        "part": large[5:40:2, 3:],
        "half": large.half(),
        "bfloat16": large.bfloat16(),
        "float8": large.to(torch.float8_e4m3fn),
        "integers": torch.arange(5000),
        "booleans": large > 0,
        "number": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "small": torch.randn(3, 4).t(),
    }
    path = tmp_path / "any"
    path.write_bytes(written({name: value.detach() for name, value in tensors.items()}, form))
    found = read_checkpoint(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        assert torch.equal(found[name].float(), value.detach().float()), name


def test_shared_memory_is_read_once_and_shared(tmp_path):
    memory = torch.randn(100, 100)
    torch.save({"a": memory, "b": memory.t(), "c": {"d": memory[:50]}}, tmp_path / "x.pth")
    found = read_checkpoint(tmp_path / "x.pth")
    assert found["c"]["d"].equal(memory[:50]) and found["b"].equal(memory.t())
    assert found["a"].untyped_storage().data_ptr() == found["b"].untyped_storage().data_ptr()


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pth"])
def test_a_header_whose_length_begins_as_a_pickle_does(tmp_path, state, suffix):
    """128 modulo 256."""
    data = save(state)
    length = struct.unpack("<Q", data[:8])[0]
    wanted = 128 + 256 * (length // 256 + 1)
    padded = struct.pack("<Q", wanted) + data[8 : 8 + length].ljust(wanted) + data[8 + length :]
    assert padded.startswith(b"\x80")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(padded)
    assert same(load_model(path), state)


WRAPPED = {
    ("params", "module.", "_orig_mod."): lambda s: {
        "params": {f"module._orig_mod.{k}": v for k, v in s.items()}
    },
    ("_orig_mod.",): lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    ("model", "_orig_mod."): lambda s: {
        "model": {k.replace("body.", "body._orig_mod."): v for k, v in s.items()},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    ("model_state_dict",): lambda s: {"epoch": 3, "model_state_dict": s},
    ("ema",): lambda s: {"model": {k: v + 1 for k, v in s.items()}, "ema": s},
    ("params-ema",): lambda s: {"params-ema": s, "params": {k: v + 1 for k, v in s.items()}},
    ("state_dict", "net_g."): lambda s: {"state_dict": {f"net_g.{k}": v for k, v in s.items()}},
    ("model.",): lambda s: {f"model.{k}": v for k, v in s.items()},
    ("model", "state_dict"): lambda s: {"model": {"state_dict": s}, "args": SimpleNamespace()},
    ("weights",): lambda s: {"model": {"depth": 3}, "weights": s},
}


@pytest.mark.parametrize("found", WRAPPED, ids=" ".join)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_common_wrappers(tmp_path, state, found, form):
    content = WRAPPED[found](state)
    content.pop("args", None)
    (tmp_path / "model").write_bytes(written(content, form))
    assert same(load_model(tmp_path / "model"), state)
    assert wrapping(content) == found


def test_names_of_other_networks_stay():
    for name in ("model.0.weight", "model.diffusion_model.out.2.weight"):
        assert list(unwrap({name: torch.ones(1)})) == [name]


def argparse_options():
    import argparse

    return argparse.Namespace(rate=1e-3)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_options_of_trainers_are_ignored(tmp_path, state, form):
    content = {"args": argparse_options(), "folder": tmp_path, "model": state, "best": {1, 2}}
    (tmp_path / "model").write_bytes(written(content, form))
    assert same(load_model(tmp_path / "model"), state)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda s: {**s, f"module.{FIRST}": s[FIRST]}, f"{FIRST} and module.{FIRST}, which are"),
        (lambda s: {**s, f"_orig_mod.{FIRST}": s[FIRST]}, "which are the same"),
        (lambda s: {**s, 1: s[FIRST]}, "a tensor has the key 1"),
        (lambda s: {"params": {**s, ("a", "\n"): s[FIRST]}}, r"has the key \('a', "),
        (lambda s: {**s, FIRST: s[FIRST].long()}, f"{FIRST} is of the type int64"),
        (lambda s: {**s, FIRST: s[FIRST] > 0}, f"{FIRST} is of the type bool"),
        (lambda s: {**s, FIRST: s[FIRST] + 1j}, f"{FIRST} is of the type complex64"),
        (lambda s: {**s, "body.0.bias": torch.tensor(1.0)}, r"body.0.bias has the shape \(\)"),
        (lambda s: {**s, FIRST: torch.zeros(0, 3, 3, 3)}, r"has the shape \(0, 3, 3, 3\)"),
        (lambda s: {**s, FIRST: torch.ones(5)}, "body.0.weight"),
        (lambda s: {**s, "body.6.weight": torch.ones(5)}, "channels, but it has 5"),
        (lambda s: {**s, "body.987654321.weight": torch.ones(3, 3)}, "has besides body.98765"),
        (lambda s: {**s, "a\nb": s[FIRST]}, r"first keys are body"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(tmp_path, state, content, sentence):
    torch.save(content(state), tmp_path / "model.pth")
    for source in (tmp_path / "model.pth", content(state)):
        with pytest.raises(BIRError, match=sentence) as caught:
            load_model(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("betas", "sentence"),
    [
        (torch.full((3_000_000,), 0.5), r"up to 1000 betas .* \(3000000,\) came"),
        (torch.full((4, 1), 0.5), r"\(4, 1\) came"),
        (torch.tensor([0.0, 0.5]), "from 0 to 1, but 0 and 0.5 came"),
        (torch.tensor([0.5, float("nan")]), "0.5 and nan came"),
        (torch.tensor(0.5), r"diffusion.betas has the shape \(\)"),
        (torch.zeros(0), r"diffusion.betas has the shape \(0,\)"),
        (torch.tensor([1, 2]), "diffusion.betas is of the type int64"),
    ],
)
def test_schedules_that_are_none(tmp_path, betas, sentence):
    sizes = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "n_encoder_res": 1}
    network = DiffIRStage2(DiffIRConfig(task="deblur", encoder_features=4, **sizes))
    save_file({**network.state_dict(), "diffusion.betas": betas}, tmp_path / "model.safetensors")
    with pytest.raises(BIRError, match=sentence):
        inspect(tmp_path / "model.safetensors")


def test_members_that_are_too_short_are_refused_by_their_sizes(tmp_path, state):
    """Without the comparison, weights would be read from the bytes of their neighbours."""
    data = with_members(
        written({"params": state}, "zip"),
        lambda members: [(n, c[:-4] if n.endswith("data/0") else c) for n, c in members],
    )
    (tmp_path / "model.pth").write_bytes(data)
    size = state[FIRST].numel() * 4
    sentence = f"the member data/0 is {size - 4} bytes long instead of {size} bytes long"
    with pytest.raises(BIRError, match=sentence):
        load_model(tmp_path / "model.pth")


def test_inspect_checks_the_checksums_of_an_archive(tmp_path, state):
    path = tmp_path / "model.pth"
    data = written({"params": state}, "zip")
    at = data.index(state["body.2.weight"].numpy().tobytes())
    path.write_bytes(data)
    assert run_here("inspect", path).returncode == 0
    path.write_bytes(data[:at] + b"\x3f" + data[at + 1 :])
    finished = run_here("inspect", path)
    assert finished.returncode == 2 and finished.stdout == ""
    assert re.search(r"the checksum of \S*data/\d+ is wrong\); download it", finished.stderr)
    assert run_here("verify", path, "--output", tmp_path / "report").returncode == 1
    assert "checksum" in (tmp_path / "report").read_text("utf-8")


def test_archives_without_checksums_are_whole(tmp_path, state):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state, tmp_path / "model.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    require_whole(tmp_path / "model.pth")
    assert same(load_model(tmp_path / "model.pth"), state)


def test_many_names_for_the_same_bytes_do_not_fill_the_memory(tmp_path):
    memory = torch.zeros(100_000)
    torch.save({f"t{number}": memory for number in range(50)}, tmp_path / "x.pth")
    assert len(read_checkpoint(tmp_path / "x.pth")) == 50
    torch.save({"expanded": torch.zeros(1).expand(2**40)}, tmp_path / "x.pth")
    with open_checkpoint(tmp_path / "x.pth") as checkpoint:
        expanded = checkpoint.content["expanded"]
        with pytest.raises(BIRError, match="lies in 4 bytes"):
            checkpoint.read(expanded)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("not enough memory: you tried")])
def test_too_little_memory_while_loading_is_a_sentence(tmp_path, state, monkeypatch, error):
    save_file(state, tmp_path / "model.safetensors")

    def full(*arguments, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(stored.Checkpoint, "_range", full)
        with pytest.raises(BIRError, match=r"^Expected memory for the weights in .*half precision"):
            load_model(tmp_path / "model.safetensors")
    monkeypatch.setattr(loading, "is_finite", full)
    with pytest.raises(BIRError, match="^Expected memory for the weights in the state dict"):
        load_model(state)


def test_files_that_may_not_be_read_get_a_sentence(tmp_path, network, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_checkpoint(network, path)

    def refused(*arguments, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(BIRError, match=r"to read .*\(Permission denied\); check the path, the per"):
        load_model(path)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in this system's folders")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BIRError, match="found no ordinary file"):
        load_model(tmp_path / "pipe")


def test_a_flipped_bit_in_a_name_is_seen(tmp_path, state):
    """By the checksum of the pickle, which is compared at every loading."""
    import random

    data = written({"params": state}, "zip")
    at = data.index(b"body.4.weight")
    damaged = data[:at] + flipped(data[at : at + 13], random.Random(0), 1) + data[at + 13 :]
    (tmp_path / "model.pth").write_bytes(damaged)
    with pytest.raises(BIRError, match="the checksum of"):
        load_model(tmp_path / "model.pth")
