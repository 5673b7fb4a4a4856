"""Tokens and embeddings of prompts."""

import json
import sys

import pytest
import torch
from diffbir_models import text_encoder, text_tower_weights
from parity import DATA, load_vectors
from safetensors import safe_open
from safetensors.torch import save_file

from bir_core.checkpoints import inspect, load_model
from bir_core.diffbir.prompts import (
    encode_prompts,
    load_embedding,
    save_embedding,
    tokenize,
)
from bir_core.diffbir.versions import VERSIONS
from bir_core.errors import BIRError
from bir_core.networks.text_encoder import TextEncoder, TextEncoderConfig

VECTORS, METADATA = load_vectors("diffbir_clip_small")
PROMPTS = json.loads(METADATA["prompts"])


def test_tokens_equal_official():
    """Entities, accents, capitals, double spaces, and a text that is too long."""
    pytest.importorskip("open_clip")
    assert torch.equal(tokenize(PROMPTS), VECTORS["tokens"])
    assert tokenize(["very " * 100])[0, -1] == 49407


def test_official_prompts_are_those_of_the_vectors():
    assert {*VERSIONS["v2.1"].prompts, *VERSIONS["v2"].prompts} <= set(PROMPTS)
    assert VERSIONS["v1"].prompts == ("", "")


def test_empty_prompt_needs_no_tokenizer(monkeypatch):
    for name in ("open_clip", "open_clip.tokenizer"):
        monkeypatch.setitem(sys.modules, name, None)
    assert PROMPTS[0] == ""
    for empty in ("", "  "):
        assert torch.equal(tokenize([empty])[0], VECTORS["tokens"][0])
    with pytest.raises(BIRError, match="open_clip_torch, which is not installed"):
        tokenize(["", "a house"])


def test_a_tokenizer_that_cannot_be_imported(tmp_path, monkeypatch):
    """As beside a torchvision that was built for another torch."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "open_clip"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip" / "__init__.py").write_text("raise RuntimeError('no operator')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BIRError, match=r"cannot be imported \(no operator\)"):
        tokenize(["a house"])


def test_embedding_equals_official():
    weights, _ = text_tower_weights(int(METADATA["rule_base"]))
    embedding = encode_prompts(text_encoder(weights), [""])
    assert embedding.shape == (1, 77, 32)
    official = VECTORS["emb"][:1]
    assert (embedding[:, ::4] - official).abs().max() <= 1e-4 * official.abs().max()


@pytest.mark.parametrize("prefix", ["cond_stage_model.", "", None])
def test_tower_from_a_checkpoint(prefix):
    """In a Stable Diffusion file, in its own, and in one of open_clip; heads are 64 wide."""
    weights, _ = text_tower_weights(0, width=128)
    expected = text_encoder(weights, heads=2)
    unused = {"model.attn_mask": torch.zeros(77, 77), "model.visual.proj": torch.zeros(2, 2)}
    tensors = weights | unused
    if prefix is None:
        tensors = {name.removeprefix("model."): value for name, value in tensors.items()}
    else:
        tensors = {prefix + name: value for name, value in tensors.items()}
    found = load_model(tensors, architecture="text_encoder")
    assert found.config == expected.config
    assert torch.equal(encode_prompts(found, [""]), encode_prompts(expected, [""]))


def test_official_key_list_is_the_default_size():
    listed = json.loads((DATA / "keys" / "diffbir_clip.json").read_text())["keys"]
    half = torch.zeros((), dtype=torch.float16)
    source = {f"cond_stage_model.{key}": half.expand(shape) for key, shape in listed.items()}
    info = inspect(source)
    assert (info.architecture, info.variant) == ("text_encoder", "sd2.1")
    assert info.config == TextEncoderConfig()
    with torch.device("meta"):
        own = TextEncoder(info.config).state_dict()
    unused = {key for key in listed if f"resblocks.{info.config.layers}." in key}
    unused |= {"model.text_projection", "model.logit_scale"}
    assert {f"model.{key}": list(value.shape) for key, value in own.items()} == {
        key: shape for key, shape in listed.items() if key not in unused
    }


def test_embedding_files(tmp_path):
    path = tmp_path / "empty.safetensors"
    embedding = torch.randn(1, 77, 32)
    save_embedding(path, embedding, "a house")
    assert torch.equal(load_embedding(path), embedding)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"prompt": "a house"}
    save_file({"embedding": embedding.half()}, path)
    assert load_embedding(path).dtype == torch.float32


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"weight": torch.zeros(1, 77, 32)}, "no tensor 'embedding'"),
        ({"embedding": torch.zeros(2, 77, 32)}, "of the shape"),
        ({"embedding": torch.zeros(77, 32)}, "of the shape"),
        ({"embedding": torch.full((1, 77, 32), float("nan"))}, "finite"),
    ],
)
def test_wrong_embedding_files(tmp_path, tensors, sentence):
    save_file(tensors, tmp_path / "wrong.safetensors")
    with pytest.raises(BIRError, match=sentence):
        load_embedding(tmp_path / "wrong.safetensors")


def test_embedding_that_cannot_be_saved(tmp_path):
    with pytest.raises(BIRError, match="of the shape"):
        save_embedding(tmp_path / "a.safetensors", torch.zeros(77, 32), "")
    with pytest.raises(BIRError, match="check the folder"):
        save_embedding(tmp_path / "absent" / "a.safetensors", torch.zeros(1, 77, 32), "")
