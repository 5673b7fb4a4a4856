"""The files that a training starts from."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import BIRError


@dataclass(frozen=True, kw_only=True)
class StartFiles:
    """Checkpoints by their part in a training; None where none was given. The text of each is its
    help on the command line."""

    stage1: Path | None = field(
        default=None, metadata={"help": "DiffIR stage 1, which gives stage 2 and the GAN its prior"}
    )
    # Not `start`: torchrun takes --start for one of its own options.
    start_from: Path | None = field(
        default=None,
        metadata={"help": "model to go on from, instead of new weights; also builtin-x4 and alike"},
    )
    base: Path | None = field(default=None, metadata={"help": "Stable Diffusion, for DiffBIR"})
    restoration_module: Path | None = field(
        default=None, metadata={"help": "stage 1 of DiffBIR, which cleans what stage 2 sees"}
    )

    perceptual: Path | None = field(
        default=None,
        metadata={
            "help": "weights of a perceptual loss: VGG19 for the GAN stage and tables of losses "
            "(default: torch.hub's copy), the ADE20k encoder for inpainting"
        },
    )

    def given(self) -> dict[str, Path]:
        """Those that came, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: path for name, path in values.items() if path is not None}


def require_files(
    files: StartFiles,
    needed: tuple[str, ...],
    one_of: tuple[str, ...],
    optional: tuple[str, ...],
    method: str,
) -> None:
    """Raise BIRError unless the files of a method came, and no others.

    Args:
        needed: names of those that it cannot do without.
        one_of: names of which it needs at least one.
        optional: names of those that it also takes.
    """
    given = files.given()
    for names in (*((name,) for name in needed), *([one_of] if one_of else [])):
        if not given.keys() & set(names):
            raise BIRError(
                f"A recipe of {method} should have a file to start from, but none came; give it "
                f"with {' or '.join(map(_option, names))}."
            )
    for name, path in given.items():
        if name not in (*needed, *one_of, *optional):
            raise BIRError(
                f"A recipe of {method} takes no {_option(name)}, but the file {path} came; leave "
                "it out, or choose another recipe."
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
