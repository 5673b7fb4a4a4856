"""The pool of training pairs, as Real-ESRGAN and DiffBIR have it."""

import json

import torch
from torch import Tensor


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

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Take the pairs of `state`."""
        self.lq = list(state["lq"].to(device).unbind()) if state else []
        self.hq = list(state["hq"].to(device).unbind()) if state else []
        self.captions = json.loads(bytes(state["captions"].tolist())) if state else []
