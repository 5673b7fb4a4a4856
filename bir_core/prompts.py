"""The old place of `diffbir.prompts`."""

from .diffbir.prompts import encode_prompts, load_embedding, save_embedding, tokenize

__all__ = ["encode_prompts", "load_embedding", "save_embedding", "tokenize"]
