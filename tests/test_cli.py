"""The command line before any sub-command, and the package's public names."""

import subprocess
import sys

import pytest
from command_line import ROOT, run_here

import bir_core
from bir_core.cli import COMMANDS, main
from bir_core.weights import BUILTIN_NAMES


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_help_names_every_command_without_importing_torch():
    done = run_python("-X", "importtime", "-m", "bir_core", "--help")
    assert done.returncode == 0
    words = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ")]
    assert set(COMMANDS) <= set(words)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not {name for name in imported if name.partition(".")[0] in ("torch", "numpy")}


def test_commands_start_without_kornia():
    """It takes a quarter of a second and more."""
    names = ", ".join(f"bir_core.commands.{name}" for name in COMMANDS)
    done = run_python("-c", f"import sys, {names}; print('kornia' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bir {name}")


@pytest.mark.parametrize(
    ("arguments", "words", "program"),
    [
        ((), "required: COMMAND", "bir"),
        (("absent",), "choose from", "bir"),
        (("--absent", "restore"), "unrecognized arguments: --absent", "bir"),
        (("restore",), "required: INPUT", "bir restore"),
        (("restore", "a", "b", "c"), "unrecognized arguments: c", "bir restore"),
        (("restore", "a", "--absent"), "unrecognized arguments: --absent", "bir restore"),
        (("plan", "8x8", "--memory", "6"), "such as 6GB", "bir plan"),
        (("weights", "absent"), "invalid choice: 'absent'", "bir weights"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, words, program, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr()
    assert end.value.code == 2 and said.out == ""
    assert said.err.startswith("bir: ") and said.err.count("\n") == 1
    assert words in said.err and said.err.endswith(f"; see `{program} --help`.\n")


def test_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"bir {bir_core.__version__}\n"


@pytest.mark.parametrize("command", ["restore", "inspect", "plan"])
def test_a_wrong_model_name_lists_the_right_ones(command):
    arguments = {"restore": ("absent.png", "--model"), "inspect": (), "plan": ("8x8", "--model")}
    done = run_here(command, *arguments[command], "builtin-x3")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "of the name builtin-x3;" in done.stderr
    assert all(name in done.stderr for name in BUILTIN_NAMES)


def test_public_names_are_there():
    for name in bir_core.__all__:
        assert getattr(bir_core, name) is not None
        assert name in dir(bir_core)
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = bir_core.absent


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("bir_core.prompts", "bir_core.diffbir.prompts", "load_embedding"),
        ("bir_core.face_restoration", "bir_core.faces.pipeline", "restore_photo"),
    ],
)
def test_old_places_still_work(old, new, name):
    script = f"import {old} as old, {new} as new; print(old.{name} is new.{name})"
    assert run_python("-c", script).stdout.strip() == "True"


def test_the_demo_goes_by_its_old_name():
    done = run_python("-m", "bir_core.demo", "--help")
    assert done.returncode == 0 and "bir demo" in done.stdout
