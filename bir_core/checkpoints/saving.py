"""From a network to a checkpoint file."""

from pathlib import Path

import torch
from torch import nn

from .architectures import ARCHITECTURES
from .files import write_tensors
from .keys import StateDict


def save_checkpoint(
    model: nn.Module,
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a network's state dict as safetensors; the file appears only when it is complete.

    It gets what the published files of its architecture hold besides, so that other programs load
    it too.

    Args:
        dtype: what floating-point weights are stored as; None keeps theirs. Tables that follow from
            the configuration keep theirs always.
        metadata: texts for the file's header.

    Raises:
        BIRError: the file cannot be written (folder missing, disk full).
    """
    row = next((row for row in ARCHITECTURES if isinstance(model, row.build)), None)
    tensors: StateDict = model.state_dict()
    exact: tuple[str, ...] = ()
    if row is not None:
        tensors, exact = tensors | row.published_tables(model), row.optional
    for name, value in tensors.items():
        if dtype is not None and value.is_floating_point() and name not in exact:
            tensors[name] = value.to("cpu", dtype)
    write_tensors(path, tensors, "the checkpoint", metadata=metadata)
