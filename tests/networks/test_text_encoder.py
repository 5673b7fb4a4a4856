"""The text tower against the official code."""

import pytest
import torch
from diffbir_models import text_encoder, text_tower_weights
from parity import assert_rule_check, load_vectors

from bir_core.errors import BIRError
from bir_core.networks.text_encoder import TextEncoder, TextEncoderConfig


@torch.no_grad()
def test_equals_official():
    vectors, metadata = load_vectors("diffbir_clip_small")
    weights, check = text_tower_weights(int(metadata["rule_base"]))
    assert_rule_check(check, metadata["rule_check"])
    embeddings = text_encoder(weights)(vectors["tokens"])
    official = vectors["emb"]
    error = (embeddings[:, ::4] - official).abs().max()
    assert error <= 1e-4 * official.abs().max()


def small():
    config = TextEncoderConfig(width=32, heads=2, layers=2, vocabulary=50, length=9)
    return TextEncoder(config).eval().requires_grad_(False)


def test_a_token_sees_only_those_before():
    encoder = small()
    tokens = torch.arange(9)[None]
    changed = tokens.clone()
    changed[0, 5] = 40
    before, after = encoder(tokens), encoder(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert ((before[:, 5:] - after[:, 5:]).abs().amax(dim=-1) > 1e-4).all()


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (torch.zeros(1, 8, dtype=torch.int64), "texts of 9 tokens"),
        (torch.full((1, 9), 50), "from 0 to 49"),
        (torch.full((1, 9), -1), "from 0 to 49"),
    ],
)
def test_wrong_tokens(tokens, sentence):
    with pytest.raises(BIRError, match=sentence):
        small()(tokens)


def test_wrong_heads():
    with pytest.raises(BIRError, match="divide by its heads"):
        TextEncoderConfig(width=32, heads=3)
