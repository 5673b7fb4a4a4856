"""What of the CONDITIONINGs of a batch belongs to one of its images, which is sampled alone.

Like `services.py` it uses parts of ComfyUI without a promise of stability.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .control import IRControlNet
from .protocols import Conditioning, ControlNet


def of_image(
    conditionings: Sequence[Conditioning], index: int, images: int
) -> Sequence[Conditioning]:
    """The CONDITIONINGs with the image's own embedding, mask and hints where they have one for each
    image; what is single serves them all. A control net that several entries share stays shared."""
    if images == 1:
        return conditionings
    controls: dict[ControlNet, ControlNet] = {}

    def own(tensor: Tensor) -> Tensor:
        return tensor[index : index + 1] if len(tensor) == images else tensor

    def own_control(control: ControlNet) -> ControlNet:
        if control not in controls:
            part = control.copy()
            part.cond_hint_original = own(control.cond_hint_original)
            part.extra_concat_orig = [own(each) for each in control.extra_concat_orig]
            if isinstance(part, IRControlNet):
                assert part.hint is not None  # it conditions
                if len(part.hint.image) == images:
                    part.hint = part.hint.of_images(slice(index, index + 1))
                part.share = None if part.share is None else own(part.share)
            previous = control.previous_controlnet
            part.set_previous_controlnet(None if previous is None else own_control(previous))
            controls[control] = part
        return controls[control]

    def own_entry(entry: list[Any]) -> list[Any]:
        embedding, options = entry[0], dict(entry[1])
        if "mask" in options and options["mask"].ndim > 2:
            options["mask"] = own(options["mask"])
        if "control" in options:
            options["control"] = own_control(options["control"])
        return [own(embedding), options]

    return [[own_entry(entry) for entry in conditioning] for conditioning in conditionings]
