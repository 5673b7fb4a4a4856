"""Scratches and fading, together."""

import pytest
import torch

from bir_core.checkpoints import load_model
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.old_photo import mend


def nothing(name):
    raise AssertionError(f"{name} is not needed")


def scan():
    """A soft slope with a white scratch, faded."""
    y = torch.linspace(0, 1, 96)[:, None]
    image = (y * torch.linspace(0.6, 1, 128)).expand(1, 3, 96, 128).clone()
    image[..., 1:3, :] = 0
    image[..., -2:, -10:] = 1
    faded = 0.15 + 0.7 * image
    mask = torch.zeros(1, 1, 96, 128)
    mask[..., 20:80, 60:63] = 1
    return torch.where(mask > 0, torch.ones(()), faded), mask, image


def test_each_step_can_be_left_out():
    image, mask, original = scan()
    whole = mend(image, load_model, mask=mask)
    assert not whole.is_nothing and len(whole.words) == 2
    kept = mend(image, nothing, without=("scratches", "levels", "tone"))
    assert kept.is_nothing and kept.image is image and kept.words == ()
    filled = mend(image, load_model, mask=mask, without=("levels",))
    assert not filled.levels.changes and torch.equal(filled.filled, mask)
    assert torch.equal(filled.image * (1 - mask), image * (1 - mask))
    wide = mend(image, nothing, without=("scratches",))
    assert wide.levels.changes and not wide.filled.any()
    brown = 0.1 + 0.8 * original ** torch.tensor([0.8, 1.0, 1.3]).view(3, 1, 1)
    toned = mend(brown, nothing, without=("scratches", "tone"))
    assert toned.levels.powers == (1, 1, 1)
    assert mend(brown, nothing, without=("scratches",)).levels.powers != (1, 1, 1)


def test_the_mask_is_filled_and_the_picture_comes_nearer():
    image, mask, original = scan()
    mended = mend(image, load_model, mask=mask)
    assert "filled what the mask says" in mended.words[0]
    assert float(((mended.image - original) * mask).abs().max()) < 0.15
    before, after = ((each - original).abs().mean() for each in (image, mended.image))
    assert float(after) < 0.5 * float(before)


def test_damage_is_found_and_filled():
    hq = torch.nn.functional.interpolate(
        torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(3)),
        (240, 336),
        mode="bicubic",
    ).clamp(0, 1)
    damaged = hq.clone()
    damaged[..., 30:200, 100:103] = 1.0
    damaged[..., 150:153, 20:300] = 0.95
    seen = []
    mended = mend(damaged, load_model, report=lambda stage, done, total: seen.append(stage))
    assert mended.filled[..., 30:200, 101].mean() > 0.4
    assert "filled scratches on" in mended.words[0]
    before, after = (((each - hq) ** 2).mean() for each in (damaged, mended.image))
    assert float(after) < 0.7 * float(before)
    assert {"searching", "filling"} <= set(seen)


def test_a_whole_picture_has_none():
    hq = torch.nn.functional.interpolate(
        torch.rand(1, 3, 10, 14, generator=torch.Generator().manual_seed(3)),
        (240, 336),
        mode="bicubic",
    ).clamp(0, 1)
    mended = mend(hq, load_model)
    assert "no more than in undamaged pictures" in mended.words[0]
    assert not mended.filled.any()


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(BIRError, match="resize it to the image"):
        mend(torch.rand(1, 3, 20, 20), load_model, mask=torch.ones(1, 1, 9, 9))


def test_prints_say_whether_they_are_grey():
    hq = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    made = degrade(hq, get_preset("old_photo"), generator=torch.Generator().manual_seed(0))
    grey = made.draws["grey_print"]
    assert grey.any() and not grey.all()
