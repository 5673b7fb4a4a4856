"""What the tests of training share."""

import pytest
import torch
from safetensors.torch import save_file
from training_pictures import write_pictures

from bir_core.checkpoints.distances import LPIPS_FILES
from bir_core.networks.distances import LPIPS
from bir_core.networks.perceptual import AlexNet
from bir_core.training.data import BatchSource


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.fixture
def one_batch(monkeypatch):
    """Gives every iteration the first batch, with the same draws. The loss on it falls far when a
    network learns, while that of a few new pictures each time, or PSNR of others, is mostly noise
    in trainings as short as those of the tests."""
    batches = BatchSource.iterations

    def first_again(self, first, last):
        for _ in range(first, last + 1):
            yield next(batches(self, 1, 1))

    monkeypatch.setattr(BatchSource, "iterations", first_again)


@pytest.fixture
def lpips_weights(tmp_path_factory, monkeypatch):
    """Random weights of LPIPS on AlexNet where torch keeps those of others."""
    folder = tmp_path_factory.mktemp("torch")
    path = folder / "hub" / LPIPS_FILES["alex"]
    path.parent.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_file(LPIPS(AlexNet()).state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(folder))
