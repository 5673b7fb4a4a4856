"""From an image of any size to the restored image, with any network that restores by itself."""

from collections.abc import Callable

from torch import Tensor, nn

from .compact.restore import restore_compact
from .diffir.restore import restore as restore_diffir
from .errors import BIRError
from .networks.compact import CompactRestorer
from .networks.diffir import DiffIRStage2

# From the name of a built-in network to it, on the device of the picture.
LoadNetwork = Callable[[str], nn.Module]
# (what is being done, strips or tiles done, those in all); may raise to cancel.
Report = Callable[[str, int, int], None]


def restore(
    image: Tensor,
    model: nn.Module,
    *,
    mask: Tensor | None = None,
    seed: int = 0,
    noise: Tensor | None = None,
    strip: int | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Restore images of any size with a compact restoration module or a DiffIR stage 2, exactly
    and in little memory.

    Args:
        image: (B, 3, H, W) in [0, 1], any H and W from 1 on.
        model: as from `load_model`.
        mask, noise: for DiffIR, as in `diffir.restore`.
        seed: of DiffIR's noise; a compact module draws none.
        strip: rows that are computed at a time; it changes the need for memory, and the result by
            rounding only. None chooses from the free memory.
        callback: called with (strips done, strips in all) after each strip; may raise to cancel.

    Returns:
        (B, 3, H scale, W scale), float32 in [0, 1], on the image's device; grey where the image is.

    Raises:
        BIRError: a model of another kind, and as `restore_compact` and `diffir.restore`.
    """
    if isinstance(model, DiffIRStage2):
        return restore_diffir(
            image, model, mask=mask, seed=seed, noise=noise, strip=strip, callback=callback
        )
    if not isinstance(model, CompactRestorer):
        raise BIRError(
            "Expected a compact restoration module or a DiffIR stage 2 to restore with, but a "
            f"{type(model).__name__} came; load the file of one, or use DiffBIR."
        )
    given = [name for name, value in (("mask", mask), ("noise", noise)) if value is not None]
    if given:
        raise BIRError(
            f"Expected only an image for a compact restoration module, but a {given[0]} came; "
            "leave it out or load a DiffIR."
        )
    return restore_compact(image, model, strip=strip, callback=callback)
