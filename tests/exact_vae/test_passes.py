"""The tiled autoencoder equals the whole one, in bounded memory."""

import copy
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import EPS
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from bir_core.errors import BIRError
from bir_core.exact_vae.maps import ParkedMap, Parking, ParkingOverflow
from bir_core.exact_vae.memory_plan import parked_bytes, working_bytes
from bir_core.exact_vae.operations import decoder_operations, encoder_operations
from bir_core.exact_vae.passes import run_tiled
from bir_core.networks.autoencoder import SDVAE, VAEConfig

FLOAT32 = Parking(torch.device("cpu"), torch.float32)
FLOAT16 = Parking(torch.device("cpu"), torch.float16)
CLOSE = {"rtol": 0, "atol": 1e-4}


def network(**changes):
    """A small autoencoder with random weights, norms included."""
    sizes = {"ch": 32, "ch_mult": (1, 2), "num_res_blocks": 1}
    vae = SDVAE(VAEConfig(**{**sizes, **changes})).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, value in vae.named_parameters():
        draw = torch.randn(value.shape, generator=generator)
        if value.ndim > 1:
            value.copy_(draw / (value[0].numel() ** 0.5))
        else:
            value.copy_(0.1 * draw + name.endswith("weight"))
    return vae


SMALL, DEEP = network(), network(ch_mult=(1, 2, 2, 4))
MIDDLE = network(ch_mult=(1, 2, 2))


def uneven(batch, channels, height, width):
    """Noise that grows over the picture, so that each tile has other statistics."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    noise = torch.randn(batch, channels, height, width, generator=generator)
    ramp = torch.linspace(0.1, 3, width) + torch.linspace(-2, 2, height)[:, None]
    return noise * ramp + ramp


# A map of one pixel has no variance, and torch's group norm refuses it.
@settings(max_examples=12)
@given(st.integers(2, 18), st.integers(1, 18), st.integers(8, 30), st.integers(1, 2))
def test_decoder_equals_the_whole_one_at_any_size(height, width, tile, batch):
    latent = uneven(batch, 4, height, width)
    ours = run_tiled(decoder_operations(SMALL.decoder), latent, tile=tile, parking=FLOAT32)
    torch.testing.assert_close(ours, SMALL.decoder(latent), **CLOSE)


@settings(max_examples=12)
@given(st.integers(4, 36), st.integers(2, 36), st.integers(8, 30), st.integers(1, 2))
def test_encoder_equals_the_whole_one_at_any_size(height, width, tile, batch):
    image = uneven(batch, 3, height, width)
    ours = run_tiled(encoder_operations(SMALL.encoder), image, tile=tile, parking=FLOAT32)
    torch.testing.assert_close(ours, SMALL.encoder(image), **CLOSE)


@pytest.mark.parametrize("tile", [32, 56])
def test_four_levels(tile):
    latent, image = uneven(1, 4, 9, 13), uneven(1, 3, 72, 104)
    decoded = run_tiled(decoder_operations(DEEP.decoder), latent, tile=tile, parking=FLOAT32)
    torch.testing.assert_close(decoded, DEEP.decoder(latent), **CLOSE)
    encoded = run_tiled(encoder_operations(DEEP.encoder), image, tile=tile, parking=FLOAT32)
    torch.testing.assert_close(encoded, DEEP.encoder(image), **CLOSE)


def test_a_level_with_attention():
    """Other files of the layout have attention on a level; each block is followed by one."""
    vae = network()
    vae.decoder.up[1].attn = torch.nn.ModuleList(network().decoder.mid.attn_1 for _ in range(2))
    latent = uneven(1, 4, 9, 14)
    hidden = vae.decoder.mid(vae.decoder.conv_in(latent))
    for level in reversed(vae.decoder.up):
        for index, block in enumerate(level.block):
            hidden = block(hidden)
            if hasattr(level, "attn"):
                hidden = level.attn[index](hidden)
        hidden = level.upsample(hidden) if hasattr(level, "upsample") else hidden
    whole = vae.decoder.conv_out(torch.nn.functional.silu(vae.decoder.norm_out(hidden)))
    ours = run_tiled(decoder_operations(vae.decoder), latent, tile=12, parking=FLOAT32)
    torch.testing.assert_close(ours, whole, **CLOSE)


def test_chunks_of_the_attention_make_no_difference():
    """More pixels than a chunk holds, with scores large enough for the running maximum to count."""
    vae = network()
    vae.decoder.mid.attn_1.q.weight.mul_(20)
    latent = uneven(1, 4, 30, 31)
    ours = run_tiled(decoder_operations(vae.decoder), latent, tile=8, parking=FLOAT32)
    torch.testing.assert_close(ours, vae.decoder(latent), rtol=0, atol=5e-4)


def test_float16_parking_is_within_the_stated_loss():
    latent = uneven(1, 4, 10, 14)
    whole = DEEP.decoder(latent)
    ours = run_tiled(decoder_operations(DEEP.decoder), latent, tile=64, parking=FLOAT16)
    assert float((ours - whole).square().mean().sqrt()) < 2e-3 * float(whole.std())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_close_to_the_exact_picture_as_the_whole_one(dtype):
    vae = network(ch_mult=(1, 2, 2)).to(dtype)
    latent = uneven(1, 4, 13, 18).to(dtype)
    whole = vae.decoder(latent).float()
    ours = run_tiled(decoder_operations(vae.decoder), latent, tile=24, parking=FLOAT32)
    assert ours.dtype == dtype
    exact = vae.float().decoder(latent.float())
    ours_error = float((ours.float() - exact).square().mean().sqrt())
    assert ours_error <= 1.1 * float((whole - exact).square().mean().sqrt())


def test_statistics_of_a_map_far_from_zero():
    """Chan's formula keeps what a sum of squares would lose."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(8, 40, 50, generator=generator) + 1000
    parked = ParkedMap.empty(8, 40, 50, FLOAT32)
    for left in range(0, 50, 7):
        parked.write(parked.values[..., left : left + 7], values[..., left : left + 7])
    parked.finish()
    exact = values.double()
    # The means of the parts are numbers around 1000 in float32, right to some EPS of that. Those
    # errors, 1e-4 and more, come into the variance of 1 times the distance of the means, 0.1. A
    # sum of squares around 1e6 would be wrong by EPS of that, 0.1.
    torch.testing.assert_close(parked.mean, exact.mean(dim=(1, 2)), rtol=8 * EPS, atol=0)
    variance = exact.var(dim=(1, 2), correction=0)
    torch.testing.assert_close(parked.variance, variance, rtol=5e-4, atol=0)


def test_a_number_beyond_float16_is_noticed():
    vae = network()
    vae.decoder.conv_in.bias.add_(1e5)
    operations, latent = decoder_operations(vae.decoder), uneven(1, 4, 6, 6)
    with pytest.raises(ParkingOverflow, match="float16"):
        run_tiled(operations, latent, tile=64, parking=FLOAT16)
    ours = run_tiled(operations, latent, tile=64, parking=FLOAT32)
    assert bool(ours.isfinite().all())


class StoragesMade(TorchDispatchMode):
    """Watches every operation: the largest new storage of any other kind, and the sum of the
    parked maps (which come from torch.empty) that are alive together."""

    def __init__(self):
        super().__init__()
        self.largest = 0
        self.parked_peak = 0
        self.parked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.empty.memory_format:
            storage = out.untyped_storage()
            self.parked.append((StorageWeakRef(storage), storage.nbytes()))
            del storage
            alive = [size for ref, size in self.parked if not ref.expired()]
            self.parked_peak = max(self.parked_peak, sum(alive))
        elif isinstance(out, torch.Tensor) and func is not torch.ops.aten.stack.default:
            inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
            if out.untyped_storage().data_ptr() not in inputs:
                self.largest = max(self.largest, out.untyped_storage().nbytes())
        return out


@contextmanager
def watching():
    with StoragesMade() as watch:
        yield watch


CODERS = {
    "decoder": (decoder_operations(MIDDLE.decoder), (4, 10, 14)),
    "encoder": (encoder_operations(MIDDLE.encoder), (3, 40, 56)),
}


# Its first block widens the map, which then needs a new one beside the old.
GROWING = (encoder_operations(network(ch_mult=(4, 4)).encoder), (3, 24, 32))


@pytest.mark.parametrize("coder", [*CODERS, "growing"])
@pytest.mark.parametrize("parking", [FLOAT32, FLOAT16], ids=["float32", "float16"])
def test_parked_memory_is_what_was_computed(coder, parking):
    operations, shape = {**CODERS, "growing": GROWING}[coder]
    with watching() as watch:
        run_tiled(operations, uneven(1, *shape), tile=24, parking=parking)
    assert watch.parked_peak == parked_bytes(operations, *shape[1:], parking.dtype)


@pytest.mark.parametrize("coder", CODERS)
def test_working_memory_does_not_grow_with_the_picture(coder):
    operations, (channels, height, width) = CODERS[coder]
    largest = []
    for factor in (2, 3):
        with watching() as watch:
            image = uneven(1, channels, factor * height, factor * width)
            run_tiled(operations, image, tile=24, parking=FLOAT32)
        largest.append(watch.largest)
    assert largest[1] == largest[0]
    assert largest[1] <= working_bytes(operations, 24, torch.float32)


def test_weights_that_are_cast_count_as_working_memory():
    """Those of the largest convolution at a time, and none where they have the type already."""
    stored = network(ch_mult=(1, 2, 2)).half()
    operations = decoder_operations(stored.decoder)
    largest = (64 * 64 * 9 + 64) * 4
    wide = working_bytes(decoder_operations(MIDDLE.decoder), 24, torch.float32)
    assert 0 < working_bytes(operations, 24, torch.float32) - wide <= largest
    with watching() as watch:
        run_tiled(operations, uneven(1, 4, 10, 14), tile=24, parking=FLOAT32)
    assert watch.largest <= working_bytes(operations, 24, torch.float32)


def test_full_size_decoder_needs_384_numbers_a_pixel():
    with torch.device("meta"):
        vae = SDVAE(VAEConfig())
    pixels = 4096**2
    decoder, encoder = decoder_operations(vae.decoder), encoder_operations(vae.encoder)
    assert parked_bytes(decoder, 512, 512, torch.float16) == 384 * pixels * 2
    assert parked_bytes(encoder, 4096, 4096, torch.float32) == 256 * pixels * 4


def test_progress_counts_every_piece_and_may_cancel():
    seen = []
    operations, latent = decoder_operations(SMALL.decoder), uneven(2, 4, 20, 17)
    run_tiled(operations, latent, tile=16, parking=FLOAT32, callback=lambda *p: seen.append(p))
    total = seen[0][1]
    assert seen == [(done, total) for done in range(1, total + 1)]

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        run_tiled(operations, latent, tile=16, parking=FLOAT32, callback=cancel)


@pytest.mark.parametrize("find", [decoder_operations, encoder_operations])
def test_another_network_is_refused(find):
    with pytest.raises(BIRError, match="but Sequential came; use the stock tiled VAE"):
        find(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))


def test_a_network_that_does_more_is_refused():
    """As the decoder of Stable Video Diffusion, which mixes its frames, and the one of Hunyuan
    Image, whose convolutions make four pixels of one: both have the names of Stable Diffusion."""
    video = copy.deepcopy(SMALL.decoder)
    video.mid.block_1.mix_factor = torch.nn.Parameter(torch.zeros(1))
    shuffled = copy.deepcopy(SMALL.decoder)
    conv = shuffled.up[1].upsample.conv
    shuffled.up[1].upsample.conv = torch.nn.Conv2d(
        conv.in_channels, 4 * conv.out_channels, 3, padding=1
    )
    for decoder in (video, shuffled):
        with pytest.raises(BIRError, match="does more than that; use the stock tiled VAE"):
            decoder_operations(decoder)
