"""What a file says of itself beside its weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Of the header that trainings of this package leave in their files.
HEADER_KEY = "training"


@dataclass(frozen=True)
class Origin:
    """Where a network comes from.

    Attributes:
        name: of the file, without its folder; "" for what came from no file.
        metadata: texts in the header of a safetensors file.
    """

    name: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The table of the recipe by which this package trained it; empty if it did not."""
        try:
            recipe = json.loads(self.metadata[HEADER_KEY])["recipe"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return {}
        return recipe if isinstance(recipe, Mapping) else {}
