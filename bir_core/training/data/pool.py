"""The pool of training pairs, as Real-ESRGAN and DiffBIR have it."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import BIRError


class PairPool:
    """Pairs of the last batches with their captions, of which each batch takes a random part, so
    that it mixes draws that a degradation makes once for each batch. While it fills, batches pass
    through."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lq: list[Tensor] = []
        self.hq: list[Tensor] = []
        self.captions: list[str] = []

    def exchange(
        self, lq: Tensor, hq: Tensor, captions: tuple[str, ...], generator: torch.Generator
    ) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Put a batch in, get one of the same size out."""
        if len(self.lq) < self.size:
            self.lq.extend(lq.unbind())
            self.hq.extend(hq.unbind())
            self.captions.extend(captions)
            return lq, hq, captions
        chosen = torch.randperm(self.size, generator=generator)[: len(lq)].tolist()
        out = (
            torch.stack([self.lq[i] for i in chosen]),
            torch.stack([self.hq[i] for i in chosen]),
            tuple(self.captions[i] for i in chosen),
        )
        for place, slot in enumerate(chosen):
            self.lq[slot], self.hq[slot] = lq[place], hq[place]
            self.captions[slot] = captions[place]
        return out

    def state(self) -> dict[str, Tensor]:
        """Its pairs, on the CPU, and the captions as the bytes of a JSON list; empty while it holds
        none."""
        if not self.lq:
            return {}
        return {
            "lq": torch.stack(self.lq).cpu(),
            "hq": torch.stack(self.hq).cpu(),
            "captions": torch.tensor(list(json.dumps(self.captions).encode()), dtype=torch.uint8),
        }

    def load(self, state: Mapping[str, Any], device: torch.device, name: str = "the state") -> None:
        """Take the pairs of `state`.

        Args:
            name: where it comes from, for the error.

        Raises:
            BIRError: it is not what `state` gives.
        """
        if not state:
            self.lq, self.hq, self.captions = [], [], []
            return
        lq, hq = state.get("lq"), state.get("hq")
        captions = _captions(state.get("captions"))
        if (
            isinstance(lq, Tensor)
            and isinstance(hq, Tensor)
            and captions is not None
            and lq.ndim == hq.ndim > 0
            and len(lq) == len(hq) == len(captions)
        ):
            self.lq, self.hq = list(lq.to(device).unbind()), list(hq.to(device).unbind())
            self.captions = captions
            return
        raise BIRError(
            f"Expected the pool of training pairs in {name}, but it is damaged or another file; "
            "start again without --resume."
        )


def _captions(stored: Any) -> list[str] | None:
    """The texts in the bytes of a JSON list; None if they are none."""
    try:
        captions = json.loads(bytes(stored.tolist()))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return None
    right = isinstance(captions, list) and all(isinstance(text, str) for text in captions)
    return captions if right else None
