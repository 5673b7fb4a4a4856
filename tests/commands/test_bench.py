"""`bir bench`, on an official network and the smallest picture."""

import argparse

import pytest
import torch
from training_pictures import write_pictures

from bir_core.benchmarks.start import start_seconds
from bir_core.benchmarks.training import training_of_nothing
from bir_core.cli import main
from bir_core.commands import bench
from bir_core.errors import BIRError
from bir_core.training.data import Batch
from bir_core.training.methods.table import load_recipe
from bir_core.weights import BUILTIN_NAMES


def test_table(capsys):
    arguments = "bench --variant inpainting --size 8x16 --strip 3 --repeats 1 --threads 1"
    assert main([*arguments.split(), "--device", "cpu"]) == 0
    header, line, row = capsys.readouterr().out.splitlines()
    assert header.count("|") == line.count("|") == row.count("|")
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert cells[" network "] == " inpainting "
    assert cells[" input "] == " 8x16 "
    assert cells[" strip "] == " 3 "
    assert float(cells[" plain s "]) > 0
    assert float(cells[" streamed s "]) > 0
    # 0 where both ways happen to add in the same order
    assert 0 <= float(cells[" difference "]) < 1e-5


def test_builtin_models(capsys):
    arguments = ["bench", "--builtin", "--size", "16x24", "--repeats", "1", "--device", "cpu"]
    assert main(arguments) == 0
    header, line, *rows = capsys.readouterr().out.strip().splitlines()
    assert header.count("|") == line.count("|") == rows[0].count("|")
    assert "from 16x24" in header
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == list(BUILTIN_NAMES)
    assert all(float(row[2]) > 0 for row in cells)


def test_start():
    seconds = start_seconds(1)
    assert list(seconds) == ["bir --help", "import torch"]
    assert min(seconds.values()) > 0


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


def test_a_process_that_ends_is_reported():
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    options = parser.parse_args(["--device", "cpu", "--threads", "1"])
    job = bench._job(("deblur", 8, 8), options)
    with bench._Worker(job) as worker:
        worker.process.kill()
        with pytest.raises(BIRError, match="streamed network deblur to run at 8x8"):
            worker.ask("time")
