"""The guided trajectories of the official code (v2.0.0) by the stock sampler `ddpm`, and guidance
without memory."""

import json
import os
from pathlib import Path

import pytest
import torch
from comfyui.harness import PACK
from parity import DATA, load_vectors
from progress import run
from safetensors import safe_open
from torch import Tensor

Found = tuple[dict[str, Tensor], dict[str, str]]
VECTORS, METADATA = load_vectors("diffbir_guidance")
CASES = json.loads(METADATA["cases"])


@pytest.fixture(scope="module")
def found(comfyui: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Tensors and sentences of `guidance_in_process.py`, run by ComfyUI's Python."""
    folder, python = comfyui
    path = tmp_path_factory.mktemp("in_process") / "results.safetensors"
    script = Path(__file__).with_name("guidance_in_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run([python, script, folder, PACK, DATA, path], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['space']}-{case['loss']}")
def test_trajectory_equals_official(case: dict, found: Found) -> None:
    ours = found[0][f"trajectory.{case['i']}"]
    official = VECTORS[f"traj.{case['i']}"]
    # The pixel trajectory without weights overshoots and magnifies rounding.
    tolerance = 1e-3 if (case["space"], case["loss"]) == ("rgb", "mse") else 1e-5
    for step, expected in zip(ours, official, strict=True):
        assert (step - expected).abs().max() <= tolerance * expected.abs().max()


def test_pixels_go_through_the_decoder_in_smaller_tiles_when_memory_runs_out(found: Found) -> None:
    tensors, said = found
    plenty = tensors["memory.plenty"]
    assert float(plenty.abs().max()) > 0
    difference = (tensors["memory.little"] - plenty).abs().max()
    assert difference < 1e-5 * plenty.abs().max()
    # The longer side of the picture is 192 pixels.
    tiles = {name[6:]: side for name, side in said.items() if name.startswith("tile")}
    assert tiles == {"plenty": "0", "little": "64", "none": "64", "again": "0"}


@pytest.mark.parametrize(
    ("case", "tries"),
    [
        ("device full", [[128, False], [128, True]]),
        ("both full", [[128, False], [128, True], [64, False], [64, True]]),
        ("nothing fits", [[128, False], [128, True], [64, False], [64, True]]),
    ],
)
def test_maps_wait_on_the_host_before_tiles_shrink(case: str, tries: object, found: Found) -> None:
    assert json.loads(found[1][f"tries, {case}"]) == tries


def test_no_memory_for_the_smallest_tile_is_said(found: Found) -> None:
    tensors, said = found
    assert said["none"].startswith("Restoration guidance should find memory beside the model")
    assert said["none"].endswith(".") and ". " not in said["none"]
    # Nothing of it is left for the next sampling.
    torch.testing.assert_close(tensors["memory.again"], tensors["memory.plenty"])
