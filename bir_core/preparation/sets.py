"""The published sets: how their files lie, and what is made of them. Nothing is downloaded."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class SubImages:
    """Squares that cover a picture, in pixels of hq.

    Attributes:
        side: of each.
        step: from one to the next; the last one ends at the border.
    """

    side: int
    step: int

    def places(self, length: int) -> list[int]:
        """Where the squares begin along a side of the picture; none fits where it is shorter."""
        starts = list(range(0, length - self.side + 1, self.step))
        if starts and starts[-1] + self.side < length:
            starts.append(length - self.side)
        return starts


@dataclass(frozen=True, kw_only=True)
class Numbered:
    """Names that count: `first` to `last` with so many digits, ending in .png."""

    first: int
    last: int
    digits: int

    def names(self) -> list[str]:
        """All of them."""
        return [f"{number:0{self.digits}d}.png" for number in range(self.first, self.last + 1)]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures of a set that lie together.

    Attributes:
        folder: below that of the set; `*` stands for any name of a folder.
        source: what it is unpacked from, for the sentence that says that it is missing.
        count: of the pictures as published; None where that is not known.
        names: of the pictures as published, in this folder or folders in it; None: any.
        size: height and width of every picture; None: any.
        lq_folder: beside the last folder of `folder`, with low-quality pictures of equal names.
        output: folder of the results below that of all results.
        side: the pictures are resized to squares of this side; None: they keep their size.
        factors: of further sizes, and `shortest`, the shorter side of a last one.
        cuts: into which squares each is cut; None: it stays whole.
    """

    folder: str
    source: str
    count: int | None = None
    names: Numbered | None = None
    size: tuple[int, int] | None = None
    lq_folder: str | None = None
    output: str = ""
    side: int | None = None
    factors: tuple[float, ...] = ()
    shortest: int | None = None
    cuts: SubImages | None = None


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """A row of the table.

    Attributes:
        name: on the command line.
        title: what it is, for the help.
        parts: its pictures.
        md5: of archives that may lie beside them, as published.
        md5_list: a JSON file of the publishers with the hash of each picture; None: there is none.
        makes_lq: low-quality pictures are made by MATLAB's bicubic reduction.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    md5: tuple[tuple[str, str], ...] = ()
    md5_list: str | None = None
    makes_lq: bool = False


_DIV2K = Part(
    folder="DIV2K_train_HR",
    source="DIV2K_train_HR.zip",
    count=800,
    names=Numbered(first=1, last=800, digits=4),
)
_FLICKR2K = Part(
    folder="Flickr2K/Flickr2K_HR",
    source="Flickr2K.tar",
    count=2650,
    names=Numbered(first=1, last=2650, digits=6),
)
_SQUARES = SubImages(side=480, step=240)
# Those that several loaders of these sets have alike.
_DIV2K_MD5 = (("DIV2K_train_HR.zip", "bdc2d9338d4e574fe81bf7d158758658"),)
_DF2K_MD5 = (*_DIV2K_MD5, ("Flickr2K.tar", "5d3f39443d5e9489bff8963f8f26cb03"))


def _multiscale(part: Part) -> Part:
    return replace(
        part, factors=(0.75, 0.5, 1 / 3), shortest=400, cuts=SubImages(side=400, step=200)
    )


def _gopro(half: str, count: int, cuts: SubImages | None) -> Part:
    return Part(
        folder=f"{half}/*/sharp",
        source="GOPRO_Large.zip",
        count=count,
        size=(720, 1280),
        lq_folder="blur",
        output=half,
        cuts=cuts,
    )


_TABLE = (
    PictureSet(
        name="df2k",
        title="DIV2K and Flickr2K: pairs of squares of 480 pixels with a step of 240",
        parts=tuple(replace(part, cuts=_SQUARES) for part in (_DIV2K, _FLICKR2K)),
        md5=_DF2K_MD5,
        makes_lq=True,
    ),
    PictureSet(
        name="div2k",
        title="DIV2K alone: as df2k",
        parts=(replace(_DIV2K, cuts=_SQUARES),),
        md5=_DIV2K_MD5,
        makes_lq=True,
    ),
    PictureSet(
        name="df2k-multiscale",
        title="the same, also at 3/4, 1/2 and 1/3 of their size and with a shorter side of 400, in "
        "squares of 400 pixels with a step of 200, as Real-ESRGAN takes them",
        parts=tuple(_multiscale(part) for part in (_DIV2K, _FLICKR2K)),
        md5=_DF2K_MD5,
    ),
    PictureSet(
        name="ffhq",
        title="FFHQ, from 1024 x 1024 to 512 x 512 pixels",
        parts=(
            Part(
                folder="images1024x1024",
                source="the folder images1024x1024 of the publishers",
                count=70000,
                names=Numbered(first=0, last=69999, digits=5),
                size=(1024, 1024),
                side=512,
            ),
        ),
        md5_list="ffhq-dataset-v2.json",
    ),
    PictureSet(
        name="gopro",
        title="GoPro: pairs of squares of 512 pixels with an overlap of 256; the test pairs whole",
        parts=(
            _gopro("train", 2103, SubImages(side=512, step=256)),
            _gopro("test", 1111, None),
        ),
    ),
)
SETS: dict[str, PictureSet] = {row.name: row for row in _TABLE}
