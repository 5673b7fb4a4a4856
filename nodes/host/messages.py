"""Words on the node that works, and how far its tiles are.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import logging
from dataclasses import dataclass
from typing import Any

import comfy.utils
from comfy_execution.utils import get_executing_context
from torch import Tensor

# Sigmas this close, relatively, are one level of a schedule.
SAME_LEVEL = 1e-3


def say(text: str) -> None:
    """Show a text on the node that is executed; without effect outside of a server."""
    context = get_executing_context()
    if context is not None:
        from server import PromptServer  # needs all of ComfyUI, which is there for a node

        PromptServer.instance.send_progress_text(text, context.node_id)


class OnTheNode(logging.Handler):
    """Shows what is logged on the node that is executed."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_warnings() -> None:
    """Let nodes show what we log as a warning: what is doubtful, and what goes on in smaller pieces
    or in float32."""
    pack = __name__.removesuffix(".nodes.host.messages")
    logging.getLogger(pack).addHandler(OnTheNode(logging.WARNING))


def which_image(index: int, batch: int) -> str:
    """What a text on one image of a batch begins with."""
    return f"Image {index + 1} of {batch}: " if batch > 1 else ""


def which_step(sigma: Tensor, sigmas: Tensor) -> int:
    """The step, from 0, that an evaluation at a level belongs to. It waits for the device.

    Args:
        sigmas: (steps + 1,) descending, the levels that the sampler walks down.
    """
    behind = int((sigmas > (1 + SAME_LEVEL) * sigma).sum())
    return min(behind, len(sigmas) - 2)


@dataclass
class TileProgress:
    """Tells of every tile of a sampling.

    Attributes:
        beginning: of the words.
    """

    beginning: str = ""
    _bar: Any = None

    def restart(self) -> None:
        """Before another sampling."""
        self._bar = None

    def tell(self, done: int, tiles: int, step: int, steps: int) -> None:
        """That `done` tiles of an evaluation in this step, from 0, are ready."""
        self._bar = self._bar or comfy.utils.ProgressBar(steps * tiles)
        self._bar.update_absolute(step * tiles + done, steps * tiles)
        say(f"{self.beginning}step {step + 1} of {steps}, tile {done} of {tiles}")
