"""`bir restore --old-photo`: scratches filled and levels undone, then what --auto chooses."""

from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints import load_model
from ..command_line.options import Values, choose_device
from ..diffbir.face_options import UNALIGNED_FACE, has_face_files
from ..diffbir.method import files_of
from ..errors import BIRError
from ..images import extend_opaque, resize
from ..methods import METHODS, Report, RestoreImage
from ..old_photo import MENDING, mend
from ..pictures.files import Picture
from . import restore_auto
from .restore_auto import PlanImage, Planned, PlanPicture
from .restore_options import OldPhotoOptions, RestoreOptions

# All that is done, in this order, of which each may be left out.
STEPS = (*MENDING, "clean", "enlarge", "faces")


def with_diffbir(values: Values, models: Path | None) -> Values:
    """The values of the parser with DiffBIR as the method where nobody chose one and a GPU and its
    files are at hand, and with its task for faces where theirs are."""
    without = values["without"]
    if values["method"] is None and "clean" not in without:
        # On a CPU it takes hours for a picture.
        if choose_device(values["device"]).type == "cpu" or not _has_files(values, models):
            return values
        values = {**values, "method": "diffbir"}
    if values["method"] != "diffbir" or values["task"] is not None or "faces" in without:
        return values
    if not has_face_files(values["version"], models):
        return values
    return {**values, "task": UNALIGNED_FACE}


def _has_files(values: Values, models: Path | None) -> bool:
    """Whether all files of DiffBIR are given or at hand."""
    method = METHODS["diffbir"]
    try:
        files_of(method.read(method.options, {**values, "mask": None, "models": models}))
    except BIRError:
        return False
    return True


def prepare(options: RestoreOptions, old: OldPhotoOptions, device: torch.device) -> PlanPicture:
    """Load the network that looks at pictures; the others are loaded when they are needed.

    Raises:
        BIRError: files of DiffBIR that are not at hand.
    """
    if "clean" in old.without:
        plan_image: PlanImage = partial(_only_enlarged, old.auto.scale or 1.0)
    else:
        plan_image = restore_auto.prepare_choice(options, old.auto, device)

    @cache  # the built-in networks take a few megabytes each
    def load(name: str) -> nn.Module:
        return load_model(name, device=device)

    def plan(picture: Picture, source: Path, mask: Tensor | None, report: Report) -> Planned:
        scan = extend_opaque(picture.image, picture.alpha).to(device)
        mended = mend(
            scan, load, mask=mask, without=old.without, seed=options.of_method.seed, report=report
        )
        restore_image, scale, why = plan_image(mended.image.cpu(), source)
        if restore_image is None and mended.is_nothing:
            return None, scale, mended.words + why
        return partial(_restored, mended.image, restore_image), scale, mended.words + why

    return plan


def _restored(
    mended: Tensor,
    restore_image: RestoreImage | None,
    scan: Tensor,
    mask: Tensor | None,
    report: Report,
) -> Tensor:
    """What is made of the mended picture, in the place of the scan."""
    return mended if restore_image is None else restore_image(mended, None, report)


def _only_enlarged(scale: float, image: Tensor, source: Path) -> Planned:
    if scale == 1:
        return None, scale, ()
    height, width = (max(1, int(side * scale)) for side in image.shape[-2:])

    def enlarge(image: Tensor, mask: Tensor | None, report: Report) -> Tensor:
        return resize(image, height, width).clamp(0, 1)

    return enlarge, scale, (f"enlarged {scale:g} times by interpolation, as nothing is cleaned",)
