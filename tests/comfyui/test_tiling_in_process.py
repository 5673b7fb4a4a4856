"""What tiled sampling asks of ComfyUI where a server with one CPU cannot show it: memory, control
nets on several devices, and an end of the memory."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from comfyui.harness import PACK
from progress import run


@pytest.fixture(scope="module")
def found(comfyui: tuple[Path, str]) -> dict[str, Any]:
    folder, python = comfyui
    script = Path(__file__).with_name("tiling_in_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = run([python, script, folder, PACK], env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_memory_is_reserved_for_tiles(found: dict[str, Any]) -> None:
    assert found["noise shape"] == [6, 4, 16, 16]
    assert found["memory in tiles"] * 32 == pytest.approx(found["memory of the whole"], rel=0.01)


def test_foreign_control_nets_are_cut_on_every_device(found: dict[str, Any]) -> None:
    assert found["cropped"] == [True, True]
    assert found["own part"] == ["IRControlNet", False, True]
    assert found["original untouched"]


def test_the_same_part_serves_again(found: dict[str, Any]) -> None:
    assert found["same again"]
    assert found["alone"]


def test_each_tile_has_a_name_of_its_own_in_every_step(found: dict[str, Any]) -> None:
    """By which EasyCache keeps the output of a conditioning."""
    first, other, again = found["names"]
    assert first == again != other


def test_fewer_tiles_at_a_time_when_memory_runs_out(found: dict[str, Any]) -> None:
    assert found["batches"] == [3, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    assert found["identity"] < 1e-6
    assert found["next step"] == [1, 1]


def test_what_cannot_be_done_is_said(found: dict[str, Any]) -> None:
    assert "take smaller tiles" in found["out of memory"]
    assert "GLIGEN" in found["gligen"]
    assert "latents of pictures" in found["video"]
    assert "applied to this model twice" in found["twice"]
