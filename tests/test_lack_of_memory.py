"""Memory that runs out at any operation of a restoration: the right picture, or a sentence."""

from functools import partial

import numpy as np
import pytest
import torch
from diffbir_models import tiny_networks
from PIL import Image
from tolerances import SPLIT_NETWORK
from torch.utils._python_dispatch import TorchDispatchMode

from bir_core import DiffBIR, DiffBIRSettings, cli, restore
from bir_core.diffbir.restoration_modules import in_strips
from bir_core.errors import BIRError
from bir_core.networks.compact import CompactConfig, CompactRestorer, draw_near_identity
from bir_core.networks.diffir import DiffIRStage2
from bir_core.networks.diffir_config import DiffIRConfig

FAILURES = [
    MemoryError(),
    RuntimeError("could not create a primitive descriptor for a convolution forward primitive"),
]
AT_ONCE = {"tile": 0, "vae_tile": 0, "sampler": "euler"}
GUIDED = {"guidance": 1.0, "guidance_space": "rgb"}


class Operations(TorchDispatchMode):
    """Counts the operations of torch, and lets some fail: the one with the number `first`, or all
    from there on."""

    def __init__(self, first=None, error=None, for_good=False):
        super().__init__()
        self.first, self.error, self.for_good, self.count = first, error, for_good, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        if self.first is not None and (
            self.count >= self.first if self.for_good else self.count == self.first
        ):
            raise self.error
        return func(*args, **(kwargs or {}))


def diffir():
    torch.manual_seed(0)
    config = DiffIRConfig(task="deblur", dim=8, num_blocks=(1, 1, 1, 1), n_encoder_res=1)
    return DiffIRStage2(config).eval().requires_grad_(False)


def compact():
    network = CompactRestorer(CompactConfig(scale=2, features=6, layers=3)).eval()
    draw_near_identity(network.requires_grad_(False), torch.Generator().manual_seed(3))
    return network


def diffbir(**chosen):
    pipeline = DiffBIR(**tiny_networks(), stage1=in_strips(diffir()), version="v2.1")
    settings = DiffBIRSettings(**{"steps": 2, "short_side": 0, **chosen})
    prompts = torch.zeros(1, 4, 32), torch.ones(1, 4, 32)
    return lambda image: pipeline(image, *prompts, upscale_by=1.0, settings=settings, seed=5)


# What is called, and calls whose picture is right as well: sampling in smaller tiles gives another.
METHODS = {
    "compact": lambda: [partial(restore, model=compact())],
    "compact in strips": lambda: [partial(restore, model=compact(), strip=3)],
    "diffir": lambda: [partial(restore, model=diffir(), seed=5)],
    "diffbir": lambda: [diffbir(sampler="spaced"), diffbir(sampler="spaced", tile=64)],
    "diffbir as a whole": lambda: [diffbir(**AT_ONCE), diffbir(**{**AT_ONCE, "tile": 64})],
    "diffbir guided": lambda: [diffbir(**GUIDED), diffbir(**GUIDED, tile=64)],
}


@pytest.mark.parametrize(("name", "places"), list(zip(METHODS, (24, 24, 24, 8, 8, 6), strict=True)))
def test_a_picture_or_a_sentence(name, places):
    image = torch.rand(2, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    call, *others = METHODS[name]()
    with Operations() as operations:
        right = [call(image)]
    right += [other(image) for other in others]
    pictures = 0
    for index, place in enumerate(torch.linspace(1, operations.count, places).int().tolist()):
        error = FAILURES[index % 2]
        try:
            with Operations(place, error):
                found = call(image)
            pictures += 1
            assert min(float((found - each).abs().max()) for each in right) < SPLIT_NETWORK
        except BIRError as sentence:
            assert str(sentence).endswith(".") and ". " not in str(sentence)
        with pytest.raises(BIRError), Operations(place, error, for_good=True):
            call(image)
    # With strips of a height that was chosen there is no second try.
    assert (pictures > places // 2) == (name != "compact in strips")
    assert torch.equal(call(image), right[0])


def test_the_command_ends_with_a_sentence(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(source / name)

    def run():
        return cli.main(["restore", str(source), str(target), "--overwrite", "--device", "cpu"])

    with Operations() as operations:
        assert run() == 0
    capsys.readouterr()
    codes = set()
    for index, place in enumerate(torch.linspace(1, operations.count, 24).int().tolist()):
        for for_good in (False, True):
            with Operations(place, FAILURES[index % 2], for_good):
                code = run()
            said = capsys.readouterr().err
            lines = said.splitlines()
            assert all(line.startswith("bir: ") for line in lines), said
            assert code == 0 or lines[-1].endswith("."), said
            codes.add(code)
    assert codes == {0, 2}
    assert sorted(path.name for path in target.iterdir()) == ["a.png", "b.png"]


def test_degrading_a_folder_goes_on_behind_a_picture_that_does_not_fit(tmp_path, capsys):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(source / name)

    def run():
        return cli.main(["degrade", str(source), str(target), "--preset", "clean_x2"])

    with Operations() as operations:
        assert run() == 0
    for path in target.iterdir():
        path.unlink()
    with Operations(operations.count // 4, FAILURES[1]):
        assert run() == 2
    assert "Expected enough memory for" in capsys.readouterr().err
    assert [path.name for path in target.iterdir()] == ["b.png"]
