import pytest
import torch
from command_line import save_small_model
from PIL import Image
from training_pictures import write_pictures

from bir_core.checkpoints import save_checkpoint
from bir_core.degradations import degrade, get_preset
from bir_core.errors import BIRError
from bir_core.evaluation.samples import degraded_pairs, folder_pairs, load, result_samples
from bir_core.networks.swinir import SwinIR, SwinIRConfig
from bir_core.pictures.files import read_picture
from bir_core.seeds import image_generator

CPU = torch.device("cpu")


@pytest.fixture
def hq(tmp_path):
    write_pictures(tmp_path / "hq", count=2, size=(41, 58))
    return tmp_path / "hq"


def write_small(folder, hq, size=(14, 10), suffix=".png"):
    folder.mkdir()
    for path in hq.iterdir():
        Image.open(path).resize(size).save(folder / (path.stem + suffix))
    return folder


def test_originals_are_cut_to_a_multiple(hq, tmp_path):
    lq = write_small(tmp_path / "lq", hq)
    originals = sorted(hq.iterdir())
    pairs = list(folder_pairs(originals, lq, scale=4, multiple=4))
    assert [pair.name for pair in pairs] == [path.name for path in originals]
    assert torch.equal(pairs[1].hq, read_picture(originals[1]).image[..., :40, :56])
    with pytest.raises(BIRError, match="41.*--multiple"):
        next(folder_pairs(originals, lq, scale=4, multiple=1))


def test_results_beside_their_originals(hq, tmp_path):
    first = write_small(tmp_path / "first", hq, (56, 40), ".jpg")
    second = write_small(tmp_path / "second", hq, (56, 40))
    samples = list(result_samples([first, second], hq, multiple=8))
    assert len(samples) == 2
    for sample, path in zip(samples, sorted(hq.iterdir()), strict=True):
        assert list(sample.restored) == [str(first), str(second)]
        expected = read_picture(second / path.name).image
        assert torch.equal(sample.restored[str(second)], expected)
        assert torch.equal(sample.hq, read_picture(path).image[..., :40, :56])
    assert [sample.hq for sample in result_samples([first], None, multiple=1)] == [None, None]


def remove_one(folder, hq):
    next(folder.iterdir()).unlink()


def add_one(folder, hq):
    Image.new("RGB", (56, 40)).save(folder / "other.png")


def add_same_name(folder, hq):
    Image.new("RGB", (56, 40)).save(folder / f"{next(hq.iterdir()).stem}.jpg")


def change_size(folder, hq):
    Image.new("RGB", (55, 40)).save(folder / next(hq.iterdir()).name)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (remove_one, "found none"),
        (add_one, "named other"),
        (add_same_name, "Expected one picture"),
        (change_size, "to be 56x40 as its original, but it is 55x40"),
    ],
)
def test_results_that_do_not_fit(spoil, said, hq, tmp_path):
    results = write_small(tmp_path / "results", hq, (56, 40))
    spoil(results, hq)
    with pytest.raises(BIRError, match=said):
        list(result_samples([results], hq, multiple=8))


def test_a_swinir_is_measured_too(hq, tmp_path):
    torch.manual_seed(0)
    config = SwinIRConfig(embed_dim=12, depths=(2, 2), num_heads=(2, 2))
    network = SwinIR(config).eval()
    save_checkpoint(network, tmp_path / "swinir.safetensors")
    model = load(tmp_path / "swinir.safetensors", CPU, torch.float32)
    originals = sorted(hq.iterdir())
    pair = next(degraded_pairs(originals, "simple_x1", scale=1, multiple=4, seed=3))
    assert pair.lq.shape[-2:] == (40, 56)
    with torch.no_grad():
        assert torch.equal(model.restore(pair.lq, 0), network(pair.lq))
    with pytest.raises(BIRError, match="float32"):
        load(tmp_path / "swinir.safetensors", CPU, torch.float16)


@pytest.mark.parametrize(
    "preset", ["bicubic_x4", "defocus", "motion_blur", "varying", "film_grain"]
)
def test_originals_are_degraded_by_any_preset_at_the_scale_of_the_model(hq, preset):
    originals = sorted(hq.iterdir())
    pairs = list(degraded_pairs(originals, preset, scale=2, multiple=12, seed=3))
    assert {pair.hq.shape[-2:] for pair in pairs} == {(36, 48)}
    image = read_picture(originals[1]).image[..., :36, :48]
    alone = degrade(image, get_preset(preset), generator=image_generator(3, 1), scale=2)
    assert torch.equal(pairs[1].lq, alone.lq) and torch.equal(pairs[1].hq, image)
    assert pairs[1].lq.shape[-2:] == (18, 24)


def test_a_diffir_draws_from_the_seed_of_its_picture(hq, tmp_path):
    model = load(save_small_model(tmp_path / "m.safetensors", scale=4), CPU, torch.float32)
    lq = read_picture(next(hq.iterdir())).image[..., :12, :16]
    assert torch.equal(model.restore(lq, 1), model.restore(lq, 1))
    assert not torch.equal(model.restore(lq, 1), model.restore(lq, 2))
