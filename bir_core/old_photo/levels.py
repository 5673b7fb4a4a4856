"""What faded and turned brown: found, undone, and put back again."""

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional as F

from ..images import luma, require_image

Colour = tuple[float, float, float]
BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)
CHANNELS = ("red", "green", "blue")
# Pixels of the longer side at which brightness and tone are looked at: noise and grain, which are
# darker and brighter than anything in the picture, are averaged away.
LOOKED_AT = 768
# The share of the pixels that may be darker than black, or brighter than white.
EXTREME = 2e-4
# Pictures that never faded end so near to black and white, most of them.
USUAL_END = 0.02
# How much of the distance to black and white is undone, and of what range at most: a foggy day
# looks as a faded print does. On photographs that were faded by up to a quarter at either end this
# gains 6 dB on the average.
SHARE, FARTHEST = 0.7, 0.3
# What is not worth a change: so small a part of the range, so little tone, so little more of one
# colour than of another in what should be black.
LEAST_CHANGE, LEAST_TONE, LEAST_CAST = 0.01, 0.04, 0.05
# A print is toned, and no photograph in colours, where its channels follow from its brightness up
# to this, as the root of the mean square in [0, 1].
MONOCHROME = 0.012
# The share of the pixels that must follow; scratches that were not found are of any colour.
FOLLOWING = 0.97
# Brightness outside is too near the ends to tell a tone.
TOLD = (0.08, 0.92)
LEAST_TOLD = 64  # pixels


@dataclass(frozen=True)
class Levels:
    """How the values of a faded or toned print come from those before; of red, green and blue.

    Attributes:
        low, high: what black and white became, in [0, 1].
        powers: a grey g became g ** power; 1 without a tone.
    """

    low: Colour = BLACK
    high: Colour = WHITE
    powers: Colour = WHITE

    @property
    def changes(self) -> bool:
        """Whether there is anything to undo."""
        return self != Levels()

    def undone(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] as before it faded; what is beyond black and white is cut off."""
        low, high, powers = self._of_channels(image)
        undone: Tensor = ((image - low) / (high - low)).clamp(0, 1) ** (1 / powers)
        return undone

    def redone(self, image: Tensor) -> Tensor:
        """The other way round: of what `undone` gives the image again, but for what was cut off."""
        low, high, powers = self._of_channels(image)
        redone: Tensor = low + (high - low) * image**powers
        return redone

    def _of_channels(self, image: Tensor) -> list[Tensor]:
        values = (self.low, self.high, self.powers)
        return [image.new_tensor(value)[:, None, None] for value in values]

    @property
    def words(self) -> str:
        """What `undone` does, in one line, with the numbers that take it back."""
        parts = []
        if len(set(self.low)) == len(set(self.high)) == 1:
            if (self.low, self.high) != (BLACK, WHITE):
                low, high = self.low[0], self.high[0]
                parts.append(f"brightness {low:.2f} to {high:.2f} spread to 0 to 1")
        else:
            spread = (
                f"{name} {low:.2f} to {high:.2f}"
                for name, low, high in zip(CHANNELS, self.low, self.high, strict=True)
            )
            parts.append(f"the cast taken out: {', '.join(spread)} spread to 0 to 1")
        if self.powers != WHITE:
            powers = ", ".join(f"{power:.2f}" for power in self.powers)
            parts.append(f"the tone of the print taken out (powers {powers} put it back)")
        return " and ".join(parts) if parts else "levels as they were"


def find_levels(image: Tensor, damage: Tensor | None = None, *, keep_tone: bool = False) -> Levels:
    """How a print faded, and which cast or tone it has.

    A cautious guess: no more than `SHARE` of the fading, but of a toned print; a cast only where
    black is not black in one colour more than in another, since white things are coloured by the
    light; and a tone only where the whole print is of one colour.

    Args:
        image: (1, 3, H, W) in [0, 1], any size from 1 pixel on.
        damage: (1, 1, H, W), 1 where nothing is to be looked at; None for nowhere.
        keep_tone: leave a toned print in its colour.

    Raises:
        BIRError: an image of another kind.
    """
    require_image(image)
    pixels = _seen(image.float(), damage)
    brightness = luma(pixels[None, :, :, None]).flatten()
    faded, whole = (_alike(*_ends(brightness, share)) for share in (SHARE, 1.0))
    # Paper and ink of their own colours are tried second: the ends of three channels are told
    # less well than those of brightness.
    for print_levels in (whole, _apart(pixels, 1.0)):
        powers = _tone(print_levels.undone(pixels[None, :, :, None])[0, :, :, 0])
        if powers is not None:
            # What is toned is a print, and its fading no fog.
            toned = powers != WHITE or print_levels != whole
            return replace(print_levels, powers=powers) if toned and not keep_tone else faded
    cast = _apart(pixels, SHARE)
    return cast if max(cast.low) - min(cast.low) >= LEAST_CAST else faded


def _seen(image: Tensor, damage: Tensor | None) -> Tensor:
    """Means over small squares that are undamaged, (3, n); all of them where none is."""
    step = max(1, max(image.shape[-2:]) // LOOKED_AT)
    small = F.avg_pool2d(image, step, ceil_mode=True)
    pixels = small[0].flatten(1)
    if damage is None:
        return pixels
    whole = F.max_pool2d(damage.float(), step, ceil_mode=True).flatten() == 0
    return pixels[:, whole] if whole.any() else pixels


def _alike(low: float, high: float) -> Levels:
    """Those of a print that faded in all colours alike."""
    return Levels((low, low, low), (high, high, high))


def _apart(pixels: Tensor, share: float) -> Levels:
    """Those of a print that faded in each colour (3, n) by itself."""
    (red, dim_red), (green, dim_green), (blue, dim_blue) = (_ends(c, share) for c in pixels)
    return Levels((red, green, blue), (dim_red, dim_green, dim_blue))


def _ends(values: Tensor, share: float) -> tuple[float, float]:
    """What black and white became, with that share of the fading."""
    order = values.sort().values
    beyond = int(EXTREME * len(order))
    darkest, brightest = float(order[beyond]), float(order[-1 - beyond])
    low = share * min(FARTHEST, max(0.0, darkest - USUAL_END))
    high = 1 - share * min(FARTHEST, max(0.0, 1 - brightest - USUAL_END))
    return (low if low >= LEAST_CHANGE else 0.0, high if 1 - high >= LEAST_CHANGE else 1.0)


def _tone(pixels: Tensor) -> Colour | None:
    """The powers of a print without colours by its pixels (3, n), ones without a tone; None where
    it has colours, or where that cannot be told."""
    brightness = luma(pixels[None, :, :, None]).flatten()
    told = (brightness > TOLD[0]) & (brightness < TOLD[1])
    if int(told.sum()) < LEAST_TOLD:
        return None
    logs, brightness = pixels[:, told].clamp(min=1e-3).log(), brightness[told]
    of_brightness = brightness.log()
    powers = (logs @ of_brightness) / of_brightness.square().sum()
    follow = brightness ** powers[:, None]
    errors = (pixels[:, told] - follow).square().mean(0).sort().values
    if float(errors[: max(1, int(FOLLOWING * len(errors)))].mean().sqrt()) > MONOCHROME:
        return None
    if float((powers - 1).abs().max()) < LEAST_TONE:
        return WHITE
    red, green, blue = powers.tolist()
    return red, green, blue
