"""Pictures as training reads them: 8 bits stay 8 bits, which saves memory and copying."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...errors import BIRError
from ...pictures.codecs import decode
from .captions import Captions


@dataclass(frozen=True)
class WholeExample:
    """A training example as its files hold it.

    Attributes:
        hq: (3, H, W), uint8 if the file has 8 bits, else float32 in [0, 1].
        lq: likewise; None where a degradation makes it.
        captions: what is known of it in words.
    """

    hq: Tensor
    lq: Tensor | None = None
    captions: Captions = Captions()


def read_training_picture(path: Path, content: bytes | None = None) -> Tensor:
    """(3, H, W), upright, without alpha: uint8 if the file has 8 bits, else float32 in [0, 1].

    Args:
        path: of the file; or what errors call it, if its content comes with it.
        content: the file's bytes; None reads them.

    Raises:
        BIRError: it cannot be read or decoded.
    """
    if content is None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BIRError(
                f"Expected a readable picture at {path}, but it cannot be read ({error.strerror}); "
                "check the path."
            ) from error
    values = decode(path, content).values
    colours = values[..., : 3 if values.shape[-1] >= 3 else 1]
    if colours.dtype != np.uint8:
        scale = np.float32(65535) if colours.dtype == np.uint16 else np.float32(1)
        colours = colours.astype(np.float32) / scale
    image = torch.from_numpy(np.ascontiguousarray(colours.transpose(2, 0, 1)))
    return image.expand(3, -1, -1).contiguous()


def to_float(image: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1]; float stays."""
    return image.float() / 255 if image.dtype == torch.uint8 else image
