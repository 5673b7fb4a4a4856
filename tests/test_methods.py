"""The table of methods: what a third one would have to bring, and that nothing else is needed."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from command_line import run_here, save_small_model
from diffbir_models import TINY_SWINIR

from bir_core import methods
from bir_core.checkpoints import load_model, save_checkpoint
from bir_core.cli import COMMANDS
from bir_core.memory import MemoryPlan, StagePlan
from bir_core.methods import METHODS, Method, method_of_model
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.weights import BUILTIN_NAMES


@dataclass(frozen=True)
class InvertOptions:
    level: float = 1.0
    work: int = 10


def add_arguments(parser):
    parser.add_argument("--level", type=float)


def prepare(options, device):
    def restore(image, mask, report):
        report("inverting", 1, 1)
        return options.level - image

    return restore, 1.0


def add_plan_arguments(parser):
    parser.add_argument("--work", type=int)


def plan(options, device, memory):
    stage = StagePlan("inverting", 0, 0, options.work)
    found = MemoryPlan((stage,), memory, memory)
    return lambda height, width: (f"Invert {width}x{height}", found), 1.0


@pytest.fixture
def third(monkeypatch):
    row = Method(
        add_arguments=add_arguments,
        options=InvertOptions,
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


def test_reads_its_own_options(third, picture, tmp_path):
    done = run_here("restore", picture, tmp_path / "o.png", "--method", "invert", "--level", 0.5)
    assert done.returncode == 0, done.stderr
    restored, image = (read_picture(path).image for path in (tmp_path / "o.png", picture))
    torch.testing.assert_close(restored, (0.5 - image).clamp(0, 1), rtol=0, atol=1 / 255)


@pytest.mark.parametrize(
    ("method", "option", "owner"),
    [
        ("diffir", "--level", "invert"),
        ("compact", "--mask", "diffir"),
        ("invert", "--strip", "compact or diffir"),
        ("invert", "--cfg", "diffbir"),
    ],
)
def test_options_of_another_method_are_refused(third, picture, tmp_path, method, option, owner):
    done = run_here("restore", picture, tmp_path / "out.png", "--method", method, option, 1)
    assert done.returncode == 2
    assert f"{option} came, which belongs to --method {owner}" in done.stderr


def test_a_network_without_a_default_is_asked_for(third, picture, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class WithModel(InvertOptions):
        model: str = ""

    monkeypatch.setitem(METHODS, "invert", replace(METHODS["invert"], options=WithModel))
    line = ("restore", picture, tmp_path / "o.png", "--method", "invert")
    done = run_here(*line)
    assert done.returncode == 2
    assert "Expected --model for --method invert, but none came" in done.stderr
    assert run_here(*line, "--model", "any.pth").returncode == 0
    strips = run_here(*line, "--model", "any.pth", "--strip", 3)
    assert "--strip came, which belongs to --method compact or diffir" in strips.stderr
    assert "Invert" not in run_here("plan", "8x8", "--memory", "1GB").stdout


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
    compact, diffir = load_model("builtin-x1").info, load_model("builtin-diffir-x1").info
    assert (compact.architecture, compact.scale, compact.may_be_tiled) == ("compact", 1, True)
    assert (diffir.architecture, diffir.scale, diffir.may_be_tiled) == ("diffir_s2", 1, False)


def test_the_model_says_the_method(picture, tmp_path):
    for name in BUILTIN_NAMES:
        method = "diffir" if "diffir" in name else "compact"
        assert method_of_model(name) == method
        made = [tmp_path / f"{name}-{choice}.png" for choice in ("left", "said")]
        for path, more in zip(made, ((), ("--method", method)), strict=True):
            done = run_here("restore", picture, path, "--model", name, *more)
            assert done.returncode == 0, done.stderr
        assert made[0].read_bytes() == made[1].read_bytes()
    other = run_here("restore", picture, tmp_path / "o.png", "--model", name, "--method", "compact")
    assert "Expected a compact restoration module file" in other.stderr


def test_a_file_of_no_method(picture, tmp_path):
    save_checkpoint(SwinIR(TINY_SWINIR), tmp_path / "swinir.safetensors")
    done = run_here(
        "restore", picture, tmp_path / "o.png", "--model", tmp_path / "swinir.safetensors"
    )
    assert done.returncode == 2
    assert "Expected a DiffIR stage 2 or compact restoration module file, but" in done.stderr
    assert "is a SwinIR file, which belongs in Load Upscale Model" in done.stderr


def test_no_parser_below_the_edge():
    """Commands and `arguments.py` read a parser's values; what they call takes dataclasses."""
    root = Path(methods.__file__).parent
    importing = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(
            r"^\s*(import|from) argparse\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    commands = {f"commands/{name}.py" for name in COMMANDS}
    shared = {"cli.py", "command_line/options.py", "methods.py"}
    edge = shared | {"diffbir/arguments.py"}
    assert importing == {*commands, *edge}
