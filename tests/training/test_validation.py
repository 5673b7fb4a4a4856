import torch

from bir_core.metrics import psnr, ssim
from bir_core.training.recipe import ValidationRecipe
from bir_core.training.validation import ValidationSet, side_by_side


def held_out(lq, hq, multiple=1, **recipe):
    return ValidationSet(1, lambda index: (lq, hq), ValidationRecipe(**recipe), multiple)


def test_the_border_is_left_out():
    hq = torch.rand(1, 3, 40, 48)
    restored = hq.clone()
    restored[..., :4, :] = 0
    inside = restored[..., 4:-4, 4:-4] = (hq[..., 4:-4, 4:-4] + 0.1).clamp(0, 1)
    measured = held_out(hq, hq, border=4, channel="rgb").measure(restored, hq)
    expected = psnr(inside, hq[..., 4:-4, 4:-4]), ssim(inside, hq[..., 4:-4, 4:-4])
    assert measured == (expected[0].item(), expected[1].item())
    assert held_out(hq, hq, channel="rgb").measure(restored, hq)[0] < measured[0] - 1


def test_sides_are_padded_for_the_network_and_cropped_again():
    lq, hq = torch.rand(1, 3, 13, 21), torch.rand(1, 3, 26, 42)
    seen = []

    def restore(low, high):
        seen.append((low.shape[-2:], high.shape[-2:]))
        return high + 2

    shown, restored, original = held_out(lq, hq, multiple=8).restored(
        0, restore, torch.device("cpu")
    )
    assert seen == [((16, 24), (32, 48))]
    assert torch.equal(restored, torch.ones_like(hq))
    assert torch.equal(shown, lq)
    assert torch.equal(original, hq)


def test_the_centre_of_a_picture():
    lq, hq = torch.rand(1, 3, 16, 20), torch.rand(1, 3, 32, 40)
    shown, _, original = held_out(lq, hq, patch=8).restored(
        0, lambda low, high: high, torch.device("cpu")
    )
    assert torch.equal(shown, lq[..., 6:10, 8:12])
    assert torch.equal(original, hq[..., 12:20, 16:24])


def test_side_by_side():
    lq, hq = torch.full((1, 4, 8, 8), 0.5), torch.rand(1, 3, 16, 16)
    row = side_by_side(lq, torch.zeros_like(hq), hq)
    assert row.shape == (3, 16, 48)
    torch.testing.assert_close(row[..., :16], torch.full((3, 16, 16), 0.5))
    assert torch.equal(row[..., 32:], hq[0])
