"""What a restoration is said to take, against the plans and the tiles that it is made of."""

import pytest
import torch

from bir_core.diffbir.versions import VERSIONS
from bir_core.forecast import DIFFBIR, forecast
from bir_core.memory import CPU
from bir_core.tiling import tiles
from bir_core.weights import BUILTIN_NAMES

CUDA = torch.device("cuda")
GB = 10**9


def found(what="DiffBIR v2.1", height=768, width=1024, memory=24 * GB, device=CUDA, **settings):
    return forecast(what, height, width, device=device, memory=memory, **settings)


def test_tiles_and_steps_are_those_of_the_sampling():
    effort = found(tile=256, upscale=2).effort
    assert effort.tiles == len(tiles(1536, 2048, 256, 128))
    assert (effort.steps, effort.prompts) == (10, 2)
    assert effort.tile_steps == 10 * effort.tiles
    assert found(tile=0).effort.tiles == 1
    assert found(height=100, width=100, upscale=1).effort.tiles == 1  # a short side of 512
    v1 = found("DiffBIR v1").effort
    assert (v1.steps, v1.prompts) == (50, 1)
    assert found("DiffBIR v1", steps=7).effort.steps == 7


@pytest.mark.parametrize("what", [*DIFFBIR, *BUILTIN_NAMES])
@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_every_method_has_a_text(what, device):
    text = found(what, device=device).text(2.5)
    assert text.splitlines()[1].startswith(("fits: ", "does not fit: "))
    assert all(name in text for name in (["sampling:", "work:"] if what in DIFFBIR else ["rows"]))
    assert set(DIFFBIR.values()) == set(VERSIONS)


def test_time_is_told_only_from_a_measured_step():
    plan = found(upscale=1)
    assert plan.seconds(0) is None and "not known" in plan.text()
    seconds = plan.seconds(3)
    assert seconds == 3 * plan.effort.tile_steps
    assert f"time: {seconds // 60} min {seconds % 60} s" in plan.text(3)
    assert found("builtin-x4").seconds(3) is None and "not known" in found("builtin-x4").text(3)


def test_memory_decides_whether_it_fits():
    small = {"height": 200, "width": 300, "upscale": 2}
    enough, little = found(**small), found(**small, memory=GB)
    assert enough.plan.fits and "\nfits: " in enough.text()
    assert not little.plan.fits and "\ndoes not fit: " in little.text()
    wide, narrow = (found(**small, dtype=dtype).plan for dtype in ("float32", "float16"))
    assert wide.stage("sampling").memory > 1.5 * narrow.stage("sampling").memory
