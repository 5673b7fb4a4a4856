"""The report: what it says, what it must not say, and `bir verify` around it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from command_line import run_bir, run_here, save_small_model
from diffbir_models import save_base
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from bir_core.checkpoints import save_checkpoint
from bir_core.verification.checking import Verification, verify
from bir_core.verification.pipelines import Conditions
from bir_core.verification.report import MOST_NAMES, _plain, as_json, as_markdown, environment

QUICK = Conditions(side=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base and an IRControlNet, a damaged DiffIR, and no file at all."""
    folder = tmp_path_factory.mktemp("private") / "letters of mine"
    folder.mkdir()
    networks = save_base(folder / "base.ckpt")
    save_checkpoint(networks["ir_controlnet"], folder / "v1.safetensors")
    path = save_small_model(folder / "damaged.safetensors", task="deblur")
    tensors = load_file(path)
    del tensors["G.output.weight"]
    save_file(tensors | {f"more{index}": torch.ones(1) for index in range(30)}, path)
    (folder / "cut.pth").write_bytes(b"PK\x03\x04" + bytes(50))
    return folder


@pytest.fixture(scope="module")
def verification(folder):
    names = ("v1.safetensors", "base.ckpt", "damaged.safetensors", "cut.pth", "absent.pth")
    return verify([*(str(folder / name) for name in names), "builtin-diffir-x1"], QUICK)


@pytest.fixture(scope="module")
def text(verification):
    return as_markdown(verification, environment(QUICK))


def test_no_folder_is_named(text, verification, folder):
    for report in (text, as_json(verification, environment(QUICK))):
        for part in ("letters", "private", *folder.parts[1:-2]):
            assert part not in report
        assert "damaged.safetensors" in report


def test_what_the_text_says(text):
    assert f"| torch | {torch.__version__} |" in text
    assert "| device | cpu |" in text and "| dtype | float32 |" in text
    assert "| v1.safetensors | DiffBIR IRControlNet | loads and runs |" in text
    assert (
        "| base.ckpt | Stable Diffusion 2.1 UNet, Stable Diffusion VAE, OpenCLIP text encoder |"
        in text
    )
    assert "| damaged.safetensors | DiffIR stage 2 | failed |" in text
    assert "| absent.pth | nothing known | failed |" in text
    assert "| builtin-diffir-x1 | DiffIR stage 2 | loads and runs |" in text
    assert "| DiffBIR v1 | all stages | doubtful |" in text
    assert "- DiffBIR version by the file's name: v1" in text
    assert "- missing tensors: 1: G.output.weight" in text
    assert "- tensors left over: 30: more0, " in text and "and 10 more" in text
    assert f"more{MOST_NAMES - 1}" in text
    assert "- wrapped in: state_dict" in text
    assert "- sha256: " in text and "- peak memory above that before: " in text
    assert "- psnr_to_stage_1_picture_db: " in text


def test_only_lines(text):
    """Every line is a heading, a row of a table, a point of a list, or empty."""
    assert all(line == "" or line[0] in "#|-" for line in text.split("\n"))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_of_a_file_stays_one_line(text):
    shown = _plain(text)
    assert "\n" not in shown and "\r" not in shown
    assert all(shown[index - 1] == "\\" for index, mark in enumerate(shown) if mark in "|<`[")


def test_names_of_files_cannot_change_the_text(tmp_path):
    odd = "a|b`c*<d>.pth"
    verification = verify([str(tmp_path / odd)], QUICK)
    text = as_markdown(verification, environment(QUICK))
    assert r"a\|b\`c\*\<d\>.pth" in text
    assert odd not in text


def test_json(verification):
    content = json.loads(as_json(verification, environment(QUICK)))
    assert content["passed"] is False
    assert [file["result"] for file in content["files"][2:]] == [*["failed"] * 3, "loads and runs"]
    damaged = content["files"][2]["networks"][0]
    assert len(damaged["facts"]["surplus"]) == 30  # all of them
    assert damaged["facts"]["config"]["task"] == "deblur"
    assert content["files"][0]["fingerprint"]["sha256"]
    (pipeline,) = content["pipelines"]
    assert pipeline["result"] == "doubtful" and pipeline["files"]["sd_vae"] == "base.ckpt"
    assert content["environment"]["torch"] == torch.__version__


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_json_has_no_number_that_json_has_not(verification, number):
    pipeline = verification.pipelines[0]
    trialled = replace(pipeline.trialled, numbers={"psnr_db": number})
    odd = Verification((), (replace(pipeline, trialled=trialled),))
    content = json.loads(as_json(odd, environment(QUICK)))
    assert content["pipelines"][0]["trialled"]["numbers"] == {"psnr_db": None}


def test_the_command(folder, tmp_path):
    ran = run_here("verify", "builtin-diffir-x1", "--device", "cpu")
    assert ran.returncode == 0
    assert ran.stdout.startswith("# bir verify\n")
    failing = run_here(
        "verify", folder / "cut.pth", "builtin-diffir-x1", "--json", "--device", "cpu"
    )
    assert failing.returncode == 1
    results = [file["result"] for file in json.loads(failing.stdout)["files"]]
    assert results == ["failed", "loads and runs"]
    path = tmp_path / "report.md"
    written = (
        "verify",
        "builtin-diffir-x1",
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
        "--output",
        path,
    )
    assert run_here(*written).stdout == ""
    assert "- ran in bfloat16 in " in path.read_text()
    again = run_here(*written)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    assert run_here(*written, "--overwrite").returncode == 0


def test_the_options_of_a_pipeline(folder):
    given = (folder / "v1.safetensors", folder / "base.ckpt")
    more = ("--version", "v2", "--size", 64, "--json", "--device", "cpu")
    ran = run_here("verify", *given, *more)
    assert ran.returncode == 0, ran.stderr
    (pipeline,) = json.loads(ran.stdout)["pipelines"]
    assert pipeline["version"] == "v2" and pipeline["trialled"]["numbers"]["width"] == 64


@pytest.mark.parametrize("size", ["63", "0", "large", "-64"])
def test_a_size_that_is_none(size, capsys):
    with pytest.raises(SystemExit):
        run_here("verify", "builtin-diffir-x1", f"--size={size}")


def test_a_report_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    monkeypatch.delattr("bir_core.commands.verify.verify")
    output = tmp_path / "absent" / "report.md"
    ran = run_here("verify", "builtin-diffir-x1", "--device", "cpu", "--output", output)
    assert ran.returncode == 2
    assert "Expected to write the report" in ran.stderr and ran.stderr.count("\n") == 1


def test_as_a_process_of_its_own(folder):
    """With the packages as they are, whatever of them can be imported."""
    ran = run_bir("verify", "builtin-diffir-x1", folder / "absent.pth", "--device", "cpu")
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "| builtin-diffir-x1 | DiffIR stage 2 | loads and runs |" in ran.stdout
