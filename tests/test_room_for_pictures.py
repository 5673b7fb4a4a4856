"""What cannot fit is said before the work, for every method, in Python and on the command line."""

import re
from pathlib import Path

import pytest
import torch
from command_line import run_here, save_small_model
from diffbir_models import tiny_networks
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import bir_core.memory
from bir_core import load_model, restore
from bir_core.diffbir.pipeline import DiffBIR
from bir_core.errors import BIRError
from bir_core.memory import CPU, picture_bytes, require_room
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig


@pytest.fixture
def free(monkeypatch):
    """Sets the memory that can be had on any device."""

    def set_free(count):
        monkeypatch.setattr(bir_core.memory, "_obtainable", lambda device: count)

    return set_free


def nothing(*_, **__):
    raise AssertionError("the work has started")


@given(st.integers(1, 16384), st.integers(1, 16384), st.sampled_from([1, 2, 3, 4, 8]))
def test_what_is_advised_fits_and_what_is_refused_does_not(height, width, scale):
    def needed(factor):
        return picture_bytes(height * factor, width * factor, 2)

    free = needed(2) + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bir_core.memory, "_obtainable", lambda device: free)
        if scale <= 2:
            require_room(height, width, scale, needed)
            return
        with pytest.raises(BIRError) as error:
            require_room(height, width, scale, needed)
    sentence = str(error.value)
    assert f"{width} x {height} pixels" in sentence
    assert "enlarge it 2 times at the most" in sentence
    assert f"{needed(scale) / 1e9:.1f} GB of {free / 1e9:.1f} GB" in sentence


def test_the_sentence_has_no_advice_that_does_not_help(free):
    free(100)
    with pytest.raises(BIRError, match=r"of 0\.0 GB; cut it into tiles and restore these\."):
        require_room(100, 100, 4, lambda factor: picture_bytes(100 * factor, 100 * factor, 1))


def test_memories_of_different_devices_add_up(free):
    free(60)
    both = [torch.device("cuda"), CPU]
    require_room(1, 1, 1, lambda _: 120, both)
    with pytest.raises(BIRError):
        require_room(1, 1, 1, lambda _: 120, [CPU, CPU])


def test_every_network_says_it_before_it_starts(free, monkeypatch):
    image = torch.rand(1, 3, 40, 50)
    compact = CompactRestorer(CompactConfig(scale=4, features=4, layers=1))
    config = DiffIRConfig(task="sr", scale=4, dim=8, num_blocks=(1, 1, 1, 1), n_encoder_res=1)
    result = picture_bytes(160, 200, 1)
    for model in (compact, DiffIRStage2(config)):
        free(result + picture_bytes(40, 50, 1))
        assert restore(image, model.eval()).shape == (1, 3, 160, 200)
        monkeypatch.setattr(type(model), "forward", nothing)
        free(result - 1)
        with pytest.raises(BIRError, match="enlarge it 3 times at the most, or cut it into tiles"):
            restore(image, model)
        two = torch.cat([image, image])
        free(2 * result - 1)
        with pytest.raises(BIRError, match="fit into the memory"):
            restore(two, model)


def test_diffbir_says_it_before_stage_1(free):
    pipeline = DiffBIR(**tiny_networks(), stage1=nothing, version="v2.1")
    embedding = torch.zeros(1, 4, 32)
    free(0.2e9)
    with pytest.raises(BIRError, match=r"needs \d+\.\d GB of 0\.2 GB; enlarge it 3 times"):
        pipeline(torch.rand(1, 3, 512, 512), embedding, embedding, upscale_by=8.0)


@pytest.mark.parametrize("method", ["diffir", "compact"])
def test_a_picture_of_a_folder_that_does_not_fit_is_named(method, free, tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.effect_noise((20, 10), 40).save(folder / "small.png")
    Image.effect_noise((200, 100), 40).save(folder / "large.png")
    model = "builtin-x4"
    if method == "diffir":
        model = save_small_model(tmp_path / "x4.safetensors", scale=4)
    free(picture_bytes(400, 800, 2))
    done = run_here("restore", folder, tmp_path / "out", "--model", model)
    assert done.returncode == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["small.png"]
    said = r"The picture \S+large\.png of 200 x 100 pixels .* GB; enlarge it 3 times at the most"
    assert re.search(said, done.stderr)
    # The model itself would fit: it is writing the result that does not.
    assert restore(torch.rand(1, 3, 100, 200), load_model(model)).shape[-1] == 800
