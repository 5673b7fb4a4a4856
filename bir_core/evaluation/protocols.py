"""How the papers measure, by name."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """A row of the table.

    Attributes:
        name: on the command line.
        metrics: names in `metrics.METRICS`.
        border: pixels that PSNR and SSIM leave out on each side.
        multiple: originals are cut at the right and the bottom to multiples of this.
        pictures: what the paper measures.
        remark: what is particular, or could not be checked.
    """

    name: str
    metrics: tuple[str, ...]
    pictures: str
    border: int = 0
    multiple: int = 1
    remark: str = ""


# Papers: DiffIR is Xia et al., ICCV 2023; DiffBIR is Lin et al., ECCV 2024.
_TABLE = (
    Protocol(
        "diffir-realsr",
        ("psnr_y", "ssim_y", "lpips_vgg", "dists"),
        "RealSRSet (Canon test), NTIRE2020 track 1; x4",
        border=4,
        remark="8-bit pictures; LPIPS and DISTS without a border",
    ),
    Protocol(
        "diffir-srgan",
        ("psnr_y", "ssim_y", "lpips_alex"),
        "Set14, Urban100, Manga109, General100, DIV2K100; x4",
        border=4,
        multiple=4,
        remark="8-bit pictures; LPIPS without a border",
    ),
    Protocol(
        "diffir-deblur",
        ("psnr_rgb", "ssim_volume"),
        "GoPro, HIDE",
        remark="as MATLAB computes them from 8-bit RGB",
    ),
    Protocol(
        "diffir-inpainting",
        ("fid", "lpips_vgg", "ssim_zero"),
        "30000 Places validation pictures of 512x512, 2000 CelebA-HQ of 256x256",
        remark="of composited results, against the originals",
    ),
    Protocol(
        "diffbir-synthetic",
        ("psnr_rgb", "ssim_rgb", "lpips_alex", "musiq", "maniqa", "clip_iqa"),
        "degraded pictures with originals",
        remark="colour space, LPIPS network and training set of MANIQA are this package's choice",
    ),
    Protocol(
        "diffbir-real",
        ("musiq", "maniqa", "clip_iqa"),
        "real pictures without originals, such as RealSRSet and Real47",
        remark="the training set of MANIQA is this package's choice",
    ),
    Protocol(
        "diffbir-face",
        ("psnr_rgb", "ssim_rgb", "lpips_alex", "fid", "identity"),
        "aligned faces of 512x512 with originals, such as CelebA-Test",
        remark="colour space, LPIPS network, set of FID and identity network are this package's "
        "choice",
    ),
    Protocol(
        "diffbir-face-real",
        ("fid",),
        "aligned faces of 512x512 without originals, such as LFW-Test",
        remark="the set of FID is --reference, such as FFHQ at 512x512",
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _TABLE}
