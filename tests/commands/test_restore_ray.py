"""`bir restore --engine ray`: the pictures of the local engine, whoever dies on the way."""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from command_line import ROOT, command, environment, run_here, save_small_model
from diffbir_models import TINY_SWINIR, filled, save_base, text_tower_weights
from progress import bounded
from safetensors.torch import save_file

from bir_core.checkpoints import save_checkpoint
from bir_core.cli import main
from bir_core.commands import restore, restore_ray
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import Picture, write_picture

# As the command does; Ray reads it when it is imported.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
pytest.importorskip("ray", reason="ray is absent: pip install comfyui-bir[ray]")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
WORKER = "ray::MapWorker"
# Kills the first worker that writes the last picture, when half of it is written.
SITECUSTOMIZE = """
import os, pathlib, signal, sys

def encode_half(path, *more):
    encode(path, *more)
    if path.name.startswith(".{last}-") and not killed.exists():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)

if any("default_worker" in argument for argument in sys.orig_argv):
    from bir_core.pictures import files

    encode, files.encode = files.encode, encode_half
    killed = pathlib.Path({killed!r})
"""
COUNT = 24


@pytest.fixture(scope="module", autouse=True)
def ray_environment():
    """What the command sets for Ray, set here, so that it ends with these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def one_thread():
    """As the workers have by `environment`: sums depend on it in the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def collection(tmp_path_factory, one_thread):
    """Pictures, one of them no picture, and what the local engine makes of them."""
    folder = tmp_path_factory.mktemp("collection")
    save_small_model(folder / "model.safetensors")
    for index in range(COUNT):
        generator = torch.Generator().manual_seed(index)
        path = folder / "in" / f"{index % 2}" / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, Picture(torch.rand(1, 3, 256, 256, generator=generator)))
    (folder / "in" / "0" / "broken.png").write_text("no picture")
    local = run_here(*arguments(folder, folder / "in", folder / "local"))
    assert local.returncode == 2 and len(files(folder / "local")) == COUNT
    return folder


def arguments(folder, source, output, *more):
    options = ("--model", folder / "model.safetensors", "--seed", 3, "--bits", 16, "--recursive")
    return ("restore", source, output, *options, *more)


def files(folder):
    """Contents by path, hidden files included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def start(*given, folder):
    """The command as a process; Python imports a sitecustomize.py that lies in the folder."""
    return subprocess.Popen(
        command(*given),
        cwd=folder,
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def restored(lines, output):
    """The pictures that lines of the command name; Ray writes lines of its own between them."""
    return [line.split()[0] for line in lines if line.startswith(f"{output}/")]


def first_picture(process, output):
    """Wait until the command says that a picture is there."""
    for line in process.stdout:
        if restored([line], output):
            return line
    raise AssertionError(process.stderr.read())


def workers(process):
    """The processes that restore."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "".join(child.cmdline()).startswith(WORKER)]


def test_killed_in_the_middle(collection, tmp_path):
    """First the whole command, then, when it is called again, a worker that has written half a
    picture. Paths are relative, as they would often be."""
    shutil.copytree(collection / "in", tmp_path / "in")
    line = arguments(collection, "in", "out", "--engine", "ray", "--workers", 2)
    expected = files(collection / "local")
    last = max(expected)

    process = start(*line, folder=tmp_path)
    with bounded("the first picture", process.pid):
        first_picture(process, "out")
    started = workers(process)
    process.kill()
    process.communicate()
    with bounded("the end of the workers", *(worker.pid for worker in started)):
        psutil.wait_procs(started)
    before = {name: data for name, data in files(tmp_path / "out").items() if name in expected}
    assert 1 <= len(before) < COUNT and last not in before, "nothing was done, or all of it"
    assert before.items() <= expected.items(), "a picture is half-written"
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}

    killed = tmp_path / "killed"
    program = SITECUSTOMIZE.format(last=Path(last).stem, killed=str(killed))
    (tmp_path / "sitecustomize.py").write_text(program)
    process = start(*line, "--resume", folder=tmp_path)
    with bounded("the end of the restoration", process.pid):
        output, message = process.communicate()
    assert process.returncode == 2, message
    assert "1 could not be restored (in/0/broken.png" in message.splitlines()[-1]
    assert killed.exists() and f"a worker died at in/{last}" in message
    assert files(tmp_path / "out") == expected
    said = sorted(restored(output.splitlines(), "out"))
    assert said == sorted(f"out/{name}" for name in expected if name not in before)
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before}


@pytest.fixture(scope="module")
def two_machines():
    """Address of a cluster of two, on one host. Their GPUs are only numbers in Ray's accounts."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()


def test_diffbir_on_two_machines(two_machines, one_thread, tmp_path):
    networks = save_base(tmp_path / "base.ckpt")
    save_checkpoint(networks["ir_controlnet"], tmp_path / "control.safetensors")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), tmp_path / "swinir.safetensors")
    tower, _ = text_tower_weights(4000)
    tower = {key: value.contiguous() for key, value in tower.items()}
    save_file(tower, tmp_path / "text.safetensors")
    (tmp_path / "in").mkdir()
    for index in range(4):
        generator = torch.Generator().manual_seed(index)
        image = torch.rand(1, 3, 24, 16 + index, generator=generator)
        write_picture(tmp_path / "in" / f"{index}.png", Picture(image, alpha=image[:, :1]))
    options = ["--method", "diffbir", "--upscale", 2, "--steps", 2, "--short-side", 0, "--seed", 7]
    options += ["--version", "v2.1"]
    options += ["--prompt", "", "--negative", "", "--format", "tiff"]
    for name, file in (
        ("base", "base.ckpt"),
        ("controlnet", "control.safetensors"),
        ("stage1", "swinir.safetensors"),
        ("text-encoder", "text.safetensors"),
    ):
        options += [f"--{name}", tmp_path / file]
    line = ("restore", tmp_path / "in")
    local = run_here(*line, tmp_path / "local", *options)
    assert local.returncode == 0, local.stderr
    line = (*line, tmp_path / "ray", *options)
    engine = ("--engine", "ray", "--ray-address", two_machines, "--gpus-per-worker", 0.5)
    ran = run_here(*line, *engine)
    assert ran.returncode == 0, ran.stderr
    assert sorted(restored(ran.stdout.splitlines(), tmp_path / "ray")) == [
        str(tmp_path / "ray" / f"{index}.tif") for index in range(4)
    ]
    assert files(tmp_path / "ray") == files(tmp_path / "local")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--model", "absent.pth", "--workers", 1), "Expected a checkpoint file at absent.pth"),
        (("--workers", 3), "Expected room for 3 workers in the Ray cluster, but 2 fit with 1 GPU"),
        (("--workers", 3, "--device", "cpu"), "2 fit with 1 CPU for each"),
        (("--device", "cpu", "--gpus-per-worker", 1), "Expected --device cuda or auto"),
    ],
)
def test_what_stops_a_cluster(collection, two_machines, tmp_path, wrong, sentence):
    line = ("restore", collection / "in", tmp_path / "out", "--recursive")
    ran = run_here(*line, "--engine", "ray", "--ray-address", two_machines, *wrong)
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert not (tmp_path / "out").exists()


def a_worker(folder, attempt, monkeypatch, *more):
    """A worker for `arguments` in this process, told that a picture is begun for the how-manieth
    time."""
    given = arguments(folder, folder / "in", folder / "local", *more)
    return worker_for(given, folder, attempt, monkeypatch)


def worker_for(given, folder, attempt, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "get", lambda value: value)
    begin = SimpleNamespace(remote=lambda index: attempt)
    parser = argparse.ArgumentParser()
    restore.add_arguments(parser)
    options = restore.read(vars(parser.parse_args([str(argument) for argument in given[1:]])))
    return restore_ray.Worker(
        options, str(folder), torch.get_num_threads(), SimpleNamespace(begin=begin)
    )


def row(source, target, mask=""):
    paths = {"source": str(source), "target": str(target), "mask": str(mask)}
    return {"index": 0, **paths, "refusal": ""}


def test_a_worker_reads_masks(tmp_path, monkeypatch):
    model = save_small_model(tmp_path / "inpainting.safetensors", task="inpainting")
    source, mask = tmp_path / "in.png", tmp_path / "mask.png"
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    write_picture(source, Picture(image))
    write_picture(mask, Picture((image > 0.5).float()))
    options = ("--model", model, "--mask", mask)
    assert (
        run_here("restore", source, tmp_path / "local.png", *options, "--seed", 3).returncode == 0
    )
    monkeypatch.chdir(tmp_path)
    worker = a_worker(tmp_path, 1, monkeypatch, *options, "--bits", 8)
    assert worker(row("in.png", "ray.png", "mask.png"))["kind"] == "restored"
    assert (tmp_path / "ray.png").read_bytes() == (tmp_path / "local.png").read_bytes()


@pytest.mark.parametrize("how", ["--auto", "--old-photo"])
def test_a_worker_chooses_as_the_local_engine(tmp_path, monkeypatch, how):
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(0.3, 0.6, 160).expand(1, 3, 96, -1)
    noisy = slope + 0.1 * torch.randn(slope.shape, generator=generator)
    write_picture(tmp_path / "in.png", Picture(noisy.clamp(0, 1)))
    given = ("restore", tmp_path / "in.png", tmp_path / "local.png", how)
    assert run_here(*given).returncode == 0
    assert (tmp_path / "local.png").read_bytes() != (tmp_path / "in.png").read_bytes()
    monkeypatch.chdir(tmp_path)
    worker = worker_for(given, tmp_path, 1, monkeypatch)
    assert worker(row("in.png", "ray.png"))["kind"] == "restored"
    assert (tmp_path / "ray.png").read_bytes() == (tmp_path / "local.png").read_bytes()


def test_a_picture_that_kills_its_workers_is_left_out(collection, tmp_path, monkeypatch):
    source, target = collection / "in" / "0" / "00.png", tmp_path / "00.png"
    monkeypatch.chdir(tmp_path)
    for attempt in range(1, restore_ray.MOST_ATTEMPTS + 1):
        got = a_worker(collection, attempt, monkeypatch)(row(source, target))
        assert (got["kind"], got["attempt"]) == ("restored", attempt)
        target.unlink()
    got = a_worker(collection, attempt + 1, monkeypatch)(row(source, target))
    assert got["kind"] == "deadly" and "3 workers died at it" in got["text"]
    assert not target.exists()


def test_what_a_dead_worker_finished_is_not_done_again(collection, tmp_path, monkeypatch):
    source, target = collection / "in" / "0" / "00.png", tmp_path / "00.png"
    monkeypatch.chdir(tmp_path)
    target.write_text("whole")
    assert a_worker(collection, 1, monkeypatch)(row(source, target))["kind"] == "failed"
    assert a_worker(collection, 2, monkeypatch)(row(source, target))["kind"] == "restored"
    assert target.read_text() == "whole"
    assert a_worker(collection, 2, monkeypatch, "--overwrite")(row(source, target))
    assert target.read_bytes() == (collection / "local" / "0" / "00.png").read_bytes()


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "expected"),
    [
        ([{"CPU": 8.0}], 1, 0, 8),
        ([{"CPU": 8.0}, {"CPU": 3.0}], 2, 0, 5),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 4, 0, 0),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 64.0}], 1, 1, 2),
        ([{"CPU": 16.0, "GPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}], 1, 0.5, 6),
        ([{"CPU": 16.0, "GPU": 2.0}], 1, 0.4, 4),
        ([{"CPU": 3.0, "GPU": 2.0}], 1, 0.25, 3),
    ],
)
def test_room(nodes, cpus, gpus, expected):
    assert restore_ray.room(nodes, cpus, gpus) == expected


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--workers", 2), "Expected --engine ray for --workers"),
        (("--gpus-per-worker", 0.5), "Expected --engine ray for --gpus-per-worker"),
        (("--ray-address", "here"), "Expected --engine ray for --ray-address"),
        (("--engine", "ray", "--ray-address", "127.0.0.1:9"), "but it cannot be used"),
    ],
)
def test_options_that_do_not_fit(collection, tmp_path, wrong, sentence):
    ran = run_here(*arguments(collection, collection / "in", tmp_path / "out", *wrong))
    assert ran.returncode == 2
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["0", "1.5", "half"])
def test_fraction(tmp_path, capsys, wrong):
    with pytest.raises(SystemExit):
        main(["restore", "a", "b", "--engine", "ray", "--gpus-per-worker", wrong])
    assert "argument --gpus-per-worker: expected a number" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["ray", "ray.data"])
def test_ray_is_absent(collection, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    line = arguments(collection, collection / "in", tmp_path / "out", "--engine", "ray")
    ran = run_here(*line)
    assert ran.returncode == 2
    assert "pip install comfyui-bir[ray]" in ran.stderr
    assert ran.stderr.count("\n") == 1
