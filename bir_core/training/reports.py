"""What a training tells: TensorBoard's writer, and losses that are no numbers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import BIRError


def require_finite(values: Mapping[str, float], iteration: int) -> None:
    """Raise BIRError if a loss is NaN or infinite."""
    for name, value in values.items():
        if not isfinite(value):
            raise BIRError(
                f"Expected finite losses, but {name} is {value} at iteration {iteration}; go on "
                "from the last state with --resume and a lower `rate` or a `clip` of the "
                "gradient, for example --set optimizer.clip=1.0."
            )


@contextmanager
def summary_writer(output: Path, main: bool) -> Iterator[Any]:
    """TensorBoard's writer on the main process, None on the others.

    Raises:
        BIRError: tensorboard is not installed.
    """
    if not main:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise BIRError(
            "Training should find the package tensorboard, but it is absent; install the extra: "
            "pip install comfyui-bir[train]."
        ) from error
    with SummaryWriter(output / "logs") as writer:
        yield writer
