"""Captions of pictures, and which of them a batch gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import BIRError
from ..recipe import CaptionRecipe


@dataclass(frozen=True)
class Captions:
    """What is known of a picture in words; "" where nothing is."""

    short: str = ""
    long: str = ""


def captions_from(fields: Any, text: str = "") -> Captions:
    """Captions out of a JSON object with `caption` and `long_caption`.

    Args:
        text: the caption if the field is absent or null.

    Raises:
        BIRError: no object, or a field that is no text.
    """
    if not isinstance(fields, Mapping):
        raise BIRError(
            f"Expected a JSON object with captions, but {fields!r:.80} came; correct it."
        )
    short, long = fields.get("caption"), fields.get("long_caption")
    for value in (short, long):
        if not isinstance(value, str | None):
            raise BIRError(f"Expected a caption to be a text, but {value!r:.80} came; correct it.")
    return Captions((short if short is not None else text).strip(), (long or "").strip())


def draw_caption(
    captions: Captions, recipe: CaptionRecipe | None, generator: torch.Generator
) -> str:
    """The caption that a training step sees; "" always if the recipe wants none."""
    if recipe is None:
        return ""
    long, dropped = torch.rand(2, generator=generator).tolist()
    if dropped < recipe.drop_probability:
        return ""
    if long < recipe.long_probability:
        return captions.long or captions.short
    return captions.short or captions.long
