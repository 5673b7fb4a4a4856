"""The measures of `bir evaluate`, in one table: ours, and networks of pyiqa and facexlib."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoints.distances import DISTS_FILE, LPIPS_FILES, Network, read_dists, read_lpips
from ..memory import CPU
from ..metrics import Channel, gradient_share, psnr, ssim, ssim_volume
from ..networks.perceptual import VGG16, AlexNet
from .networks import ARCFACE_PATH, face_embedding, inception_features, pyiqa_network
from .weight_files import WeightFile


@dataclass(frozen=True)
class Settings:
    """What measures need to know.

    Attributes:
        border: pixels that PSNR and SSIM leave out on each side.
        weights: folder of the networks' files.
        device: where networks compute.
    """

    border: int
    weights: Path
    device: torch.device


# (restored, original or None), each (1, 3, H, W) in [0, 1] -> one number, or of a measure of sets
# (1, n) features of the first.
Measure = Callable[[Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Metric:
    """A row of the table.

    Attributes:
        name: on the command line and in CSV and JSON.
        title: in Markdown.
        compares: a picture with its `original`, `nothing`, or all pictures with a set of `others`.
        higher_is_better: or lower.
        decimals: in Markdown.
        least_side: of a picture, in pixels.
        files: weights that it needs.
        build: makes the measure.
    """

    name: str
    title: str
    compares: Literal["original", "nothing", "others"]
    higher_is_better: bool
    build: Callable[[Settings], Measure]
    decimals: int = 4
    least_side: int = 1
    files: tuple[WeightFile, ...] = ()


def _psnr(channel: Channel) -> Callable[[Settings], Measure]:
    return lambda settings: (
        lambda restored, hq: psnr(restored, _given(hq), channel=channel, border=settings.border)
    )


def _ssim(channel: Channel, *, zero_padding: bool = False) -> Callable[[Settings], Measure]:
    return lambda settings: (
        lambda restored, hq: ssim(
            restored,
            _given(hq),
            channel=channel,
            border=settings.border,
            zero_padding=zero_padding,
        )
    )


def _ssim_volume(settings: Settings) -> Measure:
    return lambda restored, hq: ssim_volume(restored, _given(hq), border=settings.border)


def _gradient_share(settings: Settings) -> Measure:
    return lambda restored, hq: gradient_share(restored, _given(hq), border=settings.border)


def _lpips(network: Network) -> Callable[[Settings], Measure]:
    return lambda settings: _distance(read_lpips(network, settings.weights), settings.device)


def _dists(settings: Settings) -> Measure:
    return _distance(read_dists(settings.weights), settings.device)


def _distance(network: nn.Module, device: torch.device) -> Measure:
    network = network.to(device)
    return lambda restored, hq: network(restored.to(device), _given(hq).to(device))


def _pyiqa(name: str) -> Callable[[Settings], Measure]:
    return lambda settings: pyiqa_network(name, settings.weights, settings.device)


def _niqe(settings: Settings) -> Measure:
    # It computes in float64, which not every device has.
    return pyiqa_network("niqe", settings.weights, CPU)


def _clip_iqa(settings: Settings) -> Measure:
    # By its path: by its name it would be downloaded again if its checksum were another.
    file = settings.weights / CLIP_RN50.path
    return pyiqa_network("clipiqa", settings.weights, settings.device, backbone=str(file))


def _fid(settings: Settings) -> Measure:
    features = inception_features(settings.weights, settings.device)
    return lambda restored, _: features(restored)


def _identity(settings: Settings) -> Measure:
    embedding = face_embedding(settings.weights, settings.device)
    return lambda restored, hq: F.cosine_similarity(embedding(restored), embedding(_given(hq)))


def _given(hq: Tensor | None) -> Tensor:
    assert hq is not None  # `Evaluation` asks for originals where a metric compares with them
    return hq


def _of_pyiqa(name: str) -> WeightFile:
    return WeightFile(
        f"pyiqa/{name}",
        f"published at https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/{name}",
    )


def _of_package(path: str) -> WeightFile:
    return WeightFile(path, "written by `bir weights measures`")


CLIP_RN50 = WeightFile(
    "clip/RN50.pt",
    "published at https://openaipublic.azureedge.net/clip/models/"
    "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
)
ARCFACE = WeightFile(
    ARCFACE_PATH,
    "published at https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
    "recognition_arcface_ir_se50.pth",
)
INCEPTION = _of_pyiqa("pt_inception-2015-12-05-6726825d.pth")

_TABLE = (
    Metric("psnr_y", "PSNR Y", "original", True, _psnr("y"), decimals=2),
    Metric("ssim_y", "SSIM Y", "original", True, _ssim("y")),
    Metric("psnr_rgb", "PSNR RGB", "original", True, _psnr("rgb"), decimals=2),
    Metric("ssim_rgb", "SSIM RGB", "original", True, _ssim("rgb")),
    Metric("gradients", "gradients", "original", True, _gradient_share, decimals=2),
    Metric("ssim_volume", "SSIM volume", "original", True, _ssim_volume),
    Metric("ssim_zero", "SSIM zero-padded", "original", True, _ssim("rgb", zero_padding=True)),
    Metric(
        "lpips_alex",
        "LPIPS AlexNet",
        "original",
        False,
        _lpips("alex"),
        least_side=AlexNet.least_sides[-1],
        files=(_of_package(LPIPS_FILES["alex"]),),
    ),
    Metric(
        "lpips_vgg",
        "LPIPS VGG",
        "original",
        False,
        _lpips("vgg"),
        least_side=VGG16.least_sides[-1],
        files=(_of_package(LPIPS_FILES["vgg"]),),
    ),
    Metric(
        "dists",
        "DISTS",
        "original",
        False,
        _dists,
        least_side=16,
        files=(_of_package(LPIPS_FILES["vgg"]), _of_package(DISTS_FILE)),
    ),
    Metric(
        "niqe",
        "NIQE",
        "nothing",
        False,
        _niqe,
        decimals=3,
        least_side=96,
        files=(_of_pyiqa("niqe_modelparameters.mat"),),
    ),
    Metric(
        "musiq",
        "MUSIQ",
        "nothing",
        True,
        _pyiqa("musiq"),
        decimals=2,
        files=(_of_pyiqa("musiq_koniq_ckpt-e95806b9.pth"),),
    ),
    Metric(
        "maniqa",
        "MANIQA",
        "nothing",
        True,
        _pyiqa("maniqa"),
        files=(_of_pyiqa("ckpt_koniq10k.pt"),),
    ),
    Metric(
        "clip_iqa",
        "CLIP-IQA",
        "nothing",
        True,
        _clip_iqa,
        least_side=32,
        files=(CLIP_RN50,),
    ),
    Metric("fid", "FID", "others", False, _fid, decimals=2, files=(INCEPTION,)),
    Metric("identity", "identity", "original", True, _identity, files=(ARCFACE,)),
)
METRICS = {metric.name: metric for metric in _TABLE}
DEFAULT_METRICS = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")
