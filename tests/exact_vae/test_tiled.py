"""Encode and decode in tiles, and the choice of where maps wait."""

import logging
from pathlib import Path

import pytest
import torch
from tolerances import SPLIT_NETWORK

from bir_core.benchmarks.tensor_memory import peak_tensors_of
from bir_core.errors import BIRError
from bir_core.exact_vae import maps
from bir_core.exact_vae import tiled as exact_tiled_vae
from bir_core.exact_vae.maps import Parking
from bir_core.exact_vae.memory_plan import parked_bytes, working_bytes
from bir_core.exact_vae.operations import decoder_operations, encoder_operations
from bir_core.exact_vae.tiled import (
    decode_tiled,
    decode_with_gradient,
    encode_tiled,
    fitting_parkings,
)
from bir_core.networks.autoencoder import SDVAE, VAEConfig

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIGABYTE = 10**9


def network():
    torch.manual_seed(0)
    config = VAEConfig(ch=32, ch_mult=(1, 1, 2, 2), num_res_blocks=1)
    return SDVAE(config).eval().requires_grad_(False)


VAE = network()
OPERATIONS = decoder_operations(VAE.decoder)
LATENT = torch.randn(2, 4, 11, 17, generator=torch.Generator().manual_seed(0))
IMAGE = torch.randn(2, 3, 88, 136, generator=torch.Generator().manual_seed(1))


def test_decodes_as_the_whole_vae():
    whole = VAE.decode(LATENT)
    torch.testing.assert_close(decode_tiled(VAE, LATENT, tile=64), whole, rtol=0, atol=1e-4)


def test_encodes_as_the_whole_vae():
    whole = VAE.encode(IMAGE)
    torch.testing.assert_close(encode_tiled(VAE, IMAGE, tile=64), whole, rtol=0, atol=1e-4)


def test_an_image_of_a_batch_comes_out_as_if_alone():
    together = decode_tiled(VAE, LATENT, tile=64)
    alone = decode_tiled(VAE, LATENT[1:], tile=64)
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=SPLIT_NETWORK)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_stored_in_half_precision_and_computed_in_float32(stored):
    """Equal to the whole VAE in float32 with the same weights; the whole one in half is not."""
    half = network().to(stored)
    wide = network().to(stored).float()
    decoded = decode_tiled(half, LATENT, tile=64)
    assert decoded.dtype == torch.float32
    torch.testing.assert_close(decoded, wide.decode(LATENT), rtol=0, atol=1e-4)
    encoded = encode_tiled(half, IMAGE, tile=64)
    torch.testing.assert_close(encoded, wide.encode(IMAGE), rtol=0, atol=1e-4)
    # The weights are as they were.
    assert {value.dtype for value in half.parameters()} == {stored}


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_is_the_one_nearer_to_float32(stored):
    half = network().to(stored)
    exact = network().to(stored).float().decode(LATENT.to(stored).float())
    tiles, whole = decode_tiled(half, LATENT.to(stored), tile=64), half.decode(LATENT.to(stored))
    assert tiles.dtype == stored
    errors = [(picture.float() - exact).square().mean().sqrt() for picture in (tiles, whole)]
    assert 1e-5 < errors[0] < errors[1]


def test_a_vae_without_the_outer_projections():
    bare = torch.nn.Module()
    bare.encoder, bare.decoder = VAE.encoder, VAE.decoder
    torch.testing.assert_close(decode_tiled(bare, LATENT), VAE.decoder(LATENT), rtol=0, atol=1e-4)
    mean = VAE.encoder(IMAGE).chunk(2, dim=1)[0]
    torch.testing.assert_close(encode_tiled(bare, IMAGE), mean, rtol=0, atol=1e-4)


def needed(parked_type, tile=128, height=64, width=64):
    parked = parked_bytes(OPERATIONS, height, width, parked_type)
    return parked, working_bytes(OPERATIONS, tile, torch.float32)


def choices(device, free_device, free_host, **changes):
    options = {"tile": 128, "device": device, "dtype": torch.float32, **changes}
    return fitting_parkings(
        OPERATIONS, 64, 64, free_device=free_device, free_host=free_host, **options
    )


def test_maps_wait_exactly_if_they_can_and_on_the_device_if_they_can():
    exact, working = needed(torch.float32)
    half, _ = needed(torch.float16)
    plenty = 100 * exact
    wide, narrow = torch.float32, torch.float16
    everywhere = [Parking(place, dtype) for dtype in (wide, narrow) for place in (CUDA, CPU)]
    assert choices(CUDA, plenty, plenty) == everywhere
    assert choices(CUDA, exact, plenty)[0] == Parking(CPU, wide)
    assert choices(CUDA, int((half + working) / 0.79), half) == [Parking(CUDA, narrow)]
    assert choices(CUDA, working, int(half / 0.79)) == [Parking(CPU, narrow)]
    assert choices(CPU, int((half + working) / 0.79), plenty) == [Parking(CPU, narrow)]
    assert choices(CUDA, 10**6, 10**6) == []


def test_a_file_takes_the_maps_that_no_memory_holds():
    exact, working = needed(torch.float32)
    folder = Path("maps")
    filed = [Parking(CPU, torch.float32, folder)]
    files = {"folder": folder, "disk": exact}
    assert choices(CUDA, working, 10**6, **files) == filed
    assert choices(CUDA, 100 * exact, 100 * exact, **files)[-1:] == filed
    assert choices(CUDA, working, 10**6, folder=folder, disk=exact - 1) == []
    half = choices(CUDA, working, 10**6, parked_types=[torch.float16], **files)
    assert half == [Parking(CPU, torch.float16, folder)]
    # A CPU has the memory of the host alone, and computes there.
    assert choices(CPU, int(working / 0.79), 0, **files) == filed
    assert choices(CPU, int(0.5 * working), 0, **files) == []


@pytest.mark.parametrize(("run", "x"), [(decode_tiled, LATENT), (encode_tiled, IMAGE)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_in_a_file_change_no_bit_and_take_no_memory(run, x, dtype, tmp_path):
    results, peaks = zip(
        *(
            peak_tensors_of(
                lambda folder=folder: run(
                    VAE, x[:1], tile=64, parkings=[Parking(CPU, dtype, folder)]
                )
            )
            for folder in (None, tmp_path)
        ),
        strict=True,
    )
    assert torch.equal(*results)
    operations = (
        decoder_operations(VAE.decoder) if run is decode_tiled else encoder_operations(VAE.encoder)
    )
    assert peaks[0] - peaks[1] > 0.5 * parked_bytes(operations, *x.shape[-2:], dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_chosen_where_memory_is_short(monkeypatch, tmp_path):
    parked = parked_bytes(OPERATIONS, 11, 17, torch.float16)
    working = working_bytes(OPERATIONS, 64, torch.float32)
    monkeypatch.setattr(exact_tiled_vae, "free_memory", lambda device: int(1.3 * working))
    assert parked > 0.1 * working
    places = []

    def noted(shape, dtype, folder):
        places.append(folder)
        return torch.empty(shape, dtype=dtype)

    monkeypatch.setattr(maps, "mapped_tensor", noted)
    ours = decode_tiled(VAE, LATENT, tile=64, folder=tmp_path)
    torch.testing.assert_close(ours, VAE.decode(LATENT), rtol=0, atol=1e-4)
    assert set(places) == {tmp_path}


def test_memory_is_measured_before_the_start(monkeypatch):
    monkeypatch.setattr(exact_tiled_vae, "free_memory", lambda device: 1000)
    calls = []
    with pytest.raises(BIRError, match=r"should have 0\.\d GB of free memory .* 0\.0 GB are free"):
        decode_tiled(VAE, LATENT, callback=lambda *progress: calls.append(progress))
    assert calls == []


def test_numbers_beyond_float16_are_repeated_in_float32(caplog):
    vae = network()
    vae.decoder.conv_in.bias.add_(1e5)
    with caplog.at_level(logging.WARNING):
        ours = decode_tiled(vae, LATENT, tile=64, parkings=[Parking(CPU, torch.float16)])
    assert "repeating with maps parked in float32" in caplog.text
    torch.testing.assert_close(ours, vae.decode(LATENT), rtol=0, atol=2e-2)


def test_out_of_memory_halves_the_tile(monkeypatch, caplog):
    tiles = []
    run = exact_tiled_vae.run_tiled

    def short_of_memory(operations, x, *, tile, **options):
        tiles.append(tile)
        if tile > 100:
            raise torch.OutOfMemoryError
        return run(operations, x, tile=tile, **options)

    monkeypatch.setattr(exact_tiled_vae, "run_tiled", short_of_memory)
    with caplog.at_level(logging.WARNING):
        ours = decode_tiled(VAE, LATENT, tile=300)
    assert tiles == [300, 150, 75]
    assert "tiles of 75 pixels" in caplog.text
    torch.testing.assert_close(ours, VAE.decode(LATENT), rtol=0, atol=1e-4)


def test_maps_go_to_the_host_before_tiles_shrink(monkeypatch, caplog):
    tried = []
    run, device = exact_tiled_vae.run_tiled, torch.device("meta")

    def short_of_memory(operations, x, *, tile, parking, **options):
        tried.append((parking.device.type, tile))
        if parking.device == device or tile > 100:
            raise torch.OutOfMemoryError
        return run(operations, x, tile=tile, parking=parking, **options)

    monkeypatch.setattr(exact_tiled_vae, "run_tiled", short_of_memory)
    places = [Parking(place, torch.float32) for place in (device, CPU)]
    ours = decode_tiled(VAE, LATENT, tile=128, parkings=[*places, Parking(device, torch.float16)])
    assert tried == [("meta", 128), ("cpu", 128), ("cpu", 64)]
    assert "maps of the VAE wait on cpu" in caplog.text
    torch.testing.assert_close(ours, VAE.decode(LATENT), rtol=0, atol=1e-4)
    tried.clear()
    with pytest.raises(BIRError, match="let the maps wait on the host"):
        decode_tiled(VAE, LATENT, tile=128, parkings=places[:1])
    assert tried == [("meta", 128), ("meta", 64)]


def test_out_of_memory_at_the_smallest_tile_is_an_error(monkeypatch):
    def short_of_memory(*args, **options):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(exact_tiled_vae, "run_tiled", short_of_memory)
    with pytest.raises(BIRError, match="memory for a tile of 64 pixels, but even that ran out"):
        decode_tiled(VAE, LATENT, tile=512)


def test_other_errors_are_not_taken_for_it(monkeypatch):
    def broken(*args, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(exact_tiled_vae, "run_tiled", broken)
    with pytest.raises(RuntimeError, match="something else"):
        decode_tiled(VAE, LATENT, tile=512)


def test_a_tiny_tile_is_refused():
    with pytest.raises(BIRError, match="at least 64 pixels wide, but 32 came"):
        decode_tiled(VAE, LATENT, tile=32)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_gradient_equals_that_through_the_whole_vae(stored):
    """In float32, also where the weights are stored in half precision."""
    wide = network().to(stored).float()
    gradients = []
    for decode in (
        lambda x: decode_with_gradient(network().to(stored), x, tile=64),
        wide.decode,
    ):
        latent = LATENT.clone().requires_grad_()
        loss = (decode(latent) - 0.2).square().sum()
        gradients.append(torch.autograd.grad(loss, latent)[0])
    ours, expected = gradients
    atol = SPLIT_NETWORK * float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=0, atol=atol)


def test_maps_of_the_gradient_wait_on_the_host_when_told_so(monkeypatch):
    free = {"cpu": 10**12, "meta": 10**12}
    monkeypatch.setattr(exact_tiled_vae, "free_memory", lambda device: free[device.type])
    places = []

    def noted(operations, x, *, device, **more):
        places.append(device.type)
        return x

    monkeypatch.setattr(exact_tiled_vae, "run_tiled_with_gradient", noted)
    for on_host in (False, True):
        decode_with_gradient(network().to("meta"), LATENT.to("meta"), on_host=on_host)
    free["meta"] = 1000
    decode_with_gradient(network().to("meta"), LATENT.to("meta"))
    assert places == ["meta", "cpu", "cpu"]


def test_too_little_memory_for_the_gradient_is_said(monkeypatch):
    monkeypatch.setattr(exact_tiled_vae, "free_memory", lambda device: 1000)
    with pytest.raises(BIRError, match="GB are free; .* or guide on latents"):
        decode_with_gradient(VAE, LATENT)
