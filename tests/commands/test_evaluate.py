import csv
import json

import metric_weights
import numpy as np
import pytest
import torch
from command_line import run_here, save_small_model
from PIL import Image
from training_pictures import write_pictures

from bir_core import load_model
from bir_core.checkpoints.distances import read_dists, read_lpips
from bir_core.degradations import degrade, get_preset
from bir_core.diffir.restore import restore
from bir_core.metrics import psnr, ssim, ssim_volume
from bir_core.pictures.files import read_picture
from bir_core.weights import BUILTIN_NAMES


@pytest.fixture
def pictures(tmp_path):
    return write_pictures(tmp_path / "hq", count=2, size=(40, 56))


@pytest.fixture
def model(tmp_path):
    return save_small_model(tmp_path / "model.safetensors", scale=1)


def evaluated(tmp_path, *arguments):
    table = tmp_path / "table.json"
    finished = run_here("evaluate", *arguments, "--device", "cpu", "--output", table, "--overwrite")
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(table.read_text(encoding="utf-8"))
    return {(row["picture"], row["model"]): row for row in rows}, finished.stdout


def test_values_are_those_of_the_parts(pictures, model, tmp_path):
    rows, _ = evaluated(tmp_path, tmp_path / "hq", "--model", model, "--seed", "5", "--border", "2")
    network = load_model(model)
    for index, path in enumerate(pictures):
        generator = torch.Generator().manual_seed(5 + index)
        pair = degrade(read_picture(path).image, get_preset("simple_x1"), generator=generator)
        restored = restore(pair.lq, network, seed=5 + index)
        for name, image in (("input", pair.lq), (str(model), (restored * 255).round() / 255)):
            row = rows[path.name, name]
            for channel in ("y", "rgb"):
                measures = (psnr, ssim)
                expected = [float(f(image, pair.hq, channel=channel, border=2)) for f in measures]
                ours = [row[f"psnr_{channel}"], row[f"ssim_{channel}"]]
                assert ours == pytest.approx(expected, rel=1e-9)
    names = [path.name for path in pictures]
    mean = sum(rows[name, "input"]["psnr_y"] for name in names) / 2
    assert rows["mean", "input"]["psnr_y"] == pytest.approx(mean)


def test_a_picture_has_the_same_pair_every_time(pictures, model, tmp_path):
    first, _ = evaluated(tmp_path, tmp_path / "hq", "--model", model)
    assert evaluated(tmp_path, tmp_path / "hq", "--model", model)[0] == first
    other, _ = evaluated(tmp_path, tmp_path / "hq", "--model", model, "--seed", "9")
    assert other != first


def test_pairs_of_folders(pictures, tmp_path):
    for path in pictures:
        (tmp_path / "lq").mkdir(exist_ok=True)
        Image.open(path).resize((14, 10), Image.Resampling.BOX).save(tmp_path / "lq" / path.name)
    model = save_small_model(tmp_path / "x4.safetensors", scale=4)
    rows, text = evaluated(tmp_path, tmp_path / "hq", "--lq", tmp_path / "lq", "--model", model)
    # The papers' bicubic has a = -0.5, as Pillow's, which rounds after each direction.
    small = Image.open(tmp_path / "lq" / pictures[0].name)
    small.resize((56, 40), Image.Resampling.BICUBIC).save(tmp_path / "bicubic.png")
    bicubic, hq = (read_picture(path).image for path in (tmp_path / "bicubic.png", pictures[0]))
    expected = float(psnr(bicubic, hq, channel="y"))
    assert rows[pictures[0].name, "bicubic"]["psnr_y"] == pytest.approx(expected, abs=0.02)
    assert f"| {expected:.2f} |" in text


def test_tables_hold_the_same_numbers(pictures, model, tmp_path):
    names = [tmp_path / f"table.{ending}" for ending in ("csv", "md")]
    outputs = [part for name in names for part in ("--output", name)]
    rows, text = evaluated(tmp_path, tmp_path / "hq", "--model", model, *outputs)
    with open(names[0], encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            expected = rows[row["picture"], row["model"]]
            assert float(row["ssim_rgb"]) == expected["ssim_rgb"]
    assert names[1].read_text(encoding="utf-8").strip() == text.strip()
    assert len(text.strip().splitlines()) == 2 + 2 * 3


def test_built_in_models_gain_where_noise_dominates(tmp_path):
    rows, columns = np.mgrid[:160, :160]
    shade = 40 + rows // 2 + 60 * (columns > 80)
    picture = np.stack([shade, shade // 2 + 40, 220 - shade], axis=-1).astype(np.uint8)
    (tmp_path / "hq").mkdir()
    Image.fromarray(picture).save(tmp_path / "hq" / "shades.png")
    for name in BUILTIN_NAMES:
        baseline = "input" if name.endswith("x1") else "bicubic"
        rows, _ = evaluated(tmp_path, tmp_path / "hq", "--model", name)
        gain = rows["mean", name]["psnr_y"] - rows["mean", baseline]["psnr_y"]
        assert gain > 1.5, f"{name}: {gain:.2f} dB"


def save_results(folder, pictures, amount=9):
    """The pictures, disturbed."""
    folder.mkdir()
    for index, path in enumerate(pictures):
        image = np.asarray(Image.open(path)).astype(int)
        noise = np.random.default_rng(index).integers(-amount, amount + 1, image.shape)
        Image.fromarray((image + noise).clip(0, 255).astype(np.uint8)).save(folder / path.name)
    return folder


def test_results_with_originals_by_a_protocol(pictures, tmp_path):
    near = save_results(tmp_path / "near", pictures)
    far = save_results(tmp_path / "far", pictures, amount=60)
    rows, _ = evaluated(
        tmp_path,
        *(tmp_path / "hq", "--results", near, "--results", far),
        *("--protocol", "diffir-realsr", "--metric", "psnr_y", "--metric", "ssim_volume"),
    )
    for path in pictures:
        hq = read_picture(path).image
        for folder in (near, far):
            image = read_picture(folder / path.name).image
            row = rows[path.name, str(folder)]
            expected = float(psnr(image, hq, channel="y", border=4))
            assert row["psnr_y"] == pytest.approx(expected, rel=1e-9)
            expected = float(ssim_volume(image, hq, border=4))
            assert row["ssim_volume"] == pytest.approx(expected, rel=1e-9)
    assert rows["mean", str(near)]["psnr_y"] > rows["mean", str(far)]["psnr_y"]
    rows, _ = evaluated(tmp_path, tmp_path / "hq", "--results", near, "--protocol", "diffir-deblur")
    assert list(rows["mean", str(near)]) == ["picture", "model", "psnr_rgb", "ssim_volume"]


def test_results_alone_and_as_a_set(tmp_path):
    pytest.importorskip("pyiqa", reason="pyiqa is not installed")
    pictures = write_pictures(tmp_path / "hq", count=3, size=(100, 200))
    results = save_results(tmp_path / "results", pictures)
    weights = tmp_path / "weights"
    metric_weights.write_niqe(weights)
    metric_weights.write_inception(weights)
    rows, text = evaluated(
        tmp_path,
        *("--results", results, "--reference", tmp_path / "hq"),
        *("--metric", "niqe", "--metric", "fid", "--metric-weights", weights),
        *("--output", tmp_path / "table.csv"),
    )
    mean = rows["mean", str(results)]
    single = [rows[path.name, str(results)] for path in pictures]
    assert mean["niqe"] == pytest.approx(sum(row["niqe"] for row in single) / 3)
    assert [row["fid"] for row in single] == [None, None, None]
    assert mean["fid"] > 0
    lines = text.strip().splitlines()
    assert lines[0] == "| picture | model | NIQE | FID |"
    assert lines[2] == f"| {pictures[0].name} | {results} | {single[0]['niqe']:.3f} |  |"
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert (table[0]["fid"], float(table[-1]["fid"])) == ("", mean["fid"])
    originals, _ = evaluated(
        tmp_path,
        *(tmp_path / "hq", "--results", results, "--metric", "fid", "--metric-weights", weights),
    )
    assert originals["mean", str(results)]["fid"] == pytest.approx(mean["fid"])


def test_distances_are_those_of_the_whole_pictures(tmp_path):
    pictures = write_pictures(tmp_path / "hq", count=2, size=(40, 56))
    results = save_results(tmp_path / "results", pictures, amount=60)
    weights = tmp_path / "weights"
    metric_weights.write_distances(weights)
    rows, _ = evaluated(
        tmp_path,
        *(tmp_path / "hq", "--results", results, "--metric-weights", weights, "--border", "4"),
        *("--metric", "lpips_alex", "--metric", "lpips_vgg", "--metric", "dists"),
    )
    distances = {
        "lpips_alex": read_lpips("alex", weights),
        "lpips_vgg": read_lpips("vgg", weights),
        "dists": read_dists(weights),
    }
    for path in pictures:
        restored, hq = (read_picture(folder / path.name).image for folder in (results, path.parent))
        for name, distance in distances.items():
            expected = float(distance(restored, hq))
            assert rows[path.name, str(results)][name] == pytest.approx(expected, abs=1e-6)
            assert expected > 1e-4


def test_the_list_needs_no_pictures():
    finished = run_here("evaluate", "--list")
    assert finished.returncode == 0
    assert "| diffir-srgan |" in finished.stdout and "| musiq |" in finished.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "neither came"),
        (["--results", "HQ"], "originals for psnr_y"),
        (["--results", "HQ", "--metric", "fid"], "--reference or HQ"),
        (["HQ", "--reference", "HQ"], "leave --reference out"),
        (["HQ", "--results", "HQ", "--model", "builtin-x1"], "both came"),
        (["--results", "HQ", "--protocol", "diffbir-real", "--metric-weights", "HQ"], "RN50.pt"),
        (["HQ", "--metric", "dists", "--metric-weights", "HQ"], "bir weights measures"),
    ],
)
def test_measures_without_what_they_need(pictures, tmp_path, arguments, said):
    line = [tmp_path / "hq" if part == "HQ" else part for part in arguments]
    finished = run_here("evaluate", *line, "--device", "cpu")
    assert finished.returncode == 2
    assert said in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--degradation", "simple_x9"], "simple_x1"),
        (["--lq", "LQ"], "found nothing"),
        (["--output", "table.txt"], "ends in .md, .csv, .json"),
        (["--model", "S1"], "stage 1"),
        (["--model", "INPAINTING"], "inpainting"),
        (["--model", "MODEL", "--model", "X4"], "one scale"),
        (["--border", "30"], "smaller"),
    ],
)
def test_bad_input(pictures, model, tmp_path, arguments, said):
    files = {
        "MODEL": model,
        "LQ": tmp_path / "lq",
        "S1": save_small_model(tmp_path / "s1.safetensors", stage=1),
        "X4": save_small_model(tmp_path / "x4.safetensors", scale=4),
        "INPAINTING": save_small_model(tmp_path / "i.safetensors", task="inpainting"),
    }
    line = [files.get(part, part) for part in arguments]
    if "--model" not in line:
        line += ["--model", model]
    finished = run_here("evaluate", tmp_path / "hq", "--device", "cpu", *line)
    assert finished.returncode == 2
    assert said in finished.stderr


@pytest.mark.parametrize("results", [False, True])
def test_a_bad_picture_does_not_stop_the_folder(pictures, model, tmp_path, results):
    what = ("--model", model)
    if results:
        what = ("--results", save_results(tmp_path / "results", pictures, amount=60))
    options = (tmp_path / "hq", *what, "--metric", "psnr_y")
    whole, _ = evaluated(tmp_path, *options)
    pictures[1].write_text("no picture")
    table = tmp_path / "table.json"
    done = run_here("evaluate", *options, "--device", "cpu", "--output", table, "--overwrite")
    assert done.returncode == 2
    failed, last = done.stderr.splitlines()
    assert f"{pictures[1]}, but it cannot be decoded" in failed
    assert "Expected 2 usable pictures, but 1 could not be measured" in last
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert {row["picture"] for row in rows} == {pictures[0].name, "mean"}
    for row in rows:
        assert row["psnr_y"] == whole[pictures[0].name, row["model"]]["psnr_y"]
