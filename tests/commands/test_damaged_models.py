"""Every command that loads weights reads them in one way, and says the same of damaged ones."""

import pytest
from command_line import run_here
from damaged_files import with_members, written
from training_pictures import write_pictures

from bir_core.networks.compact import CompactConfig, CompactRestorer


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures, and a model whose archive has members that are too short."""
    folder = tmp_path_factory.mktemp("files")
    write_pictures(folder / "pictures", count=1)
    network = CompactRestorer(CompactConfig(scale=1, features=4, layers=1))
    whole = written({"params": network.state_dict()}, "zip")

    def shorter(members):
        return [(n, data[:-1] if n.endswith("data/0") else data) for n, data in members]

    (folder / "model.pth").write_bytes(with_members(whole, shorter))
    return folder


PICTURES, MODEL, OUT = "pictures", "model.pth", "OUT"
LINES = {
    "inspect": (MODEL,),
    "restore": ("pictures/picture_0.png", OUT, "--model", MODEL),
    "evaluate": (PICTURES, "--model", MODEL),
    "plan": ("64x64", "--model", MODEL),
    "embed": ("a house", OUT, "--base", MODEL),
    "train": ("smoke_s2", "--data", PICTURES, "--output", OUT, "--stage1", MODEL),
}


@pytest.mark.parametrize("command", LINES)
def test_a_damaged_model_is_one_line(files, tmp_path, command):
    names = {OUT: tmp_path / "out", MODEL: files / MODEL, PICTURES: files / PICTURES}
    line = [names.get(part, part) for part in LINES[command]]
    line = [files / part if str(part).endswith(".png") else part for part in line]
    device = () if command in ("inspect", "embed") else ("--device", "cpu")
    finished = run_here(command, *line, *device)
    assert finished.returncode == 2 and finished.stdout == ""
    assert finished.stderr.startswith("bir: Expected a complete PyTorch file, but ")
    assert "the member data/0 is" in finished.stderr and finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
