import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bir_core.degradations import PaintedDamage, TexturedDamage, degrade, get_preset
from bir_core.degradations.damage import visible_damage
from bir_core.degradations.marks import blend, curve, draw_number, paint_discs
from bir_core.degradations.outlines import draw_outlines
from bir_core.degradations.textured_damage import midpoint_line
from bir_core.errors import BIRError

PAINTED, TEXTURED = get_preset("old_photo"), get_preset("foreign_old_photo")
KINDS = {
    PAINTED: ("scratch", "hair", "dust", "crease", "stain"),
    TEXTURED: ("crack", "fibre", "scratch", "speck", "fold", "loss"),
}
# A scan that changes nothing.
STILL = dataclasses.replace(
    PAINTED.scan, blur_probability=0.0, noise_probability=0.0, jpeg_probability=0.0
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def shades(batch=2, height=64, width=80):
    columns = torch.linspace(0.25, 0.75, width).expand(batch, 3, height, width)
    return columns.contiguous()


def only(preset, kind, **more):
    """A print in its colours with one kind of damage, or with none."""
    none = {f"{name}_probability": 0.0 for name in KINDS[preset]}
    own = {f"{kind}_probability": 1.0} if kind else {}
    still = {"grey_probability": 0.0, "faded": (0.0, 0.0), "scan": STILL}
    return dataclasses.replace(preset, **{**none, **still, **own, **more})


@pytest.mark.parametrize("preset", KINDS)
def test_without_damage_a_print_is_the_picture(preset):
    hq = shades()
    result = degrade(hq, only(preset, None), generator=seeded())
    assert float((result.lq - hq).abs().max()) <= 0.5 / 255 + 1e-6
    assert result.damage.shape == (2, 1, 64, 80) and float(result.damage.max()) == 0


@pytest.mark.parametrize(
    "preset, kind", [(p, kind) for p, kinds in KINDS.items() for kind in kinds]
)
def test_each_kind_of_damage_is_where_the_mask_says(preset, kind):
    hq = shades(1, 256, 256)
    seen = 0
    for seed in range(12):
        result = degrade(hq, only(preset, kind), generator=seeded(seed))
        change = (result.lq - hq).abs().amax(1, keepdim=True)
        outside = change[result.damage == 0]
        # The sum of the binomial weights that an unseen pixel itself has is a quarter.
        assert outside.numel() == 0 or float(outside.max()) <= 4 * 0.05 + 1 / 255
        seen += float(result.damage.mean()) > 0
        if result.damage.any():
            assert float(change[result.damage == 1].mean()) > 0.03
    assert seen >= 4


@pytest.mark.parametrize("preset", KINDS)
def test_black_and_white_prints_have_no_colours_but_damage_may(preset):
    hq = torch.rand(3, 3, 32, 32, generator=seeded(1))
    grey = only(preset, None, grey_probability=1.0, sepia_probability=0.0)
    result = degrade(hq, grey, generator=seeded())
    assert torch.equal(result.lq[:, :1].expand(-1, 3, -1, -1), result.lq)
    toned = only(preset, None, grey_probability=1.0, sepia_probability=1.0)
    red, green, blue = degrade(hq, toned, generator=seeded()).lq.mean(dim=(0, 2, 3)).tolist()
    assert red > green > blue
    assert torch.equal(result.hq, hq)


@pytest.mark.parametrize("preset", KINDS)
def test_what_fades_keeps_its_order(preset):
    faded = degrade(shades(), only(preset, None, faded=(0.2, 0.2)), generator=seeded()).lq
    expected = 0.2 + 0.6 * shades()
    assert float((faded - expected).abs().max()) <= 0.5 / 255 + 1e-6


@settings(max_examples=20)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    seed=st.integers(0, 1000),
    preset=st.sampled_from(list(KINDS)),
)
def test_every_size_is_taken(height, width, seed, preset):
    all_kinds = {f"{kind}_probability": 1.0 for kind in KINDS[preset]}
    everything = dataclasses.replace(preset, **all_kinds)
    hq = torch.rand(1, 3, height, width, generator=seeded(seed))
    result = degrade(hq, everything, generator=seeded(seed))
    assert result.lq.shape == hq.shape and result.damage.shape == (1, 1, height, width)
    assert set(result.damage.unique().tolist()) <= {0.0, 1.0}
    assert float(result.lq.min()) >= 0 and float(result.lq.max()) <= 1


@pytest.mark.parametrize("change, pixels", [(0.19, 0), (0.21, 1), (-0.35, 1), (0.45, 5), (-0.9, 9)])
def test_a_pixel_is_visible_by_its_change(change, pixels):
    """A quarter of the change is left at the pixel, an eighth beside it, a sixteenth at its
    corners."""
    picture = torch.full((1, 3, 9, 9), 0.5)
    damaged = picture.clone()
    damaged[:, 1, 4, 4] += change
    assert int(visible_damage(damaged, picture).sum()) == pixels


def test_discs_cover_their_area_and_stay_in_the_picture():
    coverage = torch.zeros(40, 40)
    paint_discs(coverage, torch.tensor([[20.0, 20.0]]), torch.tensor([6.0]), torch.tensor([1.0]))
    assert float(coverage.sum()) == pytest.approx(math.pi * 36, rel=0.03)
    assert float(coverage[20, 20]) == 1 and float(coverage[0, 0]) == 0
    outside = torch.tensor([[-30.0, 5.0], [5.0, 90.0]])
    before = coverage.clone()
    paint_discs(coverage, outside, torch.full((2,), 3.0), torch.ones(2))
    assert torch.equal(before, coverage)
    # At the border a part of it is there, and nothing on the other side.
    paint_discs(coverage, torch.tensor([[0.0, 39.0]]), torch.tensor([3.0]), torch.tensor([0.5]))
    assert float(coverage[0, 39]) == 0.5 and float(coverage[:, 0].max()) == 0


def test_a_curve_has_its_length_and_joins():
    points = curve(torch.tensor([5.0, 5.0]), 0.0, 70.0, 0.05, 20.0, seeded())
    steps = points.diff(dim=0).norm(dim=1)
    assert float(steps.sum()) == pytest.approx(70, abs=1.5)
    assert float(steps.max()) < 0.71


def test_a_fractal_line_joins_its_ends():
    start, end = torch.tensor([2.0, 3.0]), torch.tensor([50.0, 90.0])
    line = midpoint_line(start, end, 0.1, seeded())
    assert torch.equal(line[0], start) and torch.equal(line[-1], end)
    assert float(line.diff(dim=0).norm(dim=1).max()) < 3
    straight = midpoint_line(start, end, 0.0, seeded())
    along = (end - start) / (end - start).norm()
    across = (straight - start)[:, 0] * along[1] - (straight - start)[:, 1] * along[0]
    assert float(across.abs().max()) < 1e-4


def test_counts_grow_with_the_area():
    means = []
    for side in (128, 256, 512):
        random = seeded()
        means.append(sum(draw_number((4.0, 4.0), (side, side), random) for _ in range(400)) / 400)
    assert means == pytest.approx([1, 4, 16], rel=0.01)
    random = seeded()
    share = sum(draw_number((0.25, 0.25), (256, 256), random) for _ in range(2000)) / 2000
    assert share == pytest.approx(0.25, abs=0.04)


def test_blending_is_the_colour_where_it_covers():
    picture, coverage = shades(1)[0], torch.zeros(64, 80)
    coverage[:32] = 1
    blended = blend(picture, torch.tensor([1.0, 0.0, 0.5]), coverage)
    assert blended[:, 0, 0].tolist() == [1.0, 0.0, 0.5]
    assert torch.equal(blended[:, 32:], picture[:, 32:])


def test_outlines_are_read_from_a_folder(tmp_path):
    mark = Image.new("L", (50, 40))
    mark.paste(255, (20, 15, 30, 20))
    mark.save(tmp_path / "mark.png")
    (tmp_path / "read.txt").write_text("no picture")
    folder = str(tmp_path)
    covered = [draw_outlines(folder, (60, 60), seeded(seed)) for seed in range(8)]
    assert all(each.shape == (60, 60) for each in covered)
    # 50 pixels, at half to one and a half of the size.
    assert all(0.2 * 50 < float(each.sum()) < 2.5 * 50 for each in covered)
    assert torch.equal(covered[3], draw_outlines(folder, (60, 60), seeded(3)))
    marked = only(PAINTED, None, outlines=folder, outline_probability=1.0)
    assert any(
        float(degrade(shades(1), marked, generator=seeded(seed)).damage.max()) for seed in range(4)
    )


def test_a_folder_without_outlines_is_a_sentence(tmp_path):
    with pytest.raises(BIRError, match="PNG files in .* damage bright on black"):
        draw_outlines(str(tmp_path / "empty"), (8, 8), seeded())


@pytest.mark.parametrize(
    "kind, wrong, message",
    [
        (PaintedDamage, {"scratch_probability": 1.5}, "scratch_probability should be"),
        (PaintedDamage, {"dust": (5.0, 1.0)}, "dust should be a range"),
        (PaintedDamage, {"widths": (0.0, 1.0)}, "widths should be a range"),
        (TexturedDamage, {"fold_probability": -1.0}, "fold_probability should be"),
        (TexturedDamage, {"faded": (0.0, 0.6)}, "faded should be a range"),
        (TexturedDamage, {"scan": get_preset("simple_x4")}, "keep its size, but a scale of 4"),
    ],
)
def test_impossible_values_are_refused(kind, wrong, message):
    with pytest.raises(BIRError, match=message):
        kind(**{"scan": STILL, **wrong})


@pytest.mark.parametrize("preset", KINDS)
def test_only_the_size_of_the_picture_is_kept(preset):
    assert preset.with_scale(1) is preset
    with pytest.raises(BIRError, match="keeps the size of a picture, but a scale of 2"):
        preset.with_scale(2)
