"""Whole photos with faces: what goes to which pipeline, where it comes back, sizes and seeds."""

import math

import pytest
import torch
from diffbir_models import TINY_SWINIR, filled, tiny_networks

from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings, official_settings
from bir_core.errors import BIRError
from bir_core.faces.alignment import TEMPLATE
from bir_core.faces.pipeline import restore_photo
from bir_core.images import resize
from bir_core.networks.swinir import SwinIR

EMPTY = torch.zeros(1, 77, 32)
QUICK = DiffBIRSettings(steps=1, sampler="euler", cfg=1.0, short_side=0)


class Pipeline:
    """Stands for a DiffBIR: enlarges, applies a function, and notes its calls."""

    def __init__(self, change=lambda image: image, version="v2.1"):
        self.change, self.version, self.calls = change, version, []

    def __call__(self, image, prompt, negative, *, upscale_by, callback, **options):
        self.calls.append({"image": image, "prompt": prompt, "negative": negative, **options})
        callback("sampling", 1, 2)
        size = [int(side * upscale_by) for side in image.shape[-2:]]
        return self.change(resize(image, *size).clamp(0, 1))


def face_at(x, y, scale, angle=0.0):
    """Landmarks (1, 5, 2) of a face whose centre is at (x, y)."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return ((scale * (TEMPLATE.float() - 255.5)) @ turn.T + torch.tensor([x, y]))[None]


def waves(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (
        0.5 + 0.4 * torch.stack([torch.sin(x / 9), torch.cos(y / 7), torch.sin((x + y) / 8)])[None]
    )


def photo(image, detect, *, background=None, faces=None, **options):
    background, faces = background or Pipeline(), faces or Pipeline()
    return restore_photo(
        image, EMPTY, EMPTY, background=background, faces=faces, detect=detect, **options
    )


@pytest.mark.parametrize(
    ("size", "upscale_by"), [((60, 90), 2.0), ((301, 203), 1.7), ((600, 700), 1.0)]
)
def test_untouched_faces_come_back_where_they_were(size, upscale_by):
    """Through the enlargement to a short side of 512 and back to the size that was asked for."""
    image, seen = waves(*size), []

    def detect(enlarged):
        seen.append(enlarged)
        height, width = enlarged.shape[-2:]
        return torch.cat([face_at(0.3 * width, 0.5 * height, 0.5, 0.4), face_at(width, 0, 0.6)])

    restored = photo(image, detect, upscale_by=upscale_by)
    output = int(size[0] * upscale_by), int(size[1] * upscale_by)
    assert restored.shape == (1, 3, *output)
    assert min(seen[0].shape[-2:]) == max(512, min(output))
    error = (restored - resize(image, *output).clamp(0, 1)).abs()
    # Half a pixel would be some 0.03 where nothing is reduced, and more elsewhere.
    assert error[..., 3:-3, 3:-3].max() < 0.02


def test_each_face_goes_through_its_pipeline():
    image = waves(600, 700)
    background, faces = Pipeline(lambda image: 0.5 * image), Pipeline(torch.zeros_like)
    places = [(200.0, 300.0), (500.0, 250.0)]
    restored = photo(
        image,
        lambda enlarged: torch.cat([face_at(x, y, 0.5) for x, y in places]),
        background=background,
        faces=faces,
        upscale_by=1.0,
        seed=7,
    )
    assert [call["task"] for call in background.calls] == ["sr"]
    assert [call["task"] for call in faces.calls] == ["face", "face"]
    assert [call["seed"] for call in background.calls + faces.calls] == [7, 7, 7]
    assert all(call["image"].shape == (1, 3, 512, 512) for call in faces.calls)
    assert all(call["settings"] == official_settings("v2.1") for call in faces.calls)
    for x, y in places:
        assert restored[..., int(y) - 80 : int(y) + 80, int(x) - 80 : int(x) + 80].max() == 0
    assert torch.equal(restored[..., 450:, :], 0.5 * image[..., 450:, :])


def test_parser_limits_what_is_pasted():
    def parse(face):
        labels = torch.zeros(1, 512, 512, dtype=torch.long)
        labels[:, :, :256] = 1
        return labels

    image = waves(512, 512)
    faces = Pipeline(torch.zeros_like)
    restored = photo(
        image, lambda enlarged: face_at(255.5, 255.5, 0.9), faces=faces, parse=parse, upscale_by=1.0
    )
    assert restored[0, :, 255, 150].max() < 0.01
    assert (restored - image)[0, :, 255, 350:].abs().max() < 0.01


def test_no_face_is_the_background(caplog):
    image = waves(40, 50)
    faces = Pipeline()
    none = torch.zeros(0, 5, 2)
    for landmarks in (none, face_at(100, 100, 4.9 / 126)):
        restored = photo(image, lambda enlarged, found=landmarks: found, faces=faces)
        assert torch.equal(restored, resize(image, 160, 200).clamp(0, 1))
        assert "No face found" in caplog.text
        caplog.clear()
    assert faces.calls == []
    photo(image, lambda enlarged: face_at(100, 100, 5.1 / 126), faces=faces)
    assert len(faces.calls) == 1 and caplog.text == ""


def test_progress_names_the_face():
    told = []
    photo(
        waves(64, 64),
        lambda enlarged: torch.cat([face_at(150, 200, 0.2), face_at(300, 200, 0.2)]),
        callback=lambda *step: told.append(step),
    )
    names = ["sampling", "face 1 of 2: sampling", "face 2 of 2: sampling"]
    assert told == [(name, 1, 2) for name in names]


def test_pictures_of_a_batch_are_apart():
    """Each has its own faces, prompts and seed."""
    images = torch.cat([waves(96, 128), waves(96, 128).flip(-1)])
    prompts = torch.stack([torch.full((77, 32), float(index)) for index in range(2)])
    found = [face_at(200, 200, 0.2), torch.zeros(0, 5, 2)]
    faces = Pipeline(torch.zeros_like)
    answers = iter(found)
    restored = restore_photo(
        images,
        prompts,
        EMPTY,
        background=Pipeline(),
        faces=faces,
        detect=lambda enlarged: next(answers),
        seed=3,
    )
    answers = iter(found[::-1])
    swapped = restore_photo(
        images.flip(0),
        prompts.flip(0),
        EMPTY,
        background=Pipeline(),
        faces=faces,
        detect=lambda enlarged: next(answers),
        seed=2,
    )
    assert torch.equal(restored, swapped.flip(0))
    assert [call["seed"] for call in faces.calls] == [3, 3]
    for call in faces.calls:
        assert torch.equal(call["prompt"], prompts[:1]) and call["negative"] is EMPTY


@pytest.fixture(scope="module")
def real():
    networks = tiny_networks()
    swinir = filled(SwinIR(TINY_SWINIR), 5000)
    return {
        "background": DiffBIR(**networks, version="v2.1"),
        "faces": DiffBIR(**networks, stage1=swinir, version="v2.1"),
    }


def test_face_does_not_depend_on_the_others(real):
    """Neither on how many there are nor on their order."""
    image = waves(96, 300)
    left, right = face_at(60, 48, 0.15), face_at(230, 48, 0.15, 0.3)
    options = {"upscale_by": 1.0, "settings": QUICK, "seed": 5, **real}
    alone = photo(image, lambda enlarged: left, **options)
    both = photo(image, lambda enlarged: torch.cat([right, left]), **options)
    assert torch.equal(alone[..., :150], both[..., :150])
    assert (alone - both)[..., 200:260].abs().max() > 0.01
    plain = real["background"](
        image, EMPTY, EMPTY, **{name: options[name] for name in ("upscale_by", "settings", "seed")}
    )
    assert torch.equal(alone[..., 150:], plain[..., 150:])
    assert (alone - plain)[..., 20:100].abs().max() > 0.01


def test_faces_of_a_grey_picture_are_grey():
    grey = waves(96, 96).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    faces = Pipeline()
    restored = photo(
        grey, lambda enlarged: face_at(48, 48, 0.1), faces=faces, upscale_by=1.0, settings=QUICK
    )
    assert restored.shape == (1, 3, 96, 96)
    assert (restored[:, 0] - restored[:, 2]).abs().max() < 1e-5
    seen = faces.calls[0]["image"]
    assert (seen[:, 0] - seen[:, 2]).abs().max() < 1e-5


@pytest.mark.parametrize("versions", [("v1", "v2"), ("v2.1", "v1")])
def test_v1_is_refused(versions):
    background, faces = (Pipeline(version=version) for version in versions)
    with pytest.raises(BIRError, match="v2 or v2.1") as caught:
        photo(waves(8, 8), lambda enlarged: None, background=background, faces=faces)
    assert str(caught.value).count(". ") == 0
    assert background.calls == []


@pytest.mark.parametrize("found", [torch.zeros(3, 10), torch.zeros(2, 68, 2)])
def test_detector_with_other_landmarks_is_said(found):
    with pytest.raises(BIRError, match=r"\(N, 5, 2\)"):
        photo(waves(8, 8), lambda enlarged: found)


def test_landmarks_that_are_not_finite_are_said():
    with pytest.raises(BIRError, match="finite"):
        photo(waves(8, 8), lambda enlarged: torch.full((1, 5, 2), torch.nan))
