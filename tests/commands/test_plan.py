"""`bir plan`: what it says of sizes, pictures and devices."""

import pytest
import torch

from bir_core.cli import main
from bir_core.methods import METHODS
from bir_core.pictures.files import Picture, write_picture


def plan(capsys, *arguments):
    assert main(["plan", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def stages(text):
    """Cells of the tables' rows by the name of the stage."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in rows if cells and cells[0] not in ("stage", "---")}


def test_every_method_on_a_card(capsys):
    text = plan(capsys, "512x384", "--memory", "6GB", "--dtype", "float16")
    assert "Compact module builtin-x4-sharp, 512x384 -> 2048x1536, float16" in text
    assert "DiffIR builtin-diffir-x4, 512x384 -> 2048x1536, float16" in text
    assert "DiffBIR v2.1 sr, 512x384 -> 2048x1536, float16" in text
    found = stages(text)
    assert {"restoring", "stage 1", "encoding", "sampling", "decoding"} <= set(found)
    assert found["sampling"][0].startswith("tiles of 512")
    # UNet and IRControlNet in float16, VAE and SwinIR in float32.
    assert float(found["sampling"][1]) == pytest.approx(
        (2 * (865.9e6 + 363.2e6) + 4 * (83.7e6 + 15.9e6)) / 1e9, abs=0.03
    )
    assert text.count("fits:") == len(METHODS)
    assert "of the 6.0 GB memory of the GPU" in text


def test_offloading(capsys):
    arguments = ("1024x768", "--memory", "6GB", "--method", "diffbir")
    assert "does not fit: " in plan(capsys, *arguments)
    text = plan(capsys, *arguments, "--offload", "--dtype", "float16")
    assert "\nfits: " in text and "float16, offloaded" in text
    assert float(stages(text)["decoding"][1]) == pytest.approx(4 * 83.7e6 / 1e9, abs=0.02)


def test_the_result_counts_while_it_is_written(capsys, monkeypatch):
    """Three pictures of it, on the host, whatever computes."""
    arguments = ("3000x2000", "--model", "builtin-x4")
    copies = 3 * 12 * 12_000 * 8_000 / 1e9
    on_card = stages(plan(capsys, *arguments, "--memory", "80GB"))["writing"]
    assert on_card[:3] == ["whole", "0.00", "0.00"]
    assert float(on_card[3]) == pytest.approx(copies, abs=0.01)
    on_cpu = stages(plan(capsys, *arguments, "--device", "cpu"))["writing"]
    assert float(on_cpu[2]) == pytest.approx(copies, abs=0.01)
    for module in ("commands.plan", "forecast"):
        monkeypatch.setattr(f"bir_core.{module}.free_memory", lambda device: 3 * 10**9)
    text = plan(capsys, *arguments, "--memory", "80GB")
    assert "does not fit: writing needs 4.3 GB of the 3.0 GB memory of the computer" in text
    assert "does not fit: writing" in plan(capsys, *arguments, "--device", "cpu")
    # Of what is asked for, not of what stage 1 enlarges a small picture to.
    small = stages(plan(capsys, "100x50", "--method", "diffbir", "--memory", "80GB"))["writing"]
    assert float(small[3]) == pytest.approx(3 * 12 * 400 * 200 / 1e9, abs=0.01)


def test_a_model_says_the_method(capsys):
    assert plan(capsys, "9x9", "--model", "builtin-diffir-x1").startswith("DiffIR builtin-diffir")
    assert plan(capsys, "9x9", "--model", "builtin-x1").startswith("Compact module builtin-x1, 9x9")


def test_size_of_a_file_and_the_free_memory(capsys, tmp_path):
    write_picture(tmp_path / "lq.png", Picture(image=torch.rand(1, 3, 40, 70)))
    text = plan(capsys, tmp_path / "lq.png", "32x16", "--device", "cpu", "--method", "diffir")
    assert "70x40 -> 280x160" in text and "32x16 -> 128x64" in text
    assert "GPU" not in text


@pytest.mark.parametrize(
    ("more", "stage", "cell"),
    [
        (("--tile", "0"), "sampling", "whole"),
        (("--tile", "256", "--tile-batch", "2"), "sampling", "tiles of 256, 2 at a time"),
        (("--vae-tile", "128"), "decoding", "tiles of 128"),
        (("--stage1-tile", "64"), "stage 1", "tiles of 64"),
        (("--version", "v2", "--task", "denoise"), "stage 1", "whole"),
    ],
)
def test_settings(capsys, more, stage, cell):
    text = plan(capsys, "600x700", "--memory", "200GB", "--method", "diffbir", *more)
    assert stages(text)[stage][0] == cell


def test_stage1_of_v2_sees_the_small_picture(capsys):
    """BSRNet enlarges by itself; SwinIR sees 16 times the pixels."""
    arguments = ("600x700", "--memory", "200GB", "--method", "diffbir", "--version")
    work = [float(stages(plan(capsys, *arguments, v))["stage 1"][2]) for v in ("v2", "v2.1")]
    assert work[0] == pytest.approx(600 * 700 * 20_480 / 1e9, rel=0.1)
    assert work[1] == pytest.approx(2432 * 2816 * 800 / 1e9, rel=0.15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("0x5",), "at least 1x1 pixels"),
        (("absent.png",), "found nothing"),
        (("8x8", "--upscale", "0.01"), "choose a larger factor"),
        (("8x8", "--tile", "100"), "multiple of 64"),
        (("8x8", "--model", "absent.pth"), "found nothing"),
    ],
)
def test_bad_input(capsys, arguments, sentence):
    assert main(["plan", *arguments, "--memory", "6GB"]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize("memory", ["6", "lots", "-1GB"])
def test_bad_memory(capsys, memory):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "8x8", f"--memory={memory}"])
    assert "such as 6GB" in capsys.readouterr().err


@pytest.fixture
def large_host(monkeypatch):
    """Whatever machine runs the tests."""
    for module in ("commands.plan", "forecast", "diffbir.method"):
        monkeypatch.setattr(f"bir_core.{module}.free_memory", lambda device: 64 * 10**9)


def advice(capsys, *arguments):
    """What the verdict advises; None if it fits."""
    text = plan(capsys, *arguments)
    return text.partition("; try ")[2].strip() if "does not fit: " in text else None


@pytest.mark.parametrize(
    ("method", "size", "memory", "words"),
    [
        ("diffir", "1024x768", "400MB", "--dtype float16"),
        ("diffir", "1024x768", "200MB", "a smaller picture"),
        ("compact", "4000x3000", "2GB", "--dtype float16"),
        ("diffbir", "1024x768", "6GB", "--dtype float16"),
        ("diffbir", "512x384", "1GB", "a smaller picture"),
    ],
)
def test_advice_fits_the_method(capsys, large_host, method, size, memory, words):
    arguments = (size, "--memory", memory, "--method", method)
    assert advice(capsys, *arguments) == words


@pytest.mark.parametrize(
    ("memory", "more", "words"),
    [
        ("8GB", ("--dtype", "float16", "--vae-tile", 0), "leaving out --vae-tile"),
        ("4GB", ("--dtype", "float16", "--offload", "--tile", 0), "leaving out --tile"),
        ("7GB", ("--vae-tile", 0), "--offload with leaving out --vae-tile"),
        ("1GB", ("--dtype", "float16", "--offload"), "a smaller picture"),
    ],
)
def test_advice_names_only_what_is_not_set(capsys, large_host, memory, more, words):
    arguments = ("1024x768", "--memory", memory, "--method", "diffbir", *more)
    assert advice(capsys, *arguments) == words


def test_a_file_for_maps_that_no_memory_holds(capsys, monkeypatch, tmp_path):
    """With its price; the folder that is named counts, and another one is advised where none is."""
    disks = {tmp_path: 120 * 10**9}
    for module in ("commands.plan", "forecast", "diffbir.method"):
        monkeypatch.setattr(f"bir_core.{module}.free_memory", lambda device: 16 * 10**9)
    monkeypatch.setattr("bir_core.diffbir.method.free_disk", lambda folder: disks.get(folder, 10))
    arguments = ("8192x8192", "--method", "diffbir", "--upscale", 1, "--memory", "10GB")
    arguments = (*arguments, "--offload", "--dtype", "float16")
    words = "--maps-folder on a larger disk"
    assert advice(capsys, *arguments) == words
    text = plan(capsys, *arguments, "--maps-folder", tmp_path)
    assert "\nfits: " in text
    assert stages(text)["decoding"][3:] == ["0.00", "103.08"]
    assert "file: 103.1 GB of the disk" in text and "min at 1 GB a second" in text
    disks[tmp_path] = 90 * 10**9
    assert advice(capsys, *arguments, "--maps-folder", tmp_path) == "a smaller picture"
    assert "file:" not in plan(capsys, "64x64", "--method", "diffbir", "--memory", "80GB")


def test_what_is_advised_makes_it_fit(capsys, large_host):
    arguments = ("1024x768", "--memory", "6GB", "--method", "diffbir")
    assert advice(capsys, *arguments, *advice(capsys, *arguments).split()) is None


def test_half_precision_on_a_cpu(capsys, large_host, monkeypatch):
    monkeypatch.setattr("bir_core.commands.plan.free_memory", lambda device: 6 * 10**9)
    arguments = ("64x48", "--device", "cpu", "--method", "diffbir")
    assert advice(capsys, *arguments) == "--dtype float16 (slow on a CPU)"
    assert main(["plan", *arguments, "--dtype", "float16"]) == 0
    assert "--dtype float16 is slow on a CPU" in capsys.readouterr().err


def test_whole_photos_count_a_face(capsys, large_host):
    arguments = ("500x400", "--memory", "24GB", "--method", "diffbir", "--task")
    photo, sr = (plan(capsys, *arguments, task) for task in ("unaligned_face", "sr"))
    assert "unaligned_face, 500x400 -> 2000x1600, float32, without detector and parser" in photo
    background = {name: row for name, row in stages(photo).items() if "face" not in name}
    assert background == stages(sr)
    assert stages(photo)["face: sampling"][0] in ("whole", "tiles of 512")
    assert main(["plan", *arguments, "unaligned_face", "--version", "v1"]) == 2
    assert "Expected DiffBIR v2 or v2.1" in capsys.readouterr().err
