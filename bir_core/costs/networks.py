"""How each kind of network is called on a picture, for its cost; and the published networks, which
are known without their files."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.architectures import ARCHITECTURES
from ..checkpoints.loading import networks_of, outline
from ..diffbir.restoration_modules import load_restoration_module, spandrel_problem
from ..errors import BIRError
from ..latents import LATENT_FACTOR
from ..networks.diffir_prior import IPR_LENGTH
from ..networks.ir_controlnet import HINT_CHANNELS
from ..networks.text_encoder import CONTEXT_LENGTH
from .counting import Cost, count

Size = tuple[int, int]  # height, width in pixels
RGB = 3
META = torch.device("meta")
# What DiffIR's authors print for x4 at 256 x 256 pixels (ICCV 2023, real-world super-resolution).
PRINTED_NAME, PRINTED_SIZE, PRINTED_MULTIPLY_ADDS = "diffir_s2 realsr_x4", (256, 256), 0.74e12
# What the official code pads the inputs of these to.
PADDED_MULTIPLES = {"SCUNet": 64}


@dataclass(frozen=True)
class Counted:
    """A network, and what one call of it on a picture takes.

    Attributes:
        name: of the architecture, and the published variant if it is one.
        size: height and width in pixels of what it sees, padded to what the network takes; for
            networks on latents that of their picture.
        parts: of `counting.count`.
    """

    name: str
    size: Size
    parts: dict[str, Cost]

    @property
    def printed(self) -> float | None:
        """The multiply-adds that its paper prints for this size, if it does."""
        known = (self.name, self.size) == (PRINTED_NAME, PRINTED_SIZE)
        return PRINTED_MULTIPLY_ADDS if known else None


def _maps(*shape: int) -> Tensor:
    return torch.zeros(shape, device=META)


def _in_latents(size: Size, channels: int) -> Tensor:
    return _maps(1, channels, size[0] // LATENT_FACTOR, size[1] // LATENT_FACTOR)


def _diffir(network: Any, size: Size) -> Callable[[nn.Module], object]:
    lq, noise = _maps(1, network.config.in_channels, *size), _maps(1, IPR_LENGTH)
    return lambda network: network(lq, noise)


def _diffir_stage1(network: Any, size: Size) -> Callable[[nn.Module], object]:
    height, width = (side * network.config.scale for side in size)
    lq, hq = _maps(1, network.config.in_channels, *size), _maps(1, RGB, height, width)
    return lambda network: network(lq, hq)


def _picture(network: Any, size: Size) -> Callable[[nn.Module], object]:
    picture = _maps(1, RGB, *size)
    return lambda network: network(picture)


def _unet(network: Any, size: Size) -> Callable[[nn.Module], object]:
    x, timesteps = _in_latents(size, network.config.in_channels), _maps(1)
    context = _maps(1, CONTEXT_LENGTH, network.config.context_dim)
    return lambda network: network(x, timesteps, context)


def _controlnet(network: Any, size: Size) -> Callable[[nn.Module], object]:
    x, timesteps = _in_latents(size, network.config.in_channels), _maps(1)
    hint, context = (
        _in_latents(size, HINT_CHANNELS),
        _maps(1, CONTEXT_LENGTH, network.config.context_dim),
    )
    return lambda network: network(x, hint, timesteps, context)


def _vae(network: Any, size: Size) -> Callable[[nn.Module], object]:
    picture = _maps(1, RGB, *size)
    return lambda network: network.decode(network.encode(picture))  # type: ignore[operator]


def _text(network: Any, size: Size) -> Callable[[nn.Module], object]:
    tokens = torch.zeros(1, network.config.length, dtype=torch.int64, device=META)
    return lambda network: network(tokens)


@dataclass(frozen=True, kw_only=True)
class Calling:
    """A row of the table.

    Attributes:
        inputs: from a network on `meta` and the size of a picture to what calls it once.
        depth: of the names of its parts, see `counting.count`.
        multiple: pixels of the picture for one of `config.size_multiple`.
    """

    inputs: Callable[[Any, Size], Callable[[nn.Module], object]]
    depth: int = 1
    multiple: int = 1


# By `Architecture.name`.
CALLS = {
    "diffir_s2": Calling(inputs=_diffir, depth=2),
    "diffir_s1": Calling(inputs=_diffir_stage1, depth=2),
    "ir_controlnet": Calling(inputs=_controlnet, multiple=LATENT_FACTOR),
    "sd_unet": Calling(inputs=_unet, multiple=LATENT_FACTOR),
    "swinir": Calling(inputs=_picture),
    "compact": Calling(inputs=_picture),
    "damage_finder": Calling(inputs=_picture),
    "estimator": Calling(inputs=_picture),
    "sd_vae": Calling(inputs=_vae),
    "text_encoder": Calling(inputs=_text),
}


def count_network(network: Any, architecture: str, name: str, size: Size) -> Counted:
    """The cost of one call.

    Args:
        network: on `meta`, of the row `architecture` of `CALLS`.
        name: of `Counted`.
        size: height and width in pixels of the picture.
    """
    calling = CALLS[architecture]
    multiple = network.config.size_multiple * calling.multiple
    height, width = (side + -side % multiple for side in size)
    call = calling.inputs(network, (height, width))
    return Counted(name, (height, width), count(network, call, depth=calling.depth))


def _published(architecture: str, config: Any) -> nn.Module:
    row = next(row for row in ARCHITECTURES if row.name == architecture)
    with META:
        network: nn.Module = row.build(config)
    return network.eval()


def _by_variant() -> dict[str, tuple[str, str, Any]]:
    """From the names of published networks to their row, their variant, and their sizes: a DiffIR
    is called by its variant, the others, which have one, by their architecture."""
    found = {}
    for row in ARCHITECTURES:
        for variant, config in row.variants.items():
            name = row.name
            if name.startswith("diffir"):
                name = variant if name == "diffir_s2" else f"{variant}_s1"
            found[name] = (row.name, variant, config)
    return found


PUBLISHED = _by_variant()
# Of those that spandrel builds.
FOREIGN = ("bsrnet", "scunet")


def _foreign(name: str) -> nn.Module:
    """BSRNet or SCUNet on `meta`.

    Raises:
        BIRError: spandrel cannot be used.
    """
    problem = spandrel_problem()
    if problem is not None:
        raise BIRError(
            f"Expected the package spandrel, which knows the network {name}, but it {problem}."
        )
    if name == "bsrnet":
        from spandrel.architectures.ESRGAN import ESRGAN

        return ESRGAN(scale=4).to(META).eval()
    from spandrel.architectures.SCUNet import SCUNet

    return SCUNet().to(META).eval()


def count_foreign(network: nn.Module, name: str, size: Size) -> Counted:
    """The cost of a network of spandrel's on a picture of a size in pixels.

    Args:
        network: on `meta`.
        name: of its architecture.
    """
    multiple = PADDED_MULTIPLES.get(name, 1)
    height, width = (side + -side % multiple for side in size)
    call = _picture(network, (height, width))
    return Counted(name, (height, width), count(network, call))


def count_published(name: str, size: Size) -> Counted:
    """The cost of a network of `PUBLISHED` or `FOREIGN`, by its name.

    Raises:
        BIRError: one of the latter, and spandrel cannot be used.
    """
    if name in FOREIGN:
        known = {"bsrnet": "RRDBNet", "scunet": "SCUNet"}[name]
        return count_foreign(_foreign(name), known, size)
    architecture, variant, config = PUBLISHED[name]
    title = f"{architecture} {variant}"
    return count_network(_published(architecture, config), architecture, title, size)


def count_file(source: str, size: Size) -> list[Counted]:
    """The cost of every network in a file, or of a built-in one, on a picture of a size in pixels.

    Raises:
        BIRError: unreadable, or of no network that is known here or to spandrel.
    """
    held = networks_of(source)
    if not held:
        module = load_restoration_module(source)
        assert module.network is not None
        return [count_foreign(module.network.to(META), module.name, size)]
    found = []
    for row in held:
        network = outline(source, architecture=row.name)
        info: Any = network.info
        found.append(count_network(network, row.name, f"{row.name} {info.variant}", size))
    return found
