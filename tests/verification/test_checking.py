"""Whole files and damaged ones, one by one and together."""

import sys
from types import SimpleNamespace

import pytest
import rrdbnet
import torch
from command_line import save_small_model
from diffbir_models import (
    TINY_SWINIR,
    Weights,
    filled,
    save_base,
    text_tower_weights,
    tiny_networks,
)
from parity import fill_by_rule_w
from safetensors.torch import load_file, save_file

from bir_core.checkpoints import save_checkpoint
from bir_core.diffbir.versions import VERSIONS
from bir_core.diffbir.which_version import Answer
from bir_core.errors import BIRError
from bir_core.memory import CPU
from bir_core.networks.compact import CompactConfig, CompactRestorer
from bir_core.networks.swinir import SwinIR
from bir_core.pictures.files import Picture, write_picture
from bir_core.verification import carrying_out, checking, pipelines, trials
from bir_core.verification.carrying_out import carry_out
from bir_core.verification.checking import (
    DOUBTFUL,
    FAILED,
    RUNS,
    UNCHECKED,
    result_of_file,
    verify,
)
from bir_core.verification.pipelines import Conditions, quick_settings, task_of_module
from bir_core.verification.trials import Findings, sample_picture

QUICK = Conditions(side=64)


def check(*paths, conditions=QUICK):
    return verify([str(path) for path in paths], conditions)


def only(path, **conditions):
    (file,) = check(path, conditions=Conditions(side=64, **conditions)).files
    return file


@pytest.fixture(scope="module")
def diffbir(tmp_path_factory):
    """Base, IRControlNet of v2.1 and SwinIR, in files."""
    folder = tmp_path_factory.mktemp("secret_place")
    networks = save_base(folder / "base.ckpt")
    save_checkpoint(networks["ir_controlnet"], folder / "DiffBIR_v2.1.safetensors")
    save_checkpoint(filled(SwinIR(TINY_SWINIR), 5000), folder / "swinir.safetensors")
    return folder


def test_a_complete_file():
    file = only("builtin-diffir-x4")
    assert result_of_file(file) == RUNS
    assert file.name == "builtin-diffir-x4" and file.problems == ()
    (network,) = file.networks
    assert network.architecture == network.facts.architecture == "diffir_s2"
    assert (network.facts.absent, network.facts.surplus, network.facts.differing) == ((), (), ())
    trialled = network.trialled
    assert trialled.numbers["psnr_to_enlarged_input_db"] > 20
    assert trialled.load_seconds > 0 and trialled.run_seconds > 0
    assert trialled.peak_megabytes >= 0
    assert verify(["builtin-diffir-x4"], QUICK).passed


def test_random_weights_are_doubted_but_do_not_fail(diffbir):
    file = only(diffbir / "swinir.safetensors")
    assert result_of_file(file) == DOUBTFUL
    assert check(diffbir / "swinir.safetensors").passed


def damaged(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


def nan(tensors):
    tensors["G.patch_embed.proj.weight"][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "sentence", "facts"),
    [
        (lambda each: each.pop("G.output.weight"), "lacks G.output.weight", ("absent", 1)),
        (
            lambda each: each.update({"more.weight": torch.ones(1)}),
            "has besides more.weight",
            ("surplus", 1),
        ),
        (
            lambda each: each.update({"G.output.weight": torch.ones(2, 2)}),
            "has G.output.weight (2, 2) instead of",
            ("differing", 1),
        ),
        (nan, "G.patch_embed.proj.weight holds NaN or infinity", ("absent", 0)),
    ],
)
def test_damaged_weights(tmp_path, change, sentence, facts):
    path = damaged(save_small_model(tmp_path / "model.safetensors", task="deblur"), change)
    file = only(path)
    (network,) = file.networks
    (problem,) = network.trialled.problems
    assert sentence in problem and "model.safetensors" in problem
    assert tmp_path.name not in problem
    assert len(getattr(network.facts, facts[0])) == facts[1]
    assert result_of_file(file) == FAILED
    assert not check(path).passed


def test_a_file_whose_sizes_cannot_be_read(tmp_path):
    def change(tensors):
        tensors["G.patch_embed.proj.weight"] = torch.ones(8, 5, 3, 3)

    path = damaged(save_small_model(tmp_path / "model.safetensors"), change)
    (network,) = only(path).networks
    assert network.facts is None
    assert "of an unknown size or absent" in network.trialled.problems[0]


def write_bad_file(kind, path):
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "picture":
        picture = path.with_suffix(".png")
        write_picture(picture, Picture(image=sample_picture(8, 8)))
        picture.rename(path)
    elif kind == "cut safetensors":
        save_small_model(path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "cut zip":
        torch.save({"a.weight": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "code":
        torch.save({"a.weight": torch.ones(1), "code": SimpleNamespace(a=1)}, path)
    elif kind == "no tensors":
        torch.save({"params": {}}, path)
    elif kind == "numbers for names":
        torch.save({1: torch.ones(1)}, path)
    elif kind == "lora":
        torch.save({"lora_a.weight": torch.ones(1)}, path)
    elif kind == "nearly":
        tensors = dict(SwinIR(TINY_SWINIR).state_dict())
        del tensors["conv_up1.weight"]
        torch.save(tensors, path)


BAD_FILES = {
    "missing": "found nothing",
    "empty": "is empty",
    "folder": "found a folder",
    "picture": "It begins like a PNG picture.",
    "cut safetensors": "damaged or cut off",
    "cut zip": "download it again",
    "code": "pickled code",
    "no tensors": "it holds no tensors",
    "numbers for names": "a tensor has the key 1",
    "lora": "In short, it looks like a LoRA",
    "nearly": "6 of the 7 tensors by which a SwinIR is known",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files(kind, tmp_path):
    pytest.importorskip("spandrel")
    path = tmp_path / "given"
    write_bad_file(kind, path)
    verification = check(path, "builtin-diffir-x1")
    bad, good = verification.files
    assert any(BAD_FILES[kind] in sentence for sentence in bad.problems)
    for sentence in bad.problems:
        assert tmp_path.name not in sentence and "\n" not in sentence
        assert sentence.endswith(".")
    assert (result_of_file(bad), result_of_file(good)) == (FAILED, RUNS)
    assert not verification.passed


def test_a_network_of_spandrel(tmp_path):
    pytest.importorskip("spandrel")
    state = Weights(rrdbnet.shapes(16, 2, 32))
    fill_by_rule_w(state, 0)
    torch.save(state.weights, tmp_path / "BSRNet.pth")
    file = only(tmp_path / "BSRNet.pth")
    (network,) = file.networks
    assert network.description == "ESRGAN through spandrel"
    assert network.trialled.numbers["scale"] == 4
    parameters = sum(value.numel() for value in state.weights.values())
    assert network.trialled.numbers["parameters"] == parameters
    assert result_of_file(file) in (RUNS, DOUBTFUL)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (None, "it is not installed; install the extra"),
        ("torchvision", "cannot be imported (operator torchvision::nms does not exist)"),
        ("missing", "lacks the package torchvision"),
        ("library", "cannot be imported (x.so: undefined symbol)"),
    ],
)
def test_spandrel_that_cannot_be_used_is_no_fault_of_the_file(
    tmp_path, monkeypatch, broken, sentence
):
    torch.save(Weights(rrdbnet.shapes(16, 2, 32)).weights, tmp_path / "BSRNet.pth")
    if broken is None:
        monkeypatch.setitem(sys.modules, "spandrel", None)
    else:
        monkeypatch.delitem(sys.modules, "spandrel", raising=False)
        package = tmp_path / "fakes" / "spandrel"
        package.mkdir(parents=True)
        code = {
            "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
            "library": "raise ImportError('/opt/ann/lib/x.so: undefined symbol')",
            "missing": "raise ModuleNotFoundError('no torchvision', name='torchvision')",
        }
        (package / "__init__.py").write_text(code[broken])
        monkeypatch.syspath_prepend(package.parent)
    file = only(tmp_path / "BSRNet.pth")
    assert result_of_file(file) == UNCHECKED
    (problem,) = file.problems
    assert sentence in problem and "nothing can be said of the file" in problem
    assert not check(tmp_path / "BSRNet.pth").passed


def test_a_folder_of_diffusers(tmp_path):
    networks = tiny_networks()
    for network, folder in (("sd_unet", "unet"), ("sd_vae", "vae")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "diffusion_pytorch_model.safetensors"
        save_checkpoint(networks[network], path)
    (tmp_path / "text_encoder").mkdir()
    files = check(tmp_path).files
    assert [[each.architecture for each in file.networks] for file in files] == [
        ["sd_unet"],
        ["sd_vae"],
        [],
    ]
    assert "diffusers folder with model.safetensors in text_encoder, but" in files[2].problems[0]
    assert tmp_path.name not in files[2].problems[0]
    save_checkpoint(networks["sd_vae"], tmp_path / "unet/diffusion_pytorch_model.safetensors")
    assert "is a Stable Diffusion VAE file" in check(tmp_path).files[0].problems[0]


def test_half_precision_where_a_network_takes_it(diffbir):
    (base,) = check(
        diffbir / "base.ckpt", conditions=Conditions(side=64, dtype=torch.bfloat16)
    ).files
    assert [network.dtype for network in base.networks] == ["bfloat16", "float32", "float32"]
    assert only(diffbir / "swinir.safetensors", dtype=torch.bfloat16).networks[0].dtype == "float32"


def test_what_overflows_in_half_precision_is_repeated(tmp_path):
    network = CompactRestorer(CompactConfig(scale=1, features=8, layers=1))
    with torch.no_grad():
        network.body[0].weight.fill_(1e5)  # no number of float16
    path = tmp_path / "compact.safetensors"
    save_checkpoint(network, path)
    (check,) = only(path, dtype=torch.float16).networks
    assert check.dtype == "float32" and check.trialled.problems == ()
    (said,) = check.trialled.warnings
    assert said.startswith("Repeated in float32, since in float16: The result should hold finite")
    assert only(path).networks[0].trialled.warnings == ()


def test_a_whole_diffbir_together(diffbir):
    names = ("DiffBIR_v2.1.safetensors", "base.ckpt", "swinir.safetensors")
    verification = check(*(diffbir / name for name in names))
    (pipeline,) = verification.pipelines
    assert pipeline.lacking == () and pipeline.trialled.problems == ()
    assert (pipeline.version, pipeline.version_source) == ("v2.1", "by the files")
    assert pipeline.files["ir_controlnet"] == names[0]
    assert pipeline.files["sd_unet"] == pipeline.files["text_encoder"] == names[1]
    assert pipeline.files["stage1"] == names[2]
    numbers = pipeline.trialled.numbers
    assert (numbers["width"], numbers["task"], numbers["steps"]) == (64, "sr", pipelines.STEPS)
    assert "psnr_to_stage_1_picture_db" in numbers
    assert "stage_1_psnr_to_enlarged_input_db" in numbers
    assert verification.passed


def test_what_a_diffbir_lacks_is_named(diffbir):
    verification = check(diffbir / "DiffBIR_v2.1.safetensors", diffbir / "swinir.safetensors")
    (pipeline,) = verification.pipelines
    assert pipeline.lacking == ("the UNet of the base", "its VAE", "its text encoder")
    assert pipeline.trialled.run_seconds is None
    assert verification.passed
    assert check(diffbir / "base.ckpt").pipelines == ()


def test_a_pipeline_for_each_control_without_stage1(diffbir, tmp_path):
    (tmp_path / "v1_face.safetensors").write_bytes(
        (diffbir / "DiffBIR_v2.1.safetensors").read_bytes()
    )
    (tmp_path / "mine.safetensors").write_bytes((diffbir / "DiffBIR_v2.1.safetensors").read_bytes())
    given = (tmp_path / "v1_face.safetensors", diffbir / "base.ckpt", tmp_path / "mine.safetensors")
    by_name, assumed = check(*given).pipelines
    assert (by_name.version, by_name.version_source) == ("v1", "by the files")
    assert "stage1" not in by_name.files
    assert assumed.version == "v2.1" and assumed.version_source.startswith("assumed")
    # The tiny UNet, which nobody trained, says nothing.
    for each in (by_name, assumed):
        assert not any("should have a base" in doubt for doubt in each.trialled.doubts)
    chosen = check(*given[:2], conditions=Conditions(side=64, version="v2")).pipelines[0]
    assert (chosen.version, chosen.version_source) == ("v2", "as asked for")


def test_the_base_says_the_version_or_that_it_is_another(diffbir, tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "ask_unet", lambda *_: Answer(likeness=0.0, power=1.0, change=0.0))
    weights = (diffbir / "DiffBIR_v2.1.safetensors").read_bytes()
    names = ("v1_face.safetensors", "mine.safetensors")
    for name in names:
        (tmp_path / name).write_bytes(weights)
    given = (tmp_path / names[0], diffbir / "base.ckpt", tmp_path / names[1])
    by_name, by_base = check(*given).pipelines
    assert "v1 should have a base that predicts eps" in by_name.trialled.doubts[-1]
    assert (by_base.version, by_base.version_source) == ("v2.1", "by the files")
    assert not any("should have a base" in doubt for doubt in by_base.trialled.doubts)


def test_a_pipeline_of_networks_that_do_not_fit(diffbir, tmp_path):
    weights, _ = text_tower_weights(4000, width=64)
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, tmp_path / "text.safetensors"
    )
    verification = check(
        tmp_path / "text.safetensors", diffbir / "base.ckpt", diffbir / "DiffBIR_v2.1.safetensors"
    )
    (problem,) = verification.pipelines[0].trialled.problems
    assert "The text embedding should have the shape" in problem
    assert not verification.passed


def test_prompts_without_their_tokenizer(diffbir, monkeypatch):
    given = [diffbir / name for name in ("DiffBIR_v2.1.safetensors", "base.ckpt")]
    (with_it,) = check(*given).pipelines
    monkeypatch.setitem(sys.modules, "open_clip", None)
    monkeypatch.setitem(sys.modules, "open_clip.tokenizer", None)
    monkeypatch.setattr(pipelines, "find_spec", lambda name: None)
    (without,) = check(*given).pipelines
    assert with_it.trialled.numbers["prompts"] == "the authors'"
    assert without.trialled.numbers["prompts"] == "empty, without open_clip"
    assert without.trialled.numbers["sampler"] == "spaced"  # nor torchsde
    assert without.trialled.problems == ()


def test_settings_and_tasks():
    for version in VERSIONS:
        settings = quick_settings(version)
        assert (settings.steps, settings.color_fix) == (pipelines.STEPS, "none")
    assert task_of_module("swinir", "v2.1") == "sr"
    assert task_of_module("swinir", "v2") == "face"
    assert task_of_module("SCUNet", "v2") == "denoise"
    assert task_of_module("ESRGAN", "v2") == "sr"


def test_the_size_of_the_pipeline(diffbir):
    given = [diffbir / name for name in ("DiffBIR_v2.1.safetensors", "base.ckpt")]
    (pipeline,) = check(*given, conditions=Conditions(side=128)).pipelines
    assert pipeline.trialled.numbers["width"] == 128


def test_failures_of_every_kind_are_sentences():
    def fail(error):
        raise error

    def run(load=lambda: 1, call=lambda loaded: Findings({})):
        return carry_out(load, call, CPU, lambda text: text.replace("here", "there"))

    assert run().problems == ()
    assert run(lambda: fail(BIRError("not here."))).problems == ("not there.",)
    lacking = run(call=lambda loaded: fail(MemoryError()))
    assert "Expected memory to run the network" in lacking.problems[0]
    assert lacking.load_seconds is not None and lacking.run_seconds is None
    other = run(lambda: fail(ValueError("one here\ntwo")))
    assert other.problems[0].startswith(
        "Expected to load the weights, but it ended with ValueError (one there);"
    )
    with pytest.raises(KeyboardInterrupt):
        run(lambda: fail(KeyboardInterrupt()))


def test_warnings_are_heard_and_the_logger_stays_as_it_was():
    logger = carrying_out.logging.getLogger("bir_core.fallbacks")
    before = list(carrying_out.logging.getLogger("bir_core").handlers)

    def call(loaded):
        logger.warning("repeating in %s", "float32")
        return Findings({"a": 1})

    trialled = carry_out(lambda: None, call, CPU, str)
    assert trialled.warnings == ("repeating in float32",)
    assert trialled.numbers == {"a": 1}
    assert carrying_out.logging.getLogger("bir_core").handlers == before


def test_progress(diffbir):
    told = []
    checking.verify(["builtin-diffir-x1", "absent"], QUICK, lambda *step: told.append(step))
    assert told == [("builtin-diffir-x1", 0, 3), ("absent", 1, 3), ("the files together", 2, 3)]
