"""Padding, layout and size of images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bir_core.errors import BIRError
from bir_core.images import (
    attach_alpha,
    crop,
    extend_opaque,
    from_channels_last,
    from_mask,
    keep_grey,
    luma,
    pad_to_multiple,
    require_finite,
    resize,
    split_alpha,
    to_channels_last,
)

sides = st.integers(1, 40)


@given(
    sides, sides, st.sampled_from([1, 3, 8, 32]), st.sampled_from(["reflect", "symmetric", "edge"])
)
def test_padding_continues_as_numpy_does(height, width, multiple, mode):
    image = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    padded = pad_to_multiple(image, multiple, mode)
    add = ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple))
    expected = np.pad(image.numpy(), add, mode=mode)
    assert np.array_equal(padded.numpy(), expected)
    assert torch.equal(crop(padded, height, width), image)


def test_no_padding_is_no_copy():
    image = torch.rand(1, 3, 16, 8)
    assert pad_to_multiple(image, 8) is image


@given(sides, sides)
def test_layout_goes_there_and_back(height, width):
    image = torch.rand(2, 3, height, width)
    last = to_channels_last(image)
    assert last.shape == (2, height, width, 3)
    assert last.is_contiguous()
    assert torch.equal(from_channels_last(last), image)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "area"])
@given(sides, sides)
def test_resize_keeps_a_flat_image_flat(mode, height, width):
    image = torch.full((1, 3, 12, 20), 0.25)
    resized = resize(image, height, width, mode)
    assert resized.shape == (1, 3, height, width)
    torch.testing.assert_close(resized, torch.full_like(resized, 0.25))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_said(value):
    image = torch.zeros(1, 3, 4, 4)
    require_finite(image, "The picture")
    image[0, 1, 2, 3] = value
    with pytest.raises(BIRError, match="The picture should hold finite numbers"):
        require_finite(image, "The picture")


@pytest.mark.parametrize(("channels", "has_alpha"), [(1, False), (2, True), (3, False), (4, True)])
def test_split_alpha_gives_rgb_and_opacity(channels, has_alpha):
    image = torch.rand(2, channels, 3, 5)
    rgb, alpha = split_alpha(image)
    assert rgb.shape == (2, 3, 3, 5)
    torch.testing.assert_close(rgb[:, 0], image[:, 0])
    torch.testing.assert_close(rgb[:, 2], image[:, 0 if channels < 3 else 2])
    assert (alpha is not None) == has_alpha
    if alpha is not None:
        torch.testing.assert_close(alpha, image[:, -1:])


@given(sides, sides, st.integers(0, 99))
def test_extend_opaque_changes_hidden_colours_only(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(2, 3, height, width, generator=generator)
    alpha = (torch.rand(2, 1, height, width, generator=generator) - 0.5).clamp(min=0)
    extended = extend_opaque(image, alpha)
    seen = (alpha > 0).expand_as(image)
    assert torch.equal(extended[seen], image[seen])
    # The same whatever is hidden, and within the range of what is seen.
    other = torch.where(seen, image, torch.rand(image.shape, generator=generator))
    again = extend_opaque(other, alpha)
    for one, same, colours, visible in zip(extended, again, image, seen, strict=True):
        if visible.any():
            torch.testing.assert_close(one, same, rtol=0, atol=0)
            assert one.min() >= colours[visible].min() - 1e-5
            assert one.max() <= colours[visible].max() + 1e-5
    torch.testing.assert_close(split_alpha(torch.cat([image, alpha], 1))[0], extended)


def test_extend_opaque_leaves_alone_what_hides_nothing():
    image, alpha = torch.rand(1, 3, 4, 5), torch.full((1, 1, 4, 5), 1 / 255)
    assert extend_opaque(image, alpha) is image
    assert extend_opaque(image, None) is image
    assert torch.equal(extend_opaque(image, alpha * 0), image)


def test_extend_opaque_keeps_to_the_nearest_colours():
    image, alpha = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    image[..., :2], image[..., 14:] = 0.25, 0.75
    alpha[..., :2], alpha[..., 14:] = 1, 1
    row = extend_opaque(image, alpha)[0, 0, 8]
    assert 0.25 <= row[2] < 0.35 and 0.65 < row[13] <= 0.75
    assert (row.diff() >= 0).all()


def test_split_alpha_refuses_other_channel_counts():
    with pytest.raises(BIRError, match="5 came"):
        split_alpha(torch.rand(1, 5, 3, 3))


def test_attach_alpha_enlarges_it_within_the_range():
    alpha = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
    image = torch.rand(1, 3, 16, 16)
    together = attach_alpha(image, alpha)
    torch.testing.assert_close(together[:, :3], image)
    enlarged = together[:, 3]
    assert enlarged.min() >= 0 and enlarged.max() <= 1
    torch.testing.assert_close(enlarged[..., 0], torch.zeros(1, 16))
    torch.testing.assert_close(enlarged[..., -1], torch.ones(1, 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_colours_that_a_network_gave_are_not_replaced_again(dtype):
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 9, 7, generator=draws)
    alpha = torch.rand(2, 1, 9, 7, generator=draws).round()
    again, kept = split_alpha(attach_alpha(image, alpha).to(dtype))
    assert torch.equal(again, image.to(dtype))
    assert kept is not None and torch.equal((255 * kept).round() / 255, alpha.to(dtype))


def test_attach_alpha_without_alpha_is_the_image():
    image = torch.rand(1, 3, 4, 4)
    assert attach_alpha(image, None) is image


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (1, 0, 4, 3), (2, 4, 0, 3)])
def test_no_picture_is_said(shape: tuple[int, ...]) -> None:
    with pytest.raises(BIRError, match="at least one picture"):
        from_channels_last(torch.zeros(shape))
    with pytest.raises(BIRError, match="at least one picture"):
        from_mask(torch.zeros(shape[:3]))


@given(
    st.lists(st.booleans(), min_size=1, max_size=3),
    sides,
    sides,
    st.sampled_from([1, 2, 0.5]),
    sides,
)
def test_grey_pictures_stay_grey_and_others_as_they_are(grey, height, width, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(len(grey), 3, height, width, generator=generator)
    for index in range(len(grey)):
        if grey[index]:
            images[index] = images[index, :1].clone()
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    restored = torch.randn(len(grey), 3, *size, generator=generator)
    kept = keep_grey(restored, images)
    for is_grey, one, before in zip(grey, kept, restored, strict=True):
        assert torch.equal(one, luma(before[None])[0].expand(3, -1, -1) if is_grey else before)
    # On the way there nothing may tell the channels apart.
    known = (torch.rand(len(grey), 1, height, width, generator=generator) > 0.3).float()
    for image in (resize(images, *size), split_alpha(torch.cat([images, known], 1))[0]):
        assert torch.equal(keep_grey(image, images), keep_grey(image, image))
        for is_grey, one in zip(grey, image, strict=True):
            assert not is_grey or torch.equal(one, one[:1].expand(3, -1, -1))


def test_a_grey_picture_among_colours():
    """One number that differs, in the last place of 16 bits, is a colour."""
    grey = torch.full((1, 3, 5, 4), 0.5)
    restored = torch.rand(1, 3, 5, 4)
    assert keep_grey(restored, grey) is not restored
    grey[0, 2, 4, 3] += 1 / 65535
    assert keep_grey(restored, grey) is restored


def test_luma_is_that_of_jpeg_and_exact_for_grey():
    weights = torch.eye(3)[:, :, None, None]
    torch.testing.assert_close(luma(weights).flatten(), torch.tensor([0.299, 0.587, 0.114]))
    every = (torch.arange(65536) / 65535).view(1, 1, 256, 256)
    assert torch.equal(luma(every.expand(-1, 3, -1, -1)), every)


@pytest.mark.parametrize(("height", "width"), [(1, 16384), (16384, 1)])
def test_the_longest_sides(height, width):
    """Up to 16384 pixels, in everything that goes through a picture before and after a network."""
    image = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    rgb, alpha = split_alpha(image)
    assert torch.equal(rgb, keep_grey(rgb, rgb))
    padded = pad_to_multiple(rgb, 64)
    assert torch.equal(crop(padded, height, width), rgb)
    together = attach_alpha(resize(rgb, 2 * height, 2 * width), alpha)
    assert together.shape == (1, 4, 2 * height, 2 * width)
