"""`bir bench`, on an official network and the smallest picture."""

import json

import pytest
import torch
from training_pictures import write_pictures

from bir_core.benchmarks import cases, worker
from bir_core.benchmarks.cases import Case
from bir_core.benchmarks.comparing import Measured
from bir_core.benchmarks.start import compare_starts
from bir_core.benchmarks.training import training_of_nothing
from bir_core.cli import main
from bir_core.training.data import Batch
from bir_core.training.methods.table import load_recipe
from bir_core.weights import BUILTIN_NAMES


def table_of(text):
    """The rows of the Markdown table in a text, each by its columns."""
    header, _, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    )
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_a_variant(capsys):
    arguments = "bench --variant inpainting --size 8x16 --strip 3 --repeats 1 --threads 1"
    assert main([*arguments.split(), "--device", "cpu"]) == 0
    plain, streamed = table_of(capsys.readouterr().out)
    assert (plain["side"], streamed["side"]) == ("plain", "streamed")
    assert plain["work"] == "DiffIR inpainting"
    assert plain["input"] == "8x16"
    assert float(plain["s"]) > 0
    assert float(streamed["s"]) > 0
    assert int(streamed["operations"]) > int(plain["operations"])
    # 0 where both ways happen to add in the same order
    assert 0 <= float(streamed["difference"]) < 1e-5


def test_builtin_models(capsys):
    arguments = ["bench", "--builtin", "--size", "16x24", "--repeats", "1", "--device", "cpu"]
    assert main(arguments) == 0
    rows = table_of(capsys.readouterr().out)
    assert [row["work"] for row in rows] == list(BUILTIN_NAMES)
    assert all(row["input"] == "16x24" and float(row["s"]) > 0 for row in rows)


def test_start():
    found = compare_starts("cpu", 1)
    assert [side.side for side in found] == [
        "`import torch`",
        "`bir --help`",
        "`bir restore` of 64x64",
    ]
    assert all(side.seconds > 0 for side in found)


SMALL_CASES = [Case(kind="builtin", name="builtin-x1", height=side, width=16) for side in (16, 24)]


@pytest.fixture
def small_cases(monkeypatch):
    """Everything that is measured, in seconds. Appends the sizes that were asked for."""
    asked = []

    def all_cases(sizes):
        asked.append(sizes)
        return list(SMALL_CASES)

    monkeypatch.setattr(cases, "all_cases", all_cases)
    return asked


def test_everything_in_all_formats(small_cases, capsys, tmp_path):
    outputs = [tmp_path / name for name in ("table.md", "table.json", "plot.svg")]
    arguments = ["bench", "--quick", "--device", "cpu", "--threads", "1", "--output"]
    assert main([*arguments, *map(str, outputs)]) == 0
    shown = capsys.readouterr().out
    assert outputs[0].read_text() == shown
    assert [row["input"] for row in table_of(shown)] == ["16x16", "24x16"]
    content = json.loads(outputs[1].read_text())
    assert [row["runs"] for row in content["rows"]] == [1, 1]
    assert "builtin-x1: restore" in outputs[2].read_text()
    assert small_cases == [cases.QUICK]


def test_without_a_mode_the_sizes_are_those_of_a_cpu(small_cases, capsys):
    assert main(["bench", "--device", "cpu", "--repeats", "1"]) == 0
    assert small_cases == [cases.ON_CPU]
    assert len(table_of(capsys.readouterr().out)) == 2


def test_an_output_that_exists_is_kept(small_cases, capsys, tmp_path):
    kept = tmp_path / "table.md"
    kept.write_text("mine")
    assert main(["bench", "--output", str(tmp_path / "new.json"), str(kept)]) == 2
    assert f"{kept} exists and is kept; choose another name.\n" in capsys.readouterr().err
    assert not small_cases
    assert [path.name for path in tmp_path.iterdir()] == ["table.md"]
    assert kept.read_text() == "mine"


def test_gpu_on_another_device(small_cases, capsys):
    """The path of a GPU, in both types, as far as a CPU takes it."""
    arguments = ["bench", "--gpu", "--device", "cpu", "--repeats", "1", "--compile", "eager"]
    assert main(arguments) == 0
    assert small_cases == [cases.ON_GPU]
    rows = table_of(capsys.readouterr().out)
    assert [row["type"] for row in rows] == ["float32"] * 2 + ["float16"] * 2


def test_gpu_where_there_is_none(small_cases, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--gpu"]) == 2
    assert "--gpu should find a CUDA device, but torch" in capsys.readouterr().err


def test_rows_that_fail_are_told(monkeypatch, small_cases, capsys):
    def run_cases(chosen, conditions):
        for case in chosen:
            yield [worker.Row(case, conditions, Measured(side="", note="ended early"))]

    monkeypatch.setattr(worker, "run_cases", run_cases)
    assert main(["bench", "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert [row["s"] for row in table_of(captured.out)] == ["ended early"] * 2
    assert "2 of 2 rows could not be measured" in captured.err


def test_training(capsys, tmp_path):
    write_pictures(tmp_path)
    arguments = ["bench", "--training", "smoke_s1", "--data", str(tmp_path), "--iterations", "3"]
    assert main([*arguments, "--set", "data.batch=2", "--device", "cpu", "--threads", "1"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert cells[" batch "] == " 2 "
    assert float(cells[" pictures/s "]) > 0
    waiting = float(cells[" waiting for pictures "].strip(" %"))
    degrading = float(cells[" degrading "].strip(" %"))
    assert waiting > 0
    assert degrading > 0
    assert waiting + degrading < 100


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_reading_and_degrading_supply(workers, capsys, tmp_path):
    """smoke_s2 needs a file of stage 1; without its networks it needs none."""
    write_pictures(tmp_path)
    arguments = ["bench", "--training", "smoke_s2", "--data", str(tmp_path), "--network", "none"]
    changes = ["--set", "data.batch=2", "--set", f"data.workers={workers}", "--iterations", "2"]
    assert main([*arguments, *changes, "--device", "cpu", "--threads", "1"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert cells[" recipe "] == " smoke_s2, no network "
    assert cells[" workers "] == f" {workers} "
    assert float(cells[" pictures/s "]) > 0
    assert (float(cells[" degrading "].strip(" %")) > 0) == (workers == "0")


@pytest.mark.parametrize("recipe", ["smoke_s1", "smoke_inpainting_s1", "smoke_swinir"])
def test_the_network_that_costs_nothing_learns_its_factor(recipe):
    """Inputs of a quarter of the size, with a mask, and of the same size."""
    recipe = load_recipe(recipe)
    training = training_of_nothing(recipe)
    (update,) = training.phases[0].updates
    scale = recipe.scale
    lq = torch.full((2, 4, 8, 8), 0.5)
    hq = torch.full((2, 3, 8 * scale, 8 * scale), 0.25)
    (total,) = update.loss(Batch(lq, hq, torch.Generator())).values()
    total.backward()
    assert total.item() == pytest.approx(0.25)
    assert [parameter.grad.item() for parameter in update.parameters] == [pytest.approx(0.5)]
    restored = training.restore(training.model, lq, hq)
    assert restored.shape == hq.shape and bool((restored == 0.5).all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--network none", "--network belongs to a training"),
        (
            "--training smoke_s2 --data . --network none --stage1 a.pth",
            "A recipe of no network takes no --stage1",
        ),
        ("--training smoke_s1", "--training should have pictures"),
        ("--training smoke_s2 --data .", "give it with --stage1"),
        ("--size 8x8", "--size belongs to a variant"),
        ("--strip 8", "--strip belongs to a variant"),
        ("--quick --builtin", "At most one of --variant"),
        ("--compile nothing", "compiled by one of"),
        ("--output table.csv", "ends in .md, .json, .svg, but table.csv came"),
        ("--official-diffir .", "a checkout of the official DiffIR"),
        ("--official-diffbir .", "a checkout of the official DiffBIR"),
        ("--variant deblur --size 8x9", "divide by 8 for deblur, but 8x9 came"),
        ("--variant realsr_x1 --size 0x32", "divide by 32 for realsr_x1, but 0x32 came"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert main(["bench", *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_a_size_that_is_none(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "--variant", "deblur", "--size", "large"])
    assert "expected HxW like 384x384, but large came" in capsys.readouterr().err
