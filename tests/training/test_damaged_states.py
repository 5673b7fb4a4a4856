"""States that no training may go on from: each is refused in a sentence, and nothing is changed."""

import json
import random
import shutil

import pytest
import torch
from command_line import run_here
from damaged_files import flipped, programs, with_header
from safetensors.torch import load_file, save_file

from bir_core.errors import BIRError
from bir_core.training.data.pool import PairPool
from bir_core.training.loop import Run, make_accelerator
from bir_core.training.methods.table import load_recipe, make_training
from bir_core.training.run import run_recipe
from bir_core.training.start_files import StartFiles
from bir_core.training.state import HEADER_KEY, read_state

CHANGES = ("iterations=1", "data.batch=1", "network.encoder_features=4")
WEIGHT = "model.G.patch_embed.proj.weight"


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """A training of one iteration."""
    output = tmp_path_factory.mktemp("trained")
    run_recipe(load_recipe("smoke_s1", CHANGES), data=pictures, output=output, device="cpu")
    return output


class NoSource:
    """Batches that nobody reads."""

    class data:
        pool = 0


@pytest.fixture(scope="module")
def run(folder):
    recipe = load_recipe("smoke_s1", CHANGES)
    training = make_training(recipe, StartFiles())
    return Run(recipe, training, NoSource(), None, make_accelerator("cpu"), folder)


@pytest.fixture
def state(folder):
    """The whole file, which is there again afterwards."""
    path = folder / "state.safetensors"
    whole = path.read_bytes()
    yield path
    path.write_bytes(whole)


def weights(run):
    return {name: value.clone() for name, value in run.training.model.state_dict().items()}


def require_refused(run, pattern):
    before = weights(run)
    with pytest.raises(BIRError, match=pattern) as caught:
        run.resume()
    sentence = str(caught.value)
    assert sentence.endswith(".") and "\n" not in sentence
    assert "xpected" in sentence or "should" in sentence
    assert all(value.equal(before[name]) for name, value in weights(run).items())


def rewritten(path, change):
    """The same header with other tensors."""
    tensors = load_file(path)
    about = read_state(path)
    table = {"iteration": 1, "recipe": about.recipe, "processes": 1, "best": None}
    change(tensors)
    save_file(tensors, path, metadata={HEADER_KEY: json.dumps(table)})


def test_a_whole_state_is_taken_up(run, state):
    assert run.resume() == 1
    model = read_state(state).part("model")
    assert all(value.equal(model[name]) for name, value in weights(run).items())


def moments_of(tensors):
    return [name for name in tensors if name.startswith("optimizer.")]


def without_moments(tensors):
    for name in moments_of(tensors):
        del tensors[name]


TENSORS = {
    "nan": (lambda t: t[WEIGHT].view(-1)[0].fill_(torch.nan), "patch_embed.* with NaN or infinity"),
    "nan in moments": (
        lambda t: t[moments_of(t)[0]].fill_(torch.inf),
        "optimizer.* with NaN or infinity",
    ),
    "absent": (lambda t: t.pop(WEIGHT), f"lacks {WEIGHT}"),
    "no average": (lambda t: t.pop(WEIGHT.replace("model", "average")), "lacks average.G.patch"),
    "foreign": (lambda t: t.update({"model.G.more": torch.ones(1)}), "besides model.G.more"),
    "other network": (lambda t: t.update({"other.d.x": torch.ones(1)}), "besides other.d.x"),
    "shape": (lambda t: t.update({WEIGHT: torch.ones(2)}), rf"{WEIGHT} \(2,\) instead of \(8, "),
    "0-d": (lambda t: t.update({WEIGHT: torch.tensor(1.0)}), rf"{WEIGHT} \(\) instead of"),
    "integers": (lambda t: t.update({WEIGHT: t[WEIGHT].int()}), "int32 instead of float32"),
    "half": (lambda t: t.update({WEIGHT: t[WEIGHT].half()}), "float16 instead of float32"),
    "no moments": (without_moments, "moments of the optimiser network .* but it has none"),
    "a moment less": (
        lambda t: t.pop(next(name for name in moments_of(t) if name.endswith("exp_avg"))),
        r"lacks optimizer.network.\d+.exp_avg",
    ),
    "a moment of nothing": (
        lambda t: t.update({"optimizer.network.99999.step": torch.ones(())}),
        "besides optimizer.network.99999.step",
    ),
    "a moment without a number": (
        lambda t: t.update({"optimizer.network.x.step": torch.ones(())}),
        "besides optimizer.network.x.step",
    ),
    "misshapen moment": (
        lambda t: t.update(
            {next(n for n in moments_of(t) if n.endswith("exp_avg_sq")): torch.ones(3)}
        ),
        r"exp_avg_sq \(3,\) instead of",
    ),
    "nothing": (lambda t: t.clear(), "the moments of the optimiser"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_another_training(run, state, kind):
    change, sentence = TENSORS[kind]
    rewritten(state, change)
    require_refused(run, sentence)


def about(**changes):
    def change(table):
        whole = json.loads(table["__metadata__"][HEADER_KEY])
        table["__metadata__"][HEADER_KEY] = json.dumps({**whole, **changes})

    return change


def text(value):
    return lambda table: table["__metadata__"].update({HEADER_KEY: value})


HEADERS = {
    "no json": (text("{]"), "JSONDecodeError"),
    "number": (text("5"), "another file"),
    "list": (text("[1]"), "another file"),
    "deep": (text("[" * 50_000), "RecursionError"),
    "other key": (lambda table: table.update({"__metadata__": {"x": "1"}}), "KeyError"),
    "no metadata": (lambda table: table.pop("__metadata__") and None, "KeyError"),
    "iteration text": (about(iteration="1"), "its iteration is '1'"),
    "iteration negative": (about(iteration=-1), "its iteration is -1"),
    "iteration 0": (about(iteration=0), "its iteration is 0"),
    "iteration true": (about(iteration=True), "its iteration is True"),
    "iteration 1.5": (about(iteration=1.5), "its iteration is 1.5"),
    "processes": (about(processes="one"), "its processes is 'one'"),
    "more processes": (about(processes=2), "Expected 2 processes"),
    "recipe": (about(recipe=[1, 2]), r"its recipe is \[1, 2\]"),
    "empty recipe": (about(recipe={}), "`method` is diffir_s1 instead of None"),
    "recipe of odd values": (
        about(recipe={"method": "diffir_s1", "optimizer": {"schedule": {"kind": []}}}),
        "recipe in",
    ),
    "best": (about(best="good"), "its best is 'good'"),
    "best nan": (about(best=float("nan")), "its best is nan"),
    "fewer tensors": (about(tensors=10**6), "of 1000000 tensors are there"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_no_state(run, state, kind):
    change, sentence = HEADERS[kind]
    state.write_bytes(with_header(state.read_bytes(), change))
    require_refused(run, sentence)


def test_damaged_states_are_refused_or_taken_up_whole(run, state, tmp_path):
    """Cuts, flipped bits and pickles in the place of a state."""
    draw = random.Random(0)
    whole = state.read_bytes()
    length = 8 + int.from_bytes(whole[:8], "little")
    canary = tmp_path / "ran"
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(8)]
    damaged += [flipped(whole[:length], draw, 1) + whole[length:] for _ in range(16)]
    damaged += [flipped(whole, draw, 1 << draw.randrange(8)) for _ in range(8)]
    damaged += [program for _, program in programs(canary)]
    for data in damaged:
        state.write_bytes(data)
        before = weights(run)
        try:
            run.resume()
        except BIRError as error:
            assert str(error).endswith(".") and "\n" not in str(error)
            assert all(value.equal(before[name]) for name, value in weights(run).items())
        assert all(value.isfinite().all() for value in weights(run).values())
        assert not canary.exists() and state.read_bytes() == data


def test_the_command_ends_with_one_line(pictures, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "out")
    state = tmp_path / "out" / "state.safetensors"
    rewritten(state, without_moments)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.safetensors")}
    changes = [part for change in CHANGES for part in ("--set", change)]
    line = ("train", "smoke_s1", "--data", pictures, "--output", tmp_path / "out", *changes)
    finished = run_here(*line, "--resume", "--device", "cpu")
    assert finished.returncode == 2 and not finished.stdout
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("bir: Expected the moments") and "Traceback" not in finished.stderr
    after = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.safetensors")}
    assert after == before


@pytest.mark.parametrize(
    "change",
    [
        {"lq": None},
        {"hq": torch.ones(3)},
        {"lq": torch.ones(3, 3, 4, 4)},
        {"captions": torch.ones(2)},
        {"captions": torch.tensor(list(b"[1, 2]"), dtype=torch.uint8)},
        {"captions": torch.tensor(list(b'["a"]'), dtype=torch.uint8)},
        {"captions": torch.tensor(list(b"{]"), dtype=torch.uint8)},
    ],
)
def test_pools_that_are_none(change):
    first, cpu = PairPool(2), torch.device("cpu")
    pair = torch.ones(2, 3, 4, 4)
    first.exchange(pair, pair, ("a", "b"), torch.Generator())
    whole = first.state()
    second = PairPool(2)
    second.load(whole, cpu)
    assert second.captions == ["a", "b"]
    with pytest.raises(BIRError, match="pool of training pairs in here"):
        second.load({**whole, **change}, cpu, "here")
    assert second.captions == ["a", "b"]
