"""Pairs from the frames of videos."""

import pytest
import torch

from bir_core.degradations.frames import average_frames
from bir_core.errors import BIRError
from bir_core.pictures.files import Picture, read_picture, write_picture
from bir_core.preparation.frames import frame_jobs
from bir_core.preparation.jobs import run_jobs


def refuse(path, error):
    raise error


def video(folder, count, first=0, size=(6, 8)):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        generator = torch.Generator().manual_seed(number)
        image = torch.randint(0, 256, (1, 3, *size), generator=generator) / 255
        write_picture(folder / f"f{number}.png", Picture(image))
    return folder


@pytest.mark.parametrize("gamma", [2.2, 1.0])
def test_windows_follow_each_other_in_the_order_of_numbers(tmp_path, gamma):
    """f9 comes before f10; 11 frames are two windows of 5, and one is left out."""
    folder = video(tmp_path / "clip", 11, first=5)
    windows = frame_jobs(folder, tmp_path / "out", frames=5, gamma=gamma)
    assert windows.left_out == 1
    list(run_jobs(windows.jobs, 1, refuse))
    for middle in (7, 12):
        name = f"clip_f{middle}.png"
        frames = [
            read_picture(folder / f"f{number}.png").image
            for number in range(middle - 2, middle + 3)
        ]
        hq, lq = (read_picture(tmp_path / "out" / kind / name).image for kind in ("hq", "lq"))
        assert torch.equal(hq, frames[2])
        assert (lq - average_frames(frames, gamma)).abs().max() <= 0.501 / 255
    assert len(list((tmp_path / "out" / "lq").iterdir())) == 2


def test_videos_in_folders_do_not_mix(tmp_path):
    video(tmp_path / "in" / "a", 4)
    video(tmp_path / "in" / "b", 3)
    windows = frame_jobs(tmp_path / "in", tmp_path / "out", frames=3, gamma=2.2)
    names = [job.files[0].name for job in windows.jobs]
    assert names == ["a_f1.png", "b_f1.png"] and windows.left_out == 1


def test_frames_of_several_sizes_are_said(tmp_path):
    folder = video(tmp_path / "clip", 2)
    video(folder, 1, first=2, size=(6, 9))
    windows = frame_jobs(folder, tmp_path / "out", frames=3, gamma=2.2)
    with pytest.raises(BIRError, match="frames of one size, but 8x6 and 9x6"):
        list(run_jobs(windows.jobs, 1, refuse))
    assert not list((tmp_path / "out" / "lq").iterdir())


@pytest.mark.parametrize(
    "frames, gamma, message",
    [
        (4, 2.2, "odd number of frames from 3 on, .* but 4 came"),
        (1, 2.2, "but 1 came"),
        (5, 0.0, "gamma above 0"),
        (5, 2.2, "at least 5 frames of a video"),
    ],
)
def test_what_makes_no_pair_is_refused(tmp_path, frames, gamma, message):
    video(tmp_path / "clip", 3)
    with pytest.raises(BIRError, match=message):
        frame_jobs(tmp_path / "clip", tmp_path / "out", frames=frames, gamma=gamma)
