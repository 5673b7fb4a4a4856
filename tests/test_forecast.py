"""What a restoration is said to take, against the plans and the tiles that it is made of."""

import pytest
import torch

from bir_core.diffbir.arguments import TASKS
from bir_core.diffbir.versions import VERSIONS
from bir_core.errors import BIRError
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


def test_each_argument_counts():
    usual = {"what": "DiffBIR v2", "height": 200, "width": 300}
    text = found(**usual).text()
    for change in (
        *({"what": "DiffBIR v2.1"}, {"what": "builtin-x2"}, {"height": 500}, {"width": 500}),
        *({"memory": 3 * GB}, {"device": CPU}, {"dtype": "float32"}, {"upscale": 2.0}),
        *({"tile": 256}, {"steps": 7}, *({"task": task} for task in TASKS if task != "sr")),
    ):
        assert found(**usual | change).text() != text, change


def test_a_task_has_the_stage_1_of_its_version():
    """BSRNet enlarges by itself; SCUNet and SwinIR see 16 times the pixels."""
    stages = {task: found("DiffBIR v2", task=task).plan.stage("stage 1") for task in TASKS}
    assert stages["unaligned_face"] == stages["sr"]
    assert len({stages[task].memory for task in ("sr", "denoise", "face")}) == 3


def test_faces_in_whole_photos_are_told_one_by_one():
    photo, sr = found(task="unaligned_face", tile=256), found(tile=256)
    assert photo.effort == sr.effort and photo.seconds(3) == sr.seconds(3)
    assert photo.of_face.tiles == len(tiles(512, 512, 256, 128)) and sr.of_face is None
    assert photo.plan.stage("face: sampling").tile == 256
    lines = photo.text(3).splitlines()
    assert any(line.startswith("each face: 9 tiles x 10 steps") for line in lines)
    assert "4 min 30 s for each face" in lines[-1] and "each face" not in sr.text(3)


def test_a_version_without_the_task_is_told():
    with pytest.raises(BIRError, match="Expected DiffBIR v2 or v2.1 .* but v1 came"):
        found("DiffBIR v1", task="unaligned_face")


@pytest.mark.parametrize("what", ["DiffBIR v2.1", "builtin-x2"])
def test_the_result_is_counted(what):
    """Three pictures of it, where they lie."""
    size = {"height": 300, "width": 400, "upscale": 2.0}
    copies = 3 * 12 * 600 * 800
    on_card = found(what, **size).plan
    assert (on_card.stages[-1].name, on_card.stages[-1].parked) == ("writing", copies)
    on_cpu = found(what, **size, device=CPU).plan.stage("writing")
    assert (on_cpu.memory, on_cpu.parked) == (copies, 0)
