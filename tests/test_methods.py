"""The table of methods: what a third one would have to bring, and that nothing else is needed."""

import pytest
import torch
from command_line import run_here, save_small_model

from bir_core.checkpoints import load_model
from bir_core.memory import MemoryPlan, StagePlan
from bir_core.methods import METHODS, Method
from bir_core.pictures.files import Picture, read_picture, write_picture


def add_arguments(parser):
    parser.add_argument("--level", type=float)


def prepare(options, device):
    def restore(image, mask, report):
        report("inverting", 1, 1)
        return (options.level or 1.0) - image

    return restore


def add_plan_arguments(parser):
    parser.add_argument("--work", type=int, default=10)


def plan(options, device, memory):
    stage = StagePlan("inverting", 0, 0, options.work)
    return lambda height, width: (f"Invert {width}x{height}", MemoryPlan((stage,), memory, memory))


@pytest.fixture
def third(monkeypatch):
    row = Method(
        add_arguments=add_arguments,
        prepare=prepare,
        add_plan_arguments=add_plan_arguments,
        plan=plan,
        networks={"diffir_s1": lambda network, name: (lambda image, seed: 1 - image, 1)},
    )
    monkeypatch.setitem(METHODS, "invert", row)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in.png"
    write_picture(path, Picture(torch.rand(1, 3, 20, 30)))
    return path


def test_restores_by_it(third, picture, tmp_path):
    done = run_here("restore", picture, tmp_path / "out.png", "--method", "invert")
    assert done.returncode == 0, done.stderr
    inverted = read_picture(tmp_path / "out.png").image
    torch.testing.assert_close(inverted, 1 - read_picture(picture).image, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "option", "owner"),
    [
        ("diffir", "--level", "invert"),
        ("invert", "--strip", "diffir"),
        ("invert", "--cfg", "diffbir"),
    ],
)
def test_options_of_another_method_are_refused(third, picture, tmp_path, method, option, owner):
    done = run_here("restore", picture, tmp_path / "out.png", "--method", method, option, 1)
    assert done.returncode == 2
    assert f"{option} came, which belongs to --method {owner}" in done.stderr


def test_plans_by_it(third):
    done = run_here("plan", "30x20", "--method", "invert", "--memory", "1GB", "--work", 3 * 10**8)
    assert "Invert 30x20" in done.stdout
    assert "inverting needs 0.4 GB of the 1.0 GB" in done.stdout


def test_evaluates_by_it(third, tmp_path):
    (tmp_path / "hq").mkdir()
    write_picture(tmp_path / "hq" / "a.png", Picture(torch.rand(1, 3, 64, 64)))
    file = save_small_model(tmp_path / "model.safetensors", stage=1)
    done = run_here("evaluate", tmp_path / "hq", "--model", file, "--degradation", "simple_x1")
    assert done.returncode == 0, done.stderr
    assert str(file) in done.stdout


def test_builtin_name_wherever_a_file_goes():
    info = load_model("builtin-x1").info
    assert (info.scale, info.may_be_tiled, info.half_precision) == (1, False, True)
