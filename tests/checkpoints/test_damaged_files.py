"""What no file may do, however damaged: end in a traceback, run code, or be half read."""

import random

import pytest
import torch
from command_line import run_here
from damaged_files import faults, written

from bir_core import BIRError, load_model
from bir_core.networks.compact import CompactConfig, CompactRestorer


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CompactRestorer(CompactConfig(scale=2, features=8, layers=2))


def require_sentence(text):
    assert text.endswith(".") and "\n" not in text and "Traceback" not in text, text
    assert ("xpected" in text or "should" in text) and text.isprintable(), text


def require_whole_or_refused(path, name):
    """Loads to finite weights, or is refused in one sentence, by the package and the command."""
    inspected = run_here("inspect", path)
    if inspected.returncode:
        assert inspected.returncode == 2 and not inspected.stdout, name
        assert inspected.stderr.startswith("bir: ") and inspected.stderr.count("\n") == 1, name
        require_sentence(inspected.stderr.strip())
    try:
        model = load_model(path)
    except BIRError as error:
        require_sentence(str(error))
        return False
    expected = CompactRestorer(model.config).state_dict()
    found = model.state_dict()
    assert {key: value.shape for key, value in found.items()} == {
        key: value.shape for key, value in expected.items()
    }, name
    assert all(value.isfinite().all() for value in found.values()), name
    return True


def test_damaged_files_are_refused_in_a_sentence_or_load_whole(tmp_path, network):
    canary = tmp_path / "ran"
    path = tmp_path / "files" / "model.pth"
    path.parent.mkdir()
    survivors = []
    count = 0
    for name, data in faults(network.state_dict(), canary):
        path.write_bytes(data)
        if require_whole_or_refused(path, name):
            survivors.append(name)
        count += 1
        assert not canary.exists(), name
        assert path.read_bytes() == data and len(list(path.parent.iterdir())) == 1, name
    assert count >= 150
    # Flipped bits of weights are other weights; nearly all else must be seen.
    harmless = {"zip one byte more", "legacy one byte more", "archive behind text"}
    assert {name for name in survivors if "flip" not in name} == harmless


@pytest.mark.parametrize("length", [1, 2, 63, 143, 200, 240, 250, 255])
def test_names_of_any_length_load(tmp_path, network, length):
    draw = random.Random(length)
    data = written({"params": network.state_dict()}, draw.choice(["safetensors", "zip"]))
    path = tmp_path / "".join(draw.choice("ab c'\"%{}\\-") for _ in range(length))
    path.write_bytes(data)
    assert require_whole_or_refused(path, str(length))


@pytest.mark.parametrize("name", ["n" * 256, "n" * 5000, "a\0b", "", "model/inside", "a\nb"])
def test_names_that_cannot_be_get_a_sentence(tmp_path, network, name):
    (tmp_path / "model").write_bytes(written({"params": network.state_dict()}, "zip"))
    assert not require_whole_or_refused(f"{tmp_path}/{name}", name)
