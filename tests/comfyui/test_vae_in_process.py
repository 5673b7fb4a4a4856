"""The exact tiled decode against ComfyUI's own tiled and whole decode, at the real VAE's widths."""

import json
import os
import sys
from pathlib import Path

import pytest
from comfyui.diffbir_models import save
from comfyui.harness import PACK
from parity import fill_by_rule_w
from progress import run

from bir_core.networks.autoencoder import SDVAE, VAEConfig


@pytest.mark.slow
def test_exact_decode_does_hardly_more_than_the_whole_one(
    comfyui: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, python = comfyui
    network = SDVAE(VAEConfig())
    fill_by_rule_w(network, 0)
    save(tmp_path / "vae.safetensors", network.state_dict())
    script = Path(__file__).with_name("vae_in_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, script, folder, PACK, tmp_path / "vae.safetensors", "256", "384", "128"]
    done = run(command, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        for way, numbers in found.items():
            sys.stdout.write(
                f"\n{way}: {numbers['operations'] / 1e9:.0f} GFLOP, "
                f"{numbers['extra'] / 1e6:.0f} MB, difference {numbers['difference']:.1e}"
            )
    assert found["exact"]["difference"] < 1e-4 < found["stock"]["difference"]
    assert found["exact"]["operations"] < 1.1 * found["whole"]["operations"]
    assert found["exact"]["operations"] < found["stock"]["operations"]
