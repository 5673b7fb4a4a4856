"""The one exception for problems that the user can mend, with the kinds that a program acts on."""

# Where ComfyUI has loaded this package the module's name is a path, which it would show the user of
# a stock node that ends with one of these.
_MODULE = "bir_core.errors"


class BIRError(Exception):
    """A problem in what the user gave: the message is one sentence that says what was expected,
    what came and what to do. The command line prints it and exits with code 2; a node shows it."""

    __module__ = _MODULE


class OutOfMemory(BIRError, MemoryError):
    """The memory ran out, and there is nothing smaller to try here. Whoever can try something
    smaller takes it for lack of memory like any other."""

    __module__ = _MODULE


class NotFinite(BIRError, FloatingPointError):
    """NaN or infinity came.

    Attributes:
        what: held them.
    """

    __module__ = _MODULE

    def __init__(self, sentence: str, what: str = "") -> None:
        super().__init__(sentence)
        self.what = what


def shown(text: object, most: int = 100) -> str:
    """A text from outside, such as a name in a file, fit for a sentence: without line breaks and
    other characters that cannot be printed, and cut after `most` characters."""
    printable = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in str(text)[: most + 1]
    )
    return printable if len(printable) <= most else f"{printable[:most]}..."


def shown_path(path: object) -> str:
    """A path, fit for a sentence."""
    return shown(path, 4096)
