"""SUPIR as ComfyUI applies it, under tiles: a patch of the network that holds the whole picture.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from comfy.ldm.supir.supir_patch import SUPIRPatch
from torch import Tensor

from ...bir_core.errors import BIRError
from ...bir_core.latents import LATENT_FACTOR

Patches = Mapping[str, list[Any]]


def crop_supir(
    patches: Patches, size: tuple[int, int], crop: Callable[[Tensor], Tensor]
) -> Patches:
    """The patches of a network as tiles see them: SUPIR's, which are methods of one object, become
    those of a copy that has the part of the picture.

    Args:
        size: (height, width) of the whole latent.
        crop: from the latent (B, 4, height, width) of SUPIR's picture to its part.

    Raises:
        BIRError: this latent has another size.
    """
    parts: dict[int, SUPIRPatch] = {}

    def of_part(patch: Any) -> Any:
        if isinstance(patch, tuple):  # with the class of the layers that it is for
            return tuple(of_part(each) for each in patch)
        owner = getattr(patch, "__self__", None)
        if not isinstance(owner, SUPIRPatch):
            return patch
        if id(owner) not in parts:
            parts[id(owner)] = part = copy.copy(owner)
            part.hint_latent = crop(_fitting(owner.hint_latent, size))
        return getattr(parts[id(owner)], patch.__name__)

    return {name: [of_part(patch) for patch in entries] for name, entries in patches.items()}


def _fitting(latent: Tensor, size: tuple[int, int]) -> Tensor:
    found, expected = (
        f"{height * LATENT_FACTOR} x {width * LATENT_FACTOR}"
        for height, width in (latent.shape[-2:], size)
    )
    if found != expected:
        raise BIRError(
            "The image of Apply SUPIR Patch should have the size of the picture that is sampled, "
            f"{expected} pixels (height x width), but {found} came; sample the latent of this "
            "image, with sides that divide by 8."
        )
    return latent
