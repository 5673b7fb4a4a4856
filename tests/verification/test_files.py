"""Facts of files, before any network runs."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from command_line import save_small_model
from diffbir_models import TINY_SWINIR, save_base, tiny_networks
from hypothesis import given
from hypothesis import strategies as st

from bir_core.checkpoints import read_checkpoint, save_checkpoint
from bir_core.checkpoints.architectures import networks_in
from bir_core.checkpoints.keys import unwrap
from bir_core.networks.swinir import SwinIR
from bir_core.verification.files import (
    LOOKS,
    Part,
    content_facts,
    fingerprint,
    nearly_known,
    network_facts,
    parts_of,
    without_folders,
)


def test_a_file_is_told_by_its_content(tmp_path):
    path = tmp_path / "some.bin"
    path.write_bytes(bytes(range(256)) * 9000)  # more than one chunk
    found = fingerprint(path)
    assert found.size == path.stat().st_size == 256 * 9000
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.looks == ""


@pytest.mark.parametrize(("start", "what"), LOOKS)
def test_files_that_are_given_by_mistake(start, what, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(start + bytes(20))
    assert fingerprint(path).looks == what


def test_what_was_taken_away_and_what_no_network_uses(tmp_path):
    save_base(tmp_path / "base.ckpt")
    content = read_checkpoint(tmp_path / "base.ckpt")
    content["state_dict"] = {f"module.{key}": each for key, each in content["state_dict"].items()}
    content["state_dict"]["module.betas"] = torch.ones(3, dtype=torch.float64)
    rows = networks_in(unwrap(content))
    assert [row.name for row in rows] == ["sd_unet", "sd_vae", "text_encoder"]
    facts = content_facts(content, rows)
    assert facts.wrapping == ("state_dict", "module.")
    assert facts.tensors == len(content["state_dict"])
    assert facts.dtypes == {"float32": facts.tensors - 1, "float64": 1}
    # The last block of the tower is in no network: Stable Diffusion 2 does not run it.
    others = {name for name in facts.unused if "cond_stage_model" not in name}
    assert others == {"betas"}
    assert "cond_stage_model.model.logit_scale" in facts.unused
    assert any(".resblocks.2." in name for name in facts.unused)


def test_what_a_lightning_file_is_wrapped_in():
    content = {"state_dict": {"generator.a": torch.ones(1), "discriminator.b": torch.ones(1)}}
    facts = content_facts(content, [])
    assert facts.wrapping == ("state_dict", "generator.") and facts.tensors == 1


def test_unused_tensors_of_joined_ones_cannot_be_told():
    tensors = {"text_model.a": torch.ones(1)}

    class Joining:
        def canonical(self, own):
            return {"joined": torch.cat(list(own.values()))}

    assert content_facts(tensors, [Joining()]).unused is None
    assert content_facts(tensors, []).unused is None


def test_facts_of_a_network():
    network = SwinIR(TINY_SWINIR)
    tensors = dict(network.state_dict())
    tensors["more.weight"] = tensors.pop("conv_last.bias")
    tensors["conv_hr.bias"] = torch.zeros(1)
    (row,) = networks_in(tensors)
    facts = network_facts(row, tensors, "DiffBIR_v2.1.pt")
    assert (facts.architecture, facts.variant, facts.scale) == ("swinir", "custom", 1)
    assert facts.config["embed_dim"] == TINY_SWINIR.embed_dim
    assert facts.version is None  # SwinIR is the same in several
    assert facts.absent == ("conv_last.bias",)
    assert facts.surplus == ("more.weight",)
    assert facts.differing == ("conv_hr.bias (1,) instead of (64,)",)


@pytest.mark.parametrize(
    ("name", "version"), [("DiffBIR_v2.1.pt", "v2.1"), ("v1_face.pth", "v1"), ("mine.pth", None)]
)
def test_the_version_of_an_ir_controlnet(name, version):
    tensors = tiny_networks()["ir_controlnet"].state_dict()
    (row,) = networks_in(tensors)
    facts = network_facts(row, tensors, name)
    assert facts.version == version
    assert (facts.absent, facts.surplus, facts.differing) == ((), (), ())


def test_a_network_that_lacks_what_it_is_known_by():
    tensors = dict(SwinIR(TINY_SWINIR).state_dict())
    del tensors["conv_up1.weight"]
    assert networks_in(tensors) == []
    assert "6 of the 7 tensors by which a SwinIR is known, but not conv_up1" in nearly_known(
        tensors
    )
    assert nearly_known({"a.weight": torch.zeros(1)}) is None


@given(st.lists(st.from_regex(r"\w+", fullmatch=True), min_size=2, max_size=5))
def test_no_folder_stays_in_a_sentence(names):
    path = Path("/", *names)
    said = Part(path.name, path).hide(f"Expected {path}, but '{path}' came.")
    assert said == f"Expected {path.name}, but '{path.name}' came."


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("/opt/ann/lib/x.so: undefined symbol", "x.so: undefined symbol"),
        ("cannot open '/data/ann/a.pt' (no file)", "cannot open 'a.pt' (no file)"),
        (r"in D:\data\ann\x.dll now", "in x.dll now"),
        (r"in 'D:\\data\\ann\\x.dll' now", "in 'x.dll' now"),
        (f"{Path(sys.prefix) / 'lib' / 'x.so'}: bad", "x.so: bad"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("in unet/model.safetensors", "in unet/model.safetensors"),
        ("1 / 2 or a/b", "1 / 2 or a/b"),
    ],
)
def test_messages_of_libraries_lose_their_folders(text, left):
    assert without_folders(text) == left


def test_a_home_with_spaces(monkeypatch):
    monkeypatch.setenv("HOME", "/data/ann lee")
    monkeypatch.setenv("USERPROFILE", "/data/ann lee")
    assert without_folders("no symbol in '/data/ann lee/env/lib/x.so'") == "no symbol in 'x.so'"


def test_names_without_folders(tmp_path, monkeypatch):
    path = save_small_model(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    for named in (str(path), "model.safetensors", f"../{tmp_path.name}/model.safetensors"):
        (part,) = parts_of(named)
        assert part == Part("model.safetensors", path)
        said = part.hide(f"Nothing at {part.path}, nor in {part.path.parent / 'other'}.")
        assert said == "Nothing at model.safetensors, nor in other."
    (builtin,) = parts_of("builtin-diffir-x4")
    assert builtin.name == "builtin-diffir-x4" and builtin.path.is_file()
    (here,) = parts_of(".")
    assert here.name == tmp_path.name and here.hide("A dot.") == "A dot."


def test_the_files_of_a_diffusers_folder(tmp_path):
    for network, folder in (("sd_unet", "unet"), ("sd_vae", "vae")):
        (tmp_path / folder).mkdir()
        save_checkpoint(
            tiny_networks()[network], tmp_path / folder / "diffusion_pytorch_model.safetensors"
        )
    (tmp_path / "text_encoder").mkdir()
    parts = parts_of(str(tmp_path))
    assert [(part.name, part.architecture) for part in parts] == [
        ("unet/diffusion_pytorch_model.safetensors", "sd_unet"),
        ("vae/diffusion_pytorch_model.safetensors", "sd_vae"),
        ("text_encoder", "text_encoder"),
    ]
