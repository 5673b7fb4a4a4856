"""The console script `bir`; a sub-command is a file in `commands`, imported when it is called.

Each has `add_arguments`, `read`, from the parser's values to its frozen options, and `run`, which
takes these and knows nothing of a parser.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NoReturn

from . import __version__
from .command_line.console import open_closed_streams, require_output, write_error
from .errors import BIRError

COMMANDS = {
    "restore": "restore a picture or a folder of pictures",
    "models": "list the known model files: where to get them, licences, which are at hand",
    "inspect": "say what a checkpoint file is, or what is wrong with a picture",
    "verify": "check weight files and write a report on them",
    "scratches": "find scratches, creases, dust, hairs and stains in scans, as masks",
    "degrade": "make low-quality pictures from good ones",
    "prepare": "bring a published set of pictures, or frames, to what a training reads",
    "train": "train a model by a recipe",
    "evaluate": "measure models, or pictures that are restored already",
    "compare": "show pictures beside each other with what can be measured of them",
    "weights": "fetch the weights of measures and of a face detector",
    "embed": "write the embedding of a prompt to a file",
    "plan": "say what a restoration would take of the memory",
    "demo": "restore a damaged photograph with the built-in model and show the gain",
    "bench": "measure time and memory of the networks",
}
EXIT_FAILURE = 2


class _Parser(argparse.ArgumentParser):
    """One whose errors are a line like all others, without the usage, which --help shows."""

    def error(self, message: str) -> NoReturn:
        write_error(f"{message}; see `{self.prog} --help`.")
        self.exit(EXIT_FAILURE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        The exit code: 0, or 2 after a problem, which one line on stderr describes; `verify` gives 1
        where its report says that a file failed.

    Raises:
        SystemExit: with 2 after wrong arguments, and with 0 after --help and --version.
    """
    open_closed_streams()
    return exit_code(lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def _run(arguments: list[str]) -> int:
    logging.basicConfig(format="bir: %(message)s")
    parser = _Parser(prog="bir", description="Blind image restoration.")
    parser.add_argument("--version", action="version", version=f"bir {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="name", required=True)
    for name, summary in COMMANDS.items():
        subparsers.add_parser(name, help=summary, add_help=False)
    place = next((i for i, each in enumerate(arguments) if not each.startswith("-")), None)
    end = len(arguments) if place is None else place + 1
    name = parser.parse_args(arguments[:end]).name
    command = import_module(f".commands.{name}", __package__)
    own = _Parser(
        prog=f"bir {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_arguments(own)
    rest = arguments[end:]
    # Intermixed, an OUTPUT that may be left out is found behind options too; but `--` is lost.
    parse = own.parse_args if "--" in rest else own.parse_intermixed_args
    values = vars(parse(rest))
    return int(command.run(command.read(values)))


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns, or 2 with one line on stderr after a BIRError, Ctrl-C or lack of memory
    that nobody had a sentence for, or where lines of stdout were lost."""
    try:
        code = run()
        require_output()
        return code
    except BIRError as error:
        write_error(str(error))
        return EXIT_FAILURE
    except (RuntimeError, MemoryError) as error:
        # Imported late, since it needs torch; without torch nothing large was at work.
        from .memory import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        write_error(
            "Expected enough memory for the command, but it ran out; close other programs, or give "
            "smaller pictures or fewer at a time."
        )
        return EXIT_FAILURE
    except KeyboardInterrupt:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write("\n")
        write_error(
            "Expected to run to the end, but Ctrl-C came; finished files are complete and "
            "nothing else was written: run the command again."
        )
        return EXIT_FAILURE
