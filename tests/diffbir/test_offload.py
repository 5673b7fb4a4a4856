"""Networks that wait on the host: where each lies while a stage works.

A CPU has one memory, but torch tells "cpu:0" from "cpu" where it is asked to move something: the
first stands for the device that computes here, the second for the host.
"""

import pytest
import torch
from diffbir_models import TINY_SWINIR, filled, tiny_networks

from bir_core.diffbir.pipeline import DiffBIR
from bir_core.diffbir.settings import DiffBIRSettings
from bir_core.networks.swinir import SwinIR

DEVICE, HOST = torch.device("cpu:0"), torch.device("cpu")
NAMES = {
    "stage 1": {"stage1"},
    "encoding": {"sd_vae"},
    "sampling": {"sd_unet", "ir_controlnet"},
    "decoding": {"sd_vae"},
}


class Places:
    """Follows the moves of networks, and looks where they lie whenever one of their layers runs."""

    def __init__(self, networks):
        self.of = dict.fromkeys(networks, None)
        self.seen = []  # (network at work, all that lie on the device)
        for name, network in networks.items():
            self.follow(name, network)

    def follow(self, name, network):
        move = network.to

        def to(target):
            if isinstance(target, torch.device):
                self.of[name] = target
            return move(target)

        network.to = to
        for layer in network.modules():
            if not list(layer.children()):
                layer.register_forward_pre_hook(lambda *_: self.look(name))

    def look(self, name):
        present = frozenset(each for each, place in self.of.items() if place == DEVICE)
        if not self.seen or self.seen[-1] != (name, present):
            self.seen.append((name, present))


def networks():
    swinir = filled(SwinIR(TINY_SWINIR), 5000)
    swinir.conv_last.weight.mul_(0.3)
    return {**tiny_networks(), "stage1": swinir}


def restored(pipeline, image=None, callback=None, **changed):
    image = torch.rand(1, 3, 72, 64, generator=torch.Generator().manual_seed(0))
    texts = (torch.full((1, 4, 32), value) for value in (0.5, -0.5))
    options = DiffBIRSettings(**{"steps": 2, "short_side": 0, **changed})
    return pipeline(image, *texts, upscale_by=1.0, settings=options, callback=callback)


@pytest.mark.parametrize("tile", [0, 64])
def test_each_stage_has_its_networks_alone(tile):
    own = networks()
    places = Places(own)
    pipeline = DiffBIR(**own, device=DEVICE, offload=True, version="v2.1")
    assert set(places.of.values()) == {HOST}
    ours = restored(pipeline, tile=tile, vae_tile=tile)
    expected = {
        (name, frozenset(present)) for present in NAMES.values() for name in sorted(present)
    }
    assert set(places.seen) == expected
    order = [name for name, _ in places.seen]
    assert order[0] == "stage1" and order[1] == order[-1] == "sd_vae"
    assert set(places.of.values()) == {HOST}
    usual = restored(DiffBIR(**networks(), version="v2.1"), tile=tile, vae_tile=tile)
    assert torch.equal(ours, usual)


def test_without_offloading_nothing_moves():
    own = networks()
    places = Places(own)
    pipeline = DiffBIR(**own, device=DEVICE, version="v2.1")
    assert set(places.of.values()) == {DEVICE}
    restored(pipeline)
    everything = frozenset(own)
    assert {present for _, present in places.seen} == {everything}


def test_guidance_in_pixels_brings_the_decoder_along():
    own = networks()
    places = Places(own)
    pipeline = DiffBIR(**own, device=DEVICE, offload=True, version="v2.1")
    restored(pipeline, guidance=0.1, guidance_space="rgb")
    sampling = frozenset({"sd_unet", "ir_controlnet", "sd_vae"})
    assert ("sd_unet", sampling) in places.seen
    assert ("sd_vae", sampling) in places.seen


@pytest.mark.parametrize("stage", list(NAMES))
def test_a_cancelled_run_leaves_the_device_empty(stage):
    class Cancelled(Exception):
        pass

    def cancel(name, done, total):
        if name == stage:
            raise Cancelled

    own = networks()
    places = Places(own)
    pipeline = DiffBIR(**own, device=DEVICE, offload=True, version="v2.1")
    with pytest.raises(Cancelled):
        restored(pipeline, callback=cancel, vae_tile=64)
    assert set(places.of.values()) == {HOST}


def test_another_stage1_shares_the_other_networks():
    own = networks()
    places = Places(own)
    other = filled(SwinIR(TINY_SWINIR), 6000)
    other.conv_last.weight.mul_(0.3)
    places.follow("other", other)
    pipeline = DiffBIR(**own, device=DEVICE, offload=True, version="v2.1")
    sibling = pipeline.with_stage1(other)
    restored(sibling)
    at_work = {name for name, _ in places.seen}
    assert at_work == {"other", "sd_vae", "sd_unet", "ir_controlnet"}
    assert set(places.of.values()) == {HOST}
    expected = restored(DiffBIR(**{**networks(), "stage1": other}, version="v2.1"))
    assert torch.equal(restored(sibling), expected)
