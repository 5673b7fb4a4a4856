"""What is chosen for which damage."""

from dataclasses import replace

import pytest
import torch
from estimates import CLEAN

from bir_core.choosing import Choice, carry_out, choose
from bir_core.choosing.batches import of_batch
from bir_core.choosing.rule import CLEANER, FAITHFUL, GENTLE, LEAST_FIDELITY, SHARP, TWICE
from bir_core.errors import BIRError
from bir_core.estimate import Measured
from bir_core.weights import BUILTIN_NAMES


def damaged(
    noise=None, grey=0.1, jpeg=None, blur=None, enlargement=None, sharpness=None, spread=0.0
):
    """`CLEAN` with some damage, whose estimate is off by `spread` of it."""

    def measured(value, clean):
        return clean if value is None else Measured(float(value), value * spread)

    return replace(
        CLEAN,
        noise_sigma=measured(noise, CLEAN.noise_sigma),
        noise_grey=grey,
        jpeg_quality=measured(jpeg, None),
        blur_sigma=measured(blur, CLEAN.blur_sigma),
        enlargement=measured(enlargement, CLEAN.enlargement),
        sharpness=measured(sharpness, CLEAN.sharpness),
    )


def for_photo(found, scale=None):
    return choose(found, 512, 768, scale=scale)


def test_nothing_is_done_to_a_clean_picture():
    for scale in (None, 1):
        choice = for_photo(CLEAN, scale)
        assert choice.is_nothing and choice.model is None and choice.scale == 1
        assert choice.reasons[0].startswith("nothing to do")
    assert for_photo(damaged(jpeg=98)).is_nothing


@pytest.mark.parametrize(
    "found, model",
    [
        (damaged(jpeg=90), GENTLE),
        (damaged(jpeg=75), GENTLE),
        (damaged(jpeg=40), CLEANER),
        (damaged(noise=3), GENTLE),
        (damaged(noise=20), GENTLE),
        (damaged(noise=20, grey=0.9), CLEANER),
        (damaged(noise=20, jpeg=70), CLEANER),
    ],
)
def test_what_cleans_at_the_same_size(found, model):
    choice = for_photo(found)
    assert (choice.model, choice.scale, choice.reduce, choice.clean) == (model, 1, 1, None)
    assert choice.reasons[-1].startswith(model)
    assert any("damaged by" in reason for reason in choice.reasons)


@pytest.mark.parametrize(
    "found, reduce, model",
    [
        (damaged(enlargement=1.2), 1, None),
        (damaged(enlargement=2), 2, TWICE),
        (damaged(enlargement=4, jpeg=50), 4, FAITHFUL),
        (damaged(blur=0.3), 1, None),
        (damaged(blur=1.1), 2, TWICE),
        (damaged(blur=2.5), 4, FAITHFUL),
        (damaged(enlargement=3), 3, FAITHFUL),
        (damaged(blur=1.1, enlargement=2, noise=10), 4, FAITHFUL),
        # The network saw neither blur nor enlargement.
        (damaged(sharpness=0.1), 2, TWICE),
        (damaged(sharpness=0.1, jpeg=75, noise=2), 2, TWICE),
        (damaged(sharpness=0.1, blur=2.5), 4, FAITHFUL),
        (damaged(sharpness=0.2), 1, None),
        # Finer detail drowns in so much noise, and the network that enlarges cleans as well.
        (damaged(noise=20), 1, GENTLE),
        (damaged(noise=30), 2, TWICE),
    ],
)
def test_what_was_enlarged_or_blurred_is_reduced_first(found, reduce, model):
    choice = for_photo(found)
    assert (choice.reduce, choice.model, choice.scale) == (reduce, model, 1)
    assert any("reduced by" in reason for reason in choice.reasons) == (reduce > 1)


def test_doubtful_damage_is_left_alone():
    for certain in (
        damaged(noise=2),
        damaged(enlargement=1.8),
        damaged(blur=1),
    ):
        assert not for_photo(certain).is_nothing
    for doubtful in (
        damaged(noise=2, spread=1.5),
        damaged(enlargement=1.8, spread=1.5),
        damaged(blur=1, spread=1.5),
    ):
        assert for_photo(doubtful).is_nothing


def test_only_small_pictures_are_enlarged_without_being_asked():
    scales = [choose(CLEAN, side, side // 2, scale=None).scale for side in (64, 400, 800)]
    assert scales == [4, 2, 1]
    choice = choose(CLEAN, 100, 150)
    assert choice.model == SHARP and "150x100" in choice.reasons[0]
    # An enlarged one has no more detail than a network can make of it.
    assert choose(damaged(enlargement=4), 200, 200).scale == 1
    assert choose(damaged(enlargement=2), 200, 200).scale == 2
    # Nor has one whose detail drowned in noise.
    assert choose(damaged(noise=30), 200, 200).scale == 2


@pytest.mark.parametrize(
    "found, scale, clean, model",
    [
        (CLEAN, 2, None, TWICE),
        (CLEAN, 1.5, None, TWICE),
        (CLEAN, 4, None, SHARP),
        (CLEAN, 3, None, SHARP),
        (damaged(noise=8), 4, None, FAITHFUL),
        (damaged(jpeg=60), 4, None, FAITHFUL),
        (damaged(noise=25), 2, GENTLE, TWICE),
        (damaged(noise=25), 4, GENTLE, FAITHFUL),
        (damaged(noise=25, jpeg=60), 4, None, FAITHFUL),
    ],
)
def test_an_enlargement_that_was_asked_for(found, scale, clean, model):
    choice = for_photo(found, scale)
    assert (choice.scale, choice.clean, choice.model) == (scale, clean, model)
    assert any("as asked" in reason for reason in choice.reasons)


def test_more_damage_never_means_less_work():
    """What is done begins at some damage and does not end again."""

    def begins(found):
        done = [not for_photo(each).is_nothing for each in found]
        assert done == sorted(done) and not done[0] and done[-1]

    begins([damaged(noise=sigma / 4, spread=0.2) for sigma in range(100)])
    begins([damaged(jpeg=quality) for quality in range(100, 10, -1)])
    begins([damaged(blur=sigma / 10, spread=0.2) for sigma in range(30)])
    reduced = [for_photo(damaged(enlargement=1 + step / 10)).reduce for step in range(40)]
    assert reduced == sorted(reduced)


def test_diffbir_invents_more_where_more_is_lost():
    for kinds in (
        [damaged(noise=sigma) for sigma in range(3, 60, 3)],
        [damaged(jpeg=quality) for quality in range(90, 10, -5)],
        [damaged(enlargement=1 + step / 4) for step in range(3, 16)],
    ):
        choices = [for_photo(found, 4).diffbir for found in kinds]
        fidelities = [each.fidelity for each in choices]
        assert fidelities == sorted(fidelities, reverse=True)
        assert fidelities[0] > fidelities[-1] == LEAST_FIDELITY
        noises = [each.noise_aug for each in choices]
        assert noises == sorted(noises) and noises[0] == 0 < noises[-1]
    assert for_photo(damaged(noise=25)).diffbir.task == "denoise"
    for other in (for_photo(damaged(noise=25), 2), for_photo(damaged(jpeg=50))):
        assert other.diffbir.task == "sr"


def test_every_network_that_is_named_is_built_in():
    kinds = [
        damaged(noise, grey, jpeg, blur, enlargement)
        for noise, grey, jpeg, blur, enlargement in [
            (None, 0, None, None, None),
            (25, 0, None, None, None),
            (25, 1, 30, 1, 3),
        ]
    ]
    for scale in (None, 1, 2, 4, 8):
        for found in kinds:
            choice = for_photo(found, scale)
            assert {choice.model, choice.clean} - {None} <= set(BUILTIN_NAMES)


@pytest.mark.parametrize("height, width, scale", [(0, 4, None), (4, 4, 0.5), (4, 4, float("nan"))])
def test_impossible_sizes(height, width, scale):
    with pytest.raises(BIRError, match="Expected a picture of 1 pixel or more"):
        choose(CLEAN, height, width, scale=scale)


def test_a_batch_is_judged_by_its_middle():
    batch = [damaged(noise=20, jpeg=40), damaged(noise=22, jpeg=50), CLEAN]
    middle = of_batch(batch)
    assert middle.noise_sigma.value == 20 and middle.jpeg_quality.value == 50
    assert of_batch([CLEAN, CLEAN, damaged(jpeg=50)]).jpeg_quality is None
    assert of_batch([CLEAN]) == CLEAN


def test_carried_out_in_the_order_of_the_choice(monkeypatch):
    steps = []

    def restore(image, model, *, seed, strip, callback):
        steps.append((model, tuple(image.shape[-2:]), seed, strip))
        callback(1, 1)
        factor = {TWICE: 2, FAITHFUL: 4}.get(model, 1)
        return image.repeat_interleave(factor, -2).repeat_interleave(factor, -1)

    monkeypatch.setattr("bir_core.choosing.carrying_out.restore", restore)
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))
    choice = Choice(model=TWICE, scale=1.0, reduce=2, clean=GENTLE)
    told = []
    result = carry_out(
        image, choice, lambda name: name, seed=3, strip=2, report=lambda *each: told.append(each)
    )
    assert steps == [(GENTLE, (4, 7), 3, 2), (TWICE, (4, 7), 3, 2)]
    assert told == [("cleaning", 1, 1), ("restoring", 1, 1)]
    assert result.shape == image.shape
    assert carry_out(image, Choice(model=None, scale=1.0), lambda name: name) is image
    tall = carry_out(image, Choice(model=FAITHFUL, scale=2.5), lambda name: name)
    assert tall.shape == (1, 3, 22, 35)
    grey = image[:, :1].expand(1, 3, 9, 14)
    result = carry_out(grey, choice, lambda name: name)
    assert (result == result[:, :1]).all()
    pixel = carry_out(
        image[..., :1, :1], Choice(model=TWICE, scale=2.0, reduce=2), lambda name: name
    )
    assert pixel.shape == (1, 3, 2, 2)
