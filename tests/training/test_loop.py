"""Whole trainings with the smoke recipes, as real processes where they are killed."""

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import command, environment, run_here
from progress import bounded, run
from tolerances import CANCELLED_GRADIENT, SPLIT_GRADIENT
from training_pictures import write_pictures
from webdataset import ShardWriter

from bir_core import load_model
from bir_core.training import loop
from bir_core.training.data import open_source
from bir_core.training.methods.diffir import stage1_training
from bir_core.training.methods.table import load_recipe
from bir_core.training.phases import Phase, Training, Update
from bir_core.training.run import make_source, run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import TrainingState, read_state, save_state
from bir_core.training.toml_tables import to_table

ROOT = Path(__file__).parents[2]
# Small enough for a process that has to be started, killed and started again.
SHORT = ("data.batch=2", "save_every=10", "iterations=40")


@pytest.fixture(scope="module")
def shards(pictures, tmp_path_factory):
    """The pictures in two shards, with captions, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("shards")
    contents = [path.read_bytes() for path in sorted(pictures.iterdir())]
    contents.insert(1, b"no picture")
    with ShardWriter(str(folder / "%d.tar"), maxcount=3, verbose=0) as writer:
        for number, content in enumerate(contents):
            writer.write({"__key__": f"{number}", "png": content, "txt": f"Bild größer {number}"})
    return folder


@pytest.fixture(scope="module")
def stage1_file(pictures, tmp_path_factory):
    recipe = load_recipe("smoke_s1", ("iterations=5",))
    return run_recipe(
        recipe, data=pictures, output=tmp_path_factory.mktemp("s1") / "out", device="cpu"
    )


@pytest.fixture
def one_thread():
    """As many as the processes of `command_line` have: sums depend on how threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def arguments(recipe, pictures, output, *more, changes=SHORT):
    settings = [part for change in changes for part in ("--set", change)]
    return [
        "train",
        recipe,
        "--data",
        pictures,
        "--output",
        output,
        "--device",
        "cpu",
        *settings,
        *more,
    ]


def losses(output, name):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    return [event.value for event in events.Scalars(name)]


def assert_shows_pictures(output):
    """TensorBoard has input, restored picture and original of four held-out pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(output / "logs"))
    events.Reload()
    assert events.Tags()["images"] == [f"validation/{index}" for index in range(4)]
    images = events.Images("validation/0")
    assert [image.step for image in images] == [10, 20, 30]
    assert (images[-1].width, images[-1].height) == (3 * 96, 72)


def test_stage_1_learns_and_its_model_opens(pictures, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    recipe = load_recipe("smoke_s1", ("iterations=30", "validation.every=10"))
    model = run_recipe(recipe, data=pictures, output=tmp_path, validation=pictures, device="cpu")
    values = losses(tmp_path, "network/total")
    assert len(values) == 30
    assert values[-1] < 0.85 * values[0]
    quality = losses(tmp_path, "validation/psnr")
    assert len(quality) == 3 and all(10 < value < 60 for value in quality)
    assert_shows_pictures(tmp_path)
    assert load_model(model).info.architecture == "diffir_s1"
    assert load_model(tmp_path / "best.safetensors").info.scale == 4


def test_stage_2_learns_in_two_phases(pictures, stage1_file, one_batch, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    recipe = load_recipe("smoke_s2")
    model = run_recipe(
        recipe, data=pictures, output=tmp_path, files=StartFiles(stage1=stage1_file), device="cpu"
    )
    prior = losses(tmp_path, "encoder/total")
    assert len(prior) == recipe.encoder_iterations - 1
    assert prior[-1] < 0.6 * prior[0]
    joint = losses(tmp_path, "network/total")
    assert len(prior) + len(joint) == recipe.iterations
    # At first the new moments of Adam make it rise.
    assert joint[-1] < 0.8 * max(joint[:15])
    assert load_model(model, architecture="diffir_s2")(torch.rand(1, 3, 8, 8)).shape[-1] == 32


def test_first_phase_leaves_g_as_stage_1_made_it(pictures, stage1_file, tmp_path):
    recipe = load_recipe("smoke_s2", ("iterations=15", "ema=0.0"))
    model = load_model(
        run_recipe(
            recipe,
            data=pictures,
            output=tmp_path,
            files=StartFiles(stage1=stage1_file),
            device="cpu",
        )
    )
    before = load_model(stage1_file).G.state_dict()
    after = model.G.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def kill_in_the_middle(line, output, after):
    """Run a training and kill it without warning once the state of iteration `after` is saved;
    returns the iteration that it had saved last."""
    process = subprocess.Popen(
        command(*line),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    state = output / "state.safetensors"
    with bounded(f"the state of iteration {after}", process.pid):
        while not (state.exists() and read_state(state).iteration >= after):
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.02)
    process.kill()
    process.wait()
    process.stderr.close()
    return read_state(state).iteration


READ_AHEAD = ("data.workers=1", "data.shuffle_window=2", "data.captions.drop_probability=0.5")


@pytest.mark.parametrize(
    ("recipe", "kind", "changes"),
    [
        ("smoke_s1", "pictures", ("data.pool=4", "data.accumulate=2", "optimizer.clip=0.1")),
        (
            "smoke_s2",
            "shards",
            ("data.pool=4", "precision=bf16", "validation.every=15", *READ_AHEAD),
        ),
    ],
)
def test_a_killed_training_goes_on_to_the_same_bytes(
    pictures, shards, stage1_file, one_thread, tmp_path, recipe, kind, changes
):
    changes = (*SHORT, *changes)
    data = shards if kind == "shards" else pictures
    options = {
        "data": data,
        "device": "cpu",
        "files": StartFiles(stage1=stage1_file if "s2" in recipe else None),
    }
    if "s2" in recipe:
        options["validation"] = pictures
    more = ["--stage1", stage1_file, "--val", pictures] if "s2" in recipe else []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run_recipe(load_recipe(recipe, changes), output=whole, **options)
    line = arguments(recipe, data, cut, *more, changes=changes)
    done = kill_in_the_middle(line, cut, after=10)
    assert done < 40, "the training was over before it was killed"
    run_recipe(load_recipe(recipe, changes), output=cut, resume=True, **options)
    for name in ("model.safetensors", "state.safetensors", "pool_40_0.safetensors"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_interrupting_at_the_change_of_phases_is_exact(pictures, stage1_file, tmp_path):
    """The state right before phase 2 begins must not carry the moments of phase 1 over."""
    changes = ("encoder_iterations=4", "save_every=3", "iterations=6")
    recipe = load_recipe("smoke_s2", changes)
    options = {"data": pictures, "files": StartFiles(stage1=stage1_file), "device": "cpu"}
    whole = run_recipe(recipe, output=tmp_path / "whole", **options)
    first = load_recipe("smoke_s2", (*changes, "iterations=3"))
    run_recipe(first, output=tmp_path / "part", **options)
    part = run_recipe(recipe, output=tmp_path / "part", resume=True, **options)
    assert part.read_bytes() == whole.read_bytes()


def test_the_global_random_state_is_left_alone(pictures, tmp_path):
    before = torch.get_rng_state()
    recipe = load_recipe("smoke_s1", ("iterations=2",))
    run_recipe(recipe, data=pictures, output=tmp_path, validation=pictures, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_two_accumulated_micro_batches_are_one_batch_of_twice_the_size(pictures, tmp_path):
    """With files as pairs nothing is drawn for a whole batch, so both see the same examples."""
    for name in ("lq", "hq"):
        write_pictures(tmp_path / "pairs" / name)
    models = []
    for batch, accumulate in ((4, 1), (2, 2)):
        changes = (
            "network.scale=1",
            "data.degradation=pairs",
            "iterations=1",
            "ema=0.0",
            f"data.batch={batch}",
            f"data.accumulate={accumulate}",
        )
        output = tmp_path / f"{batch}"
        recipe = load_recipe("smoke_s1", changes)
        run_recipe(recipe, data=tmp_path / "pairs", output=output, device="cpu")
        models.append(read_state(output / "state.safetensors").part("optimizer.network"))
    one, two = ({n: value for n, value in each.items() if n.endswith("exp_avg")} for each in models)
    largest = max(float(value.abs().max()) for value in one.values())
    for name, value in one.items():
        atol = SPLIT_GRADIENT * float(value.abs().max()) + CANCELLED_GRADIENT * largest
        torch.testing.assert_close(two[name], value, rtol=0, atol=atol)


def test_gradient_clipping(pictures, tmp_path):
    """Adam's first moment after one step is (1 - beta1) times the clipped gradient."""
    recipe = load_recipe("smoke_s1", ("iterations=1", "optimizer.clip=0.001"))
    run_recipe(recipe, data=pictures, output=tmp_path, device="cpu")
    moments = read_state(tmp_path / "state.safetensors").part("optimizer.network")
    squares = [value.square().sum() for name, value in moments.items() if name.endswith("exp_avg")]
    assert float(sum(squares)) ** 0.5 == pytest.approx(0.1 * 0.001, rel=1e-2)


def test_checkpointing_gives_the_same_gradients_from_less(pictures, tmp_path):
    """The first moment of Adam after one step is 0.1 times the gradient."""
    moments, kept = [], []
    for checkpointing in ("false", "true"):
        changes = ("iterations=1", "ema=0.0", f"checkpointing={checkpointing}")
        output = tmp_path / checkpointing
        saved = 0

        def pack(tensor):
            nonlocal saved
            saved += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            run_recipe(load_recipe("smoke_s1", changes), data=pictures, output=output, device="cpu")
        state = read_state(output / "state.safetensors").part("optimizer.network")
        moments.append({name: value for name, value in state.items() if name.endswith("exp_avg")})
        kept.append(saved)
    for name, value in moments[0].items():
        torch.testing.assert_close(moments[1][name], value, rtol=1e-5, atol=1e-9)
    assert kept[1] < 0.7 * kept[0]  # CPEN and the tail are not recomputed


class _Pull(torch.nn.Module):
    """(weight - aim)^2, where the aim is another network's weight."""

    def __init__(self, model, other):
        super().__init__()
        self.model, self.other = model, other

    def forward(self, batch):
        return {"total": (self.model.weight - self.other.weight).square().sum()}


def test_two_updates_change_only_their_own_networks_and_both_are_resumed(pictures, tmp_path):
    """As a generator and a discriminator do."""

    def training():
        model, other = (torch.nn.Linear(1, 1, bias=False) for _ in range(2))
        with torch.no_grad():
            model.weight.fill_(0.0)
            other.weight.fill_(1.0)
        updates = (
            Update("first", _Pull(model, other), [model.weight], recipe.optimizer),
            Update("second", _Pull(other, model), [other.weight], recipe.optimizer),
        )
        return Training(model, (Phase(1, updates),), lambda *_: None, others={"other": other})

    def run(iterations, output, resume=False):
        accelerator = loop.make_accelerator("cpu")
        source = make_source(recipe, open_source(pictures, recipe.data), accelerator)
        brought = training()
        loop.train(
            replace(recipe, iterations=iterations),
            brought,
            source,
            None,
            accelerator,
            output=output,
            resume=resume,
        )
        return brought.model.weight.item(), brought.others["other"].weight.item()

    recipe = load_recipe("smoke_s1", ("ema=0.0", "optimizer.rate=0.1"))
    first, second = run(1, tmp_path / "one")
    assert (first, second) == pytest.approx((0.1, 0.9))
    whole = run(3, tmp_path / "whole")
    run(2, tmp_path / "cut")
    assert run(3, tmp_path / "cut", resume=True) == whole


def refused(match, recipe, pictures, output, *more, changes=SHORT):
    finished = run_here(*arguments(recipe, pictures, output, *more, changes=changes))
    assert finished.returncode == 2
    assert re.search(match, finished.stderr), finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("bir: ")]
    assert len(lines) == 1, finished.stderr


def test_what_a_user_may_get_wrong(pictures, stage1_file, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    refused("did you mean rate", "smoke_s1", pictures, out, changes=("optimizer.rte=1",))
    refused("did you mean smoke_s1", "smoke_s11", pictures, out)
    refused("it has none", "smoke_s1", empty, out)
    refused("found nothing", "smoke_s1", tmp_path / "absent", out)
    refused("shard at .*0.tar, but found nothing", "smoke_s1", tmp_path / "{0..3}.tar", out)
    refused("--stage1", "smoke_s2", pictures, out)
    refused("leave it out", "smoke_s1", pictures, out, "--stage1", stage1_file)
    wider = ("network.dim=16",)
    refused("matching recipe", "smoke_s2", pictures, out, "--stage1", stage1_file, changes=wider)
    refused("without --resume", "smoke_s1", pictures, out, "--resume")
    if not torch.cuda.is_available():
        refused("no CUDA|none", "smoke_s1", pictures, out, "--device", "cuda")
    assert not out.exists()


@pytest.mark.parametrize("package", ["accelerate", "torch.utils.tensorboard"])
def test_an_absent_extra_is_named(pictures, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    refused(r"pip install comfyui-bir\[train\]", "smoke_s1", pictures, tmp_path / "out")


def test_a_folder_with_a_training_is_kept(pictures, tmp_path):
    recipe = load_recipe("smoke_s1", ("iterations=1",))
    run_recipe(recipe, data=pictures, output=tmp_path, device="cpu")
    before = (tmp_path / "state.safetensors").read_bytes()
    refused("holds a training", "smoke_s1", pictures, tmp_path)
    refused("`data.batch`", "smoke_s1", pictures, tmp_path, "--resume", changes=("data.batch=1",))
    (tmp_path / "state.safetensors").write_bytes(before[:1000])
    refused("damaged", "smoke_s1", pictures, tmp_path, "--resume")


def test_a_diverging_training_keeps_the_state_before(pictures, tmp_path):
    changes = ("iterations=4", "save_every=2")
    run_recipe(load_recipe("smoke_s1", changes), data=pictures, output=tmp_path, device="cpu")
    state = read_state(tmp_path / "state.safetensors")
    broken = {name: value.clone() for name, value in state.tensors.items()}
    broken["model.G.patch_embed.proj.weight"][:] = 3e38
    table = to_table(load_recipe("smoke_s1", changes))
    save_state(tmp_path / "state.safetensors", TrainingState(2, broken, table, 1, None))
    before = (tmp_path / "state.safetensors").read_bytes()
    refused("finite losses", "smoke_s1", pictures, tmp_path, "--resume", changes=changes)
    assert (tmp_path / "state.safetensors").read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot limit the size of files")
def test_a_file_that_cannot_be_written_whole_keeps_the_state_before(pictures, tmp_path):
    """Past the limit of file sizes the system refuses to write, as on a disk that is full."""
    import resource

    short = ("iterations=2", "save_every=2")
    run_recipe(load_recipe("smoke_s1", short), data=pictures, output=tmp_path, device="cpu")
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    limit = len(before["state.safetensors"]) // 2
    line = arguments("smoke_s1", pictures, tmp_path, "--resume", changes=("iterations=4",))
    finished = run(
        command(*line),
        cwd=ROOT,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert finished.returncode == 2
    assert "Expected to write the training state" in finished.stderr.splitlines()[-1]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == before
    whole = load_recipe("smoke_s1", ("iterations=4",))
    run_recipe(whole, data=pictures, output=tmp_path, resume=True, device="cpu")
    assert read_state(tmp_path / "state.safetensors").iteration == 4


def test_skipped_pictures_are_named_in_the_log(tmp_path, caplog):
    paths = write_pictures(tmp_path / "pictures")
    paths[2].write_bytes(b"no picture")
    recipe = load_recipe("smoke_s1", ("iterations=2",))
    run_recipe(recipe, data=tmp_path / "pictures", output=tmp_path / "out", device="cpu")
    assert "1 pictures cannot be read and are skipped: picture_2.png" in caplog.text
    assert losses(tmp_path / "out", "data/skipped") == [1]


def test_the_model_says_where_it_comes_from(pictures, tmp_path):
    from safetensors import safe_open

    recipe = load_recipe("smoke_s1", ("iterations=1",))
    model = run_recipe(recipe, data=pictures, output=tmp_path, device="cpu")
    with safe_open(model, "pt") as file:
        about = json.loads(file.metadata()["training"])
    assert about == {"iteration": 1, "recipe": to_table(recipe)}


def test_initialisation_at_order_one_starts_as_the_skip_connection():
    recipe = load_recipe("smoke_s1", ("initialisation=he",))
    model = stage1_training(recipe, StartFiles()).model
    lq, hq = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 32, 32)
    enlarged = lq.repeat_interleave(4, -2).repeat_interleave(4, -1)
    torch.testing.assert_close(model(lq, hq), enlarged)
    assert 0.1 < model.encode(lq, hq).square().mean().sqrt().item() < 3
    save = load_recipe("smoke_s1")
    assert not torch.equal(stage1_training(save, StartFiles()).model(lq, hq), enlarged)
