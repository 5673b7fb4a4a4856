"""The command line before any sub-command, and the package's public names."""

import subprocess
import sys

import pytest
from command_line import ROOT

import bir_core
from bir_core.cli import COMMANDS, main


def run_python(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_help_names_every_command_without_importing_torch():
    done = run_python("-X", "importtime", "-m", "bir_core", "--help")
    assert done.returncode == 0
    assert all(f"    {name} " in done.stdout for name in COMMANDS)
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
