"""The guided trajectories of the official code (v2.0.0) by the stock sampler `ddpm`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from comfyui.harness import PACK
from parity import DATA, load_vectors
from safetensors.torch import load_file
from torch import Tensor

VECTORS, METADATA = load_vectors("diffbir_guidance")
CASES = json.loads(METADATA["cases"])


@pytest.fixture(scope="module")
def results(
    comfyui: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Tensor]:
    folder, python = comfyui
    path = tmp_path_factory.mktemp("in_process") / "results.safetensors"
    script = Path(__file__).with_name("guidance_in_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [python, script, folder, PACK, DATA, path], capture_output=True, env=environment, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return load_file(path)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['space']}-{case['loss']}")
def test_trajectory_equals_official(case: dict, results: dict[str, Tensor]) -> None:
    ours = results[f"trajectory.{case['i']}"]
    official = VECTORS[f"traj.{case['i']}"]
    # The pixel trajectory without weights overshoots and magnifies rounding.
    tolerance = 1e-3 if (case["space"], case["loss"]) == ("rgb", "mse") else 1e-5
    for step, expected in zip(ours, official, strict=True):
        assert (step - expected).abs().max() <= tolerance * expected.abs().max()
