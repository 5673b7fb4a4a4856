from dataclasses import fields

import pytest
import torch

from bir_core.errors import BIRError
from bir_core.evaluation.listing import metrics_as_markdown, protocols_as_markdown
from bir_core.evaluation.measuring import Evaluation, Sample
from bir_core.evaluation.metrics import DEFAULT_METRICS, METRICS, Metric, Settings
from bir_core.evaluation.protocols import PROTOCOLS

CPU = torch.device("cpu")


def test_protocols_name_measures_of_the_table():
    assert set(DEFAULT_METRICS) <= set(METRICS)
    for protocol in PROTOCOLS.values():
        assert set(protocol.metrics) <= set(METRICS)


def test_protocols_are_those_of_the_papers():
    srgan, realsr = PROTOCOLS["diffir-srgan"], PROTOCOLS["diffir-realsr"]
    assert (srgan.border, srgan.multiple, "lpips_alex" in srgan.metrics) == (4, 4, True)
    assert (realsr.border, realsr.multiple, "lpips_vgg" in realsr.metrics) == (4, 1, True)
    assert PROTOCOLS["diffir-deblur"].metrics == ("psnr_rgb", "ssim_volume")
    real = (METRICS[name] for name in PROTOCOLS["diffbir-real"].metrics)
    assert {metric.compares for metric in real} == {"nothing"}


def test_the_list_says_where_weights_belong(tmp_path):
    lines = metrics_as_markdown(tmp_path).splitlines()
    assert len(lines) == 2 + len(METRICS)
    line = next(line for line in lines if line.startswith("| niqe "))
    niqe = METRICS["niqe"].files[0]
    assert str(tmp_path / niqe.path) in line and niqe.source in line and "absent" in line
    (tmp_path / niqe.path).parent.mkdir()
    (tmp_path / niqe.path).touch()
    line = next(line for line in metrics_as_markdown(tmp_path).splitlines() if "| niqe " in line)
    assert str(tmp_path / niqe.path) in line and "absent" not in line
    text = protocols_as_markdown()
    assert all(name in text for name in PROTOCOLS)


def evaluation(tmp_path, **changes):
    """Of a measure that is the mean of the picture."""
    settings = Settings(border=0, weights=tmp_path, device=CPU)
    given = {
        "name": "mean",
        "title": "mean",
        "compares": "nothing",
        "higher_is_better": True,
        "build": lambda settings: lambda restored, hq: restored.mean(),
    }
    assert set(given) <= {field.name for field in fields(Metric)}
    metric = Metric(**{**given, **changes})
    compares_sets = metric.compares == "others"
    return Evaluation([metric], settings, has_originals=False, has_reference=compares_sets)


def test_what_is_measured_is_the_saved_picture(tmp_path):
    measured = evaluation(tmp_path)
    measured.add(Sample("a.png", {"model": torch.full((1, 3, 4, 4), 0.4984)}, None))
    measured.add(Sample("b.png", {"model": torch.full((1, 3, 4, 4), 1.5)}, None))
    values = [row.values["mean"] for row in measured.rows()]
    assert values == pytest.approx([127 / 255, 1, (127 / 255 + 1) / 2])


def test_pictures_that_a_measure_cannot_take(tmp_path):
    small = Sample("a.png", {"model": torch.zeros(1, 3, 4, 8)}, None)
    with pytest.raises(BIRError, match="at least 5 pixels for mean, but a.png is 8x4"):
        evaluation(tmp_path, least_side=5).add(small)
    nothing = evaluation(tmp_path, build=lambda _: lambda restored, hq: restored.sum() / 0 * 0)
    with pytest.raises(BIRError, match="a number from mean, but a.png"):
        nothing.add(small)


def test_sets_are_compared_as_a_whole(tmp_path):
    def features(settings):
        return lambda restored, hq: restored[:, :2, 0, 0]

    measured = evaluation(tmp_path, compares="others", build=features)
    generator = torch.Generator().manual_seed(0)
    pictures = (torch.rand(4, 1, 3, 2, 2, generator=generator) * 255).round() / 255
    for picture in pictures:
        measured.add_reference(picture)
        measured.add(Sample("p", {"same": picture, "brighter": picture / 2 + 0.5}, None))
    *single, same, brighter = measured.rows()
    assert {row.values["mean"] for row in single} == {None}
    assert same.values["mean"] == pytest.approx(0, abs=1e-9)
    assert brighter.values["mean"] > 0.05
