"""The built-in network of inpainting, against what needs no network."""

import pytest
import torch

from bir_core.checkpoints import load_model
from bir_core.degradations import degrade, get_preset
from bir_core.diffir.rough_filling import fill_roughly
from bir_core.images import from_channels_last
from bir_core.old_photo.filling import fill


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_it_is_closer_than_smooth_filling(name):
    data = pytest.importorskip("skimage.data", reason="needs scikit-image")
    restoration = pytest.importorskip("skimage.restoration", reason="needs scikit-image")
    pixels = torch.from_numpy(getattr(data, name)()).float()[None] / 255
    hq = from_channels_last(pixels)[..., 60:300, 100:356].contiguous()
    made = degrade(hq, get_preset("masks_scratches"), generator=torch.Generator().manual_seed(5))
    hole = made.lq[:, 3:]
    smooth = restoration.inpaint_biharmonic(
        made.lq[0, :3].movedim(0, -1).numpy(), hole[0, 0].numpy() > 0, channel_axis=2
    )
    smooth = torch.from_numpy(smooth).movedim(-1, 0)[None].float()
    filled = fill(made.lq[:, :3], hole, load_model("builtin-inpaint"))
    assert torch.equal(torch.where(hole > 0, hq, filled), hq)

    def error(image):
        return float((((image - hq) ** 2) * hole).mean())

    assert error(filled) < 0.9 * error(smooth)
    assert error(filled) < 0.9 * error(fill_roughly(hq, hole))
