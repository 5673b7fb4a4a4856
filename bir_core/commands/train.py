"""`bir train`: train a network from a recipe."""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..command_line.options import Values, read_options, seed, write_line
from ..training.start_files import StartFiles


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What `bir train` is asked for; as its arguments.

    Attributes:
        files: that it starts from.
        changes: of the recipe, as for `load_recipe`.
        resume: "auto" or whether to.
    """

    recipe: str
    data: Path
    val: Path | None = None
    output: Path
    files: StartFiles
    resume: bool | Literal["auto"] = False
    changes: tuple[str, ...] = ()
    seed: int | None = None
    device: str = "auto"


def read(values: Values) -> TrainOptions:
    """The options by a parser's values."""
    return read_options(TrainOptions, {**values, "files": read_options(StartFiles, values)})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument(
        "recipe",
        help="name of a shipped recipe (see the README of bir_core/training) or a TOML file",
    )
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="folder of clean pictures (with subfolders lq and hq if the recipe trains on pairs), "
        "list of files, or WebDataset shards as a folder or a pattern shards-{000..099}.tar",
    )
    parser.add_argument(
        "--val",
        type=Path,
        help="held-out pictures, in any form of --data; default: those of the folder that the "
        "recipe names, if any",
    )
    parser.add_argument(
        "--output", required=True, type=Path, help="folder for the model, the state and the logs"
    )
    add_start_files(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        choices=("auto",),
        help="go on with the training in the output folder; auto: if there is one, else start",
    )
    add_changes(parser)
    parser.add_argument("--seed", type=seed, help="of the initial weights and of every draw")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--list",
        action=_WriteAndEnd,
        text=_recipe_list,
        nargs=0,
        help="write the shipped recipes and end",
    )
    parser.add_argument(
        "--show",
        action=_WriteAndEnd,
        text=_recipe_text,
        metavar="NAME",
        help="write the text of a recipe and end",
    )


class _WriteAndEnd(argparse.Action):
    """Ends the command like --help, before anything is missing.

    Args:
        text: what is written, from the option's value.
    """

    def __init__(self, *names: Any, text: Callable[[Any], str], **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.text = text

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        write_line(self.text(values))
        parser.exit()


def _recipe_list(_: Any) -> str:
    """A line for each shipped recipe: its name, and the first line of its comment."""
    from ..training.methods.table import recipe_text, shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names))
    comments = [recipe_text(name).partition("\n")[0].removeprefix("# ") for name in names]
    return "\n".join(
        f"{name:{width}}  {comment}" for name, comment in zip(names, comments, strict=True)
    )


def _recipe_text(name: str) -> str:
    from ..training.methods.table import recipe_text

    return recipe_text(name).rstrip()


def add_start_files(parser: argparse.ArgumentParser) -> None:
    """An option for each of `StartFiles`, which `read_options` reads again."""
    for file in fields(StartFiles):
        option = "--" + file.name.replace("_", "-")
        parser.add_argument(option, metavar="FILE", type=Path, help=file.metadata["help"])


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The option `--set`, whose values `load_recipe` takes as changes."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change a value of the recipe, for example --set data.batch=4; may be repeated",
    )


def run(options: TrainOptions) -> int:
    """Train; writes the path of the model to stdout.

    Raises:
        BIRError: see `load_recipe` and `run_recipe`.
    """
    from ..training.methods.table import load_recipe
    from ..training.run import run_recipe

    # Validation, and losses without a terminal.
    logging.getLogger("bir_core.training").setLevel(logging.INFO)
    changes = [*options.changes, *([] if options.seed is None else [f"seed={options.seed}"])]
    recipe = load_recipe(options.recipe, tuple(changes), options.files.start_from)
    model = run_recipe(
        recipe,
        data=options.data,
        output=options.output,
        validation=options.val,
        files=options.files,
        resume=options.resume,
        device=options.device,
    )
    # Here, as `run_recipe` says in a sentence that the package is absent.
    from accelerate import PartialState

    state = PartialState()
    if state.is_main_process:
        write_line(str(model))
    # A process that ended with the group open would abort where another closed its end first.
    state.destroy_process_group()
    return 0
