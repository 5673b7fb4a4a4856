import numpy as np
import pytest
import torch
from PIL import Image

from bir_core.errors import BIRError
from bir_core.training.data.cuts import cut_picture, draw_turn, paired_crop, resize_short_side
from bir_core.training.data.draws import generator_for
from bir_core.training.recipe import DataRecipe


def test_dihedral_draws_all_eight_modes_and_hflip_two():
    image = torch.arange(27.0).view(3, 3, 3)
    for augmentation, count in (("dihedral", 8), ("hflip", 2), ("none", 1)):
        turns = {
            tuple(draw_turn(augmentation, generator_for(k))(image).flatten().tolist())
            for k in range(100)
        }
        assert len(turns) == count


def test_random_crops_after_the_degradation_are_paired():
    hq = torch.rand(2, 3, 48, 48)
    lq = torch.nn.functional.avg_pool2d(hq, 4)
    cuts = set()
    for k in range(20):
        small, large = paired_crop(lq, hq, 32, generator_for(k))
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 4), small)
        cuts.add(float(small[0, 0, 0, 0]))
    assert len(cuts) > 5


def noise(height, width):
    return torch.randint(0, 256, (3, height, width), generator=generator_for(1), dtype=torch.uint8)


def with_pillow(image, sizes):
    """Resize by BOX to all sizes but the last, and to that bicubically."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    for number, (height, width) in enumerate(sizes, 1):
        last = number == len(sizes)
        kind = Image.Resampling.BICUBIC if last else Image.Resampling.BOX
        picture = picture.resize((width, height), kind)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        ((50, 70), [(32, 45)]),
        ((20, 16), [(40, 32)]),
        ((63, 90), [(32, 46)]),
        ((64, 90), [(32, 45), (32, 45)]),
        ((300, 133), [(150, 66), (75, 33), (73, 32)]),
    ],
)
def test_pictures_are_halved_and_then_interpolated(size, sizes):
    """While the short side is at least twice 32 pixels."""
    image = noise(*size)
    assert torch.equal(resize_short_side(image, 32), with_pillow(image, sizes))


def test_sixteen_bit_pictures_are_resized_alike():
    rows, columns = torch.meshgrid(torch.arange(50), torch.arange(70), indexing="ij")
    image = ((rows / 9).sin() * (columns / 7).cos() * 127 + 128).byte().expand(3, 50, 70)
    deep = resize_short_side(image.float() / 255, 32)
    shallow = resize_short_side(image, 32).float() / 255
    torch.testing.assert_close(deep, shallow, rtol=0, atol=1.01 / 255)


def test_the_center_crop_is_the_middle():
    image = noise(64, 100)
    cut = cut_picture(image, 32, "center", "none", generator_for(0))
    assert torch.equal(cut, with_pillow(image, [(32, 50), (32, 50)])[:, :, 9:41])


def test_the_resized_crop_draws_every_short_side_up_to_one_over_0_7():
    image = noise(40, 56)
    drawn = set()
    for k in range(100):
        generator = generator_for(k)
        short = 24 + int(torch.randint(12, (), generator=generator))  # ceil(24 / 0.7) = 35
        resized = with_pillow(image, [(short, round(56 * short / 40))])
        top = int(torch.randint(short - 23, (), generator=generator))
        left = int(torch.randint(resized.shape[2] - 23, (), generator=generator))
        cut = cut_picture(image, 24, "resized", "none", generator_for(k))
        assert torch.equal(cut, resized[:, top : top + 24, left : left + 24])
        drawn.add(short)
    assert drawn == set(range(24, 36))


def test_pairs_are_not_resized():
    with pytest.raises(BIRError, match="for pairs"):
        DataRecipe(degradation="pairs", patch=32, batch=1, crop="center")
