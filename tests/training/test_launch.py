"""A training by several processes is the training by one that accumulates as many micro-batches."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from command_line import environment
from diffbir_models import TINY_SWINIR, filled, save_base
from progress import bounded

from bir_core.checkpoints import save_checkpoint
from bir_core.networks import discriminators
from bir_core.networks.swinir import SwinIR
from bir_core.training.methods.table import load_recipe
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import read_state

ROOT = Path(__file__).parents[2]
CHANGES = ("data.batch=2", "iterations=5")
pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="torch for Windows lacks torchrun's libuv"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As many as the processes have: sums depend on how threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The state of the training by one process."""
    return by_one(pictures, tmp_path_factory.mktemp("whole"), "smoke_s1")


def by_one(pictures, output, recipe, files=None):
    recipe = load_recipe(recipe, (*CHANGES, "data.accumulate=2"))
    run_recipe(recipe, data=pictures, output=output, device="cpu", files=files)
    return read_state(output / "state.safetensors")


def by_two(launches, pictures, output, recipe="smoke_s1", *more, program=("--module", "bir_core")):
    """Run all launchers at once, each with the same training."""
    settings = [part for change in CHANGES for part in ("--set", change)]
    line = [*program, "train", recipe, "--data", pictures, "--output", output]
    line += ["--device", "cpu", *settings, *more]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, (*launch, *line))], cwd=ROOT, env=environment()
        )
        for launch in launches
    ]
    try:
        with bounded("the end of the training", *(process.pid for process in processes)):
            assert [process.wait() for process in processes] == [0] * len(launches)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return read_state(output / "state.safetensors")


def assert_same(one, two):
    """Weights, their average and Adam's moments, which hold the gradients of all iterations."""
    assert (one.processes, two.processes) == (1, 2)
    assert one.tensors.keys() == two.tensors.keys()
    assert any(name.endswith("exp_avg") for name in one.tensors)
    for name, value in one.tensors.items():
        # The mean over processes may be summed in another order than that over micro-batches.
        torch.testing.assert_close(two.tensors[name], value, rtol=1e-4, atol=1e-7, msg=name)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


WITHOUT_SPECTRAL_NORM = """
import sys
from bir_core.cli import main
from bir_core.networks import discriminators
discriminators.spectral_norm = lambda layer: layer
sys.exit(main())
"""
ONE_MACHINE = ("torch.distributed.run", "--standalone", "--nproc_per_node", 2)


def test_torchrun(pictures, whole, tmp_path):
    assert_same(whole, by_two([ONE_MACHINE], pictures, tmp_path))


def test_two_machines(pictures, whole, tmp_path):
    """Two launches that find each other by address and port."""
    address = ("--master_addr", "127.0.0.1", "--master_port", free_port())
    nodes = ("torch.distributed.run", "--nnodes", 2, "--nproc_per_node", 1, *address)
    launches = [(*nodes, "--node_rank", rank) for rank in range(2)]
    assert_same(whole, by_two(launches, pictures, tmp_path))


def test_sigterm_to_one_process_or_to_the_launcher_saves_and_ends_them_all(pictures, tmp_path):
    """As a scheduler of jobs does it: the launcher passes the signal on. Without a wait of theirs
    for each other the processes would save different iterations, or hang."""
    line = [*ONE_MACHINE, "--module", "bir_core", "train", "smoke_s1", "--data", pictures]
    line += ["--output", tmp_path / "out", "--device", "cpu", "--set", "data.batch=2"]
    line += ["--set", "iterations=100000", "--set", "save_every=1"]
    for ending in (lambda launcher: launcher, lambda launcher: launcher.children()[1]):
        launcher = psutil.Popen(
            [sys.executable, "-m", *map(str, line)],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        processes = [launcher]
        try:
            with bounded("the first state", launcher.pid):
                while not (tmp_path / "out" / "state.safetensors").exists():
                    assert launcher.poll() is None, launcher.stderr.read().decode()
                    time.sleep(0.02)
            processes += launcher.children()
            ending(launcher).terminate()
            _, errors = launcher.communicate()
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        said = re.findall(rb"SIGTERM came; iteration (\d+) is saved", errors)
        state = read_state(tmp_path / "out" / "state.safetensors")
        assert said and set(map(int, said)) == {state.iteration}, errors
        assert state.processes == 2
        shutil.rmtree(tmp_path / "out")


def test_accelerate_launch(pictures, whole, tmp_path):
    """--multi_gpu starts the processes, also without GPUs; --cpu would start one, however many
    are asked for."""
    launch = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", 2)
    launch += ("--main_process_port", free_port())
    assert_same(whole, by_two([launch], pictures, tmp_path))


def test_a_gan_with_its_discriminator(pictures, tmp_path, monkeypatch):
    """Without spectral normalisation, whose power iterations count the micro-batches of a
    process."""
    program = tmp_path / "program.py"
    program.write_text(WITHOUT_SPECTRAL_NORM)
    monkeypatch.setattr(discriminators, "spectral_norm", lambda layer: layer)
    options = {"data": pictures, "device": "cpu"}
    short = ("iterations=1",)
    stage1 = run_recipe(load_recipe("smoke_s1", short), output=tmp_path / "1", **options)
    files = StartFiles(stage1=stage1)
    recipe = load_recipe("smoke_s2", short)
    stage2 = run_recipe(recipe, output=tmp_path / "2", files=files, **options)
    files = StartFiles(stage1=stage1, start_from=stage2)
    one = by_one(pictures, tmp_path / "one", "smoke_gan", files)
    assert any(name.startswith("optimizer.discriminator") for name in one.tensors)
    more = ("--stage1", stage1, "--start-from", stage2)
    two = by_two([ONE_MACHINE], pictures, tmp_path / "two", "smoke_gan", *more, program=(program,))
    assert_same(one, two)


def test_ir_controlnet_beside_its_frozen_base(pictures, tmp_path):
    base = tmp_path / "base.ckpt"
    save_base(base)
    module = tmp_path / "swinir.safetensors"
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), module)
    files = StartFiles(base=base, restoration_module=module)
    one = by_one(pictures, tmp_path / "one", "smoke_ir_controlnet", files)
    more = ("--base", base, "--restoration-module", module)
    two = by_two([ONE_MACHINE], pictures, tmp_path / "two", "smoke_ir_controlnet", *more)
    assert_same(one, two)
