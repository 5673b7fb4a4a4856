import pytest
import torch
from PIL import Image
from training_pictures import write_pictures

from bir_core.errors import BIRError
from bir_core.training.data import BatchSource, ExampleDataset, open_source
from bir_core.training.recipe import CaptionRecipe, DataRecipe, PatchStage

CPU = torch.device("cpu")


def recipe(**changes):
    options = {"degradation": "simple_x4", "patch": 32, "batch": 2, "augmentation": "dihedral"}
    return DataRecipe(**options | changes)


def dataset(path, data, seed=0):
    return ExampleDataset(open_source(path, data), data, scale=4, seed=seed)


def shrink(hq, generator):
    """A degradation that draws: a mean over 4 x 4 pixels, and noise."""
    lq = torch.nn.functional.avg_pool2d(hq, 4)
    return lq + 0.1 * torch.randn(lq.shape, generator=generator), hq


def batches(source, first, last):
    return [batch for parts in source.iterations(first, last) for batch in parts]


def assert_same(ours, others):
    assert len(ours) == len(others)
    for a, b in zip(ours, others, strict=True):
        assert torch.equal(a.lq, b.lq)
        assert torch.equal(a.hq, b.hq)
        assert torch.equal(
            torch.randn(3, generator=a.generator), torch.randn(3, generator=b.generator)
        )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [False, True])
def test_a_training_that_starts_in_the_middle_sees_the_same_batches(tmp_path, workers, cache):
    write_pictures(tmp_path)
    whole = BatchSource(dataset(tmp_path, recipe()), recipe(), shrink, CPU, 0)
    data = recipe(workers=workers, cache=cache)
    part = BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0)
    assert_same(batches(whole, 1, 6)[3:], batches(part, 4, 6))


def test_two_processes_see_what_one_with_two_micro_batches_sees(tmp_path):
    write_pictures(tmp_path)
    data = recipe(accumulate=2)
    one = batches(BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0), 1, 3)
    for rank in range(2):
        source = BatchSource(dataset(tmp_path, recipe()), recipe(), shrink, CPU, 0, rank, 2)
        ours = batches(source, 1, 3)
        assert_same(ours, one[rank::2])
        one = batches(BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0), 1, 3)


def test_each_pass_shows_every_picture_once_in_another_order(tmp_path):
    for value in range(4):
        Image.new("RGB", (40, 40), (value, 0, 0)).save(tmp_path / f"{value}.png")
    examples = dataset(tmp_path, recipe())
    seen = [int(examples[k].hq[0, 0, 0]) for k in range(16)]
    passes = [seen[k : k + 4] for k in range(0, 16, 4)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in passes)
    assert len({tuple(order) for order in passes}) > 1


def test_the_seed_changes_the_cuts(tmp_path):
    write_pictures(tmp_path)
    first = dataset(tmp_path, recipe())[0].hq
    assert torch.equal(first, dataset(tmp_path, recipe())[0].hq)
    assert not torch.equal(first, dataset(tmp_path, recipe(), seed=1)[0].hq)


@pytest.mark.parametrize("cache", [False, True])
def test_damaged_pictures_are_skipped_and_named(tmp_path, cache):
    paths = write_pictures(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    source = BatchSource(dataset(tmp_path, recipe(cache=cache)), recipe(), shrink, CPU, 0)
    assert len(batches(source, 1, 4)) == 4
    assert source.skipped == {paths[1].name}


def test_no_readable_picture_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BIRError, match="none of 1"):
        dataset(tmp_path, recipe())[0]


def test_a_reading_process_says_it_in_one_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    data = recipe(workers=1)
    source = BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0)
    with pytest.raises(BIRError, match="^Expected readable pictures[^\n]*$"):
        batches(source, 1, 1)


def test_a_picture_smaller_than_the_patch_is_continued(tmp_path):
    Image.new("RGB", (20, 50), (10, 20, 30)).save(tmp_path / "small.png")
    hq = dataset(tmp_path, recipe())[0].hq
    assert hq.shape == (3, 32, 32)
    assert hq[:, 0, 0].tolist() == [10, 20, 30]


def test_sixteen_bits_stay(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", torch.full((40, 40, 3), 1000).numpy().astype("uint16"))
    hq = dataset(tmp_path, recipe(cache=True))[0].hq
    torch.testing.assert_close(hq, torch.full((3, 32, 32), 1000 / 65535))


def test_pairs_are_cut_at_the_same_place(tmp_path):
    for path in write_pictures(tmp_path / "hq", size=(80, 100)):
        picture = Image.open(path)
        (tmp_path / "lq").mkdir(exist_ok=True)
        small = picture.resize((25, 20), Image.Resampling.BOX)
        small.save(tmp_path / "lq" / path.name)
    data = recipe(degradation="pairs")
    examples = dataset(tmp_path, data)
    for position in range(6):
        example = examples[position]
        mean = torch.nn.functional.avg_pool2d(example.hq[None].float(), 4)[0]
        torch.testing.assert_close(example.lq.float(), mean, rtol=0, atol=1.01)
    batch = batches(BatchSource(examples, data, None, CPU, 0), 1, 1)[0]
    assert (batch.lq.shape, batch.hq.shape) == ((2, 3, 8, 8), (2, 3, 32, 32))


def test_pairs_that_do_not_fit(tmp_path):
    write_pictures(tmp_path / "hq", count=2, size=(40, 40))
    write_pictures(tmp_path / "lq", count=1, size=(40, 40))
    data = recipe(degradation="pairs")
    with pytest.raises(BIRError, match="picture_1"):
        open_source(tmp_path, data)
    write_pictures(tmp_path / "lq", count=2, size=(40, 40))
    with pytest.raises(BIRError, match="10 x 10 pixels"):
        dataset(tmp_path, data)[0]


def test_progressive_stages_take_a_part_of_the_batch(tmp_path):
    write_pictures(tmp_path)
    stages = (
        PatchStage(patch=16, batch=2, iterations=2),
        PatchStage(patch=32, batch=1, iterations=1),
    )
    data = recipe(progressive=stages)
    source = BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0)
    shapes = [tuple(batch.hq.shape) for batch in batches(source, 1, 4)]
    assert shapes == [(2, 3, 16, 16)] * 2 + [(1, 3, 32, 32)] * 2


def test_captions_stay_with_their_pictures(tmp_path):
    """Through the pool and the progressive stages."""
    for value in range(7):
        Image.new("RGB", (40, 40), (value, 0, 0)).save(tmp_path / f"{value}.png")
        (tmp_path / f"{value}.txt").write_text(f"{value}")
    stages = (
        PatchStage(patch=16, batch=3, iterations=9),
        PatchStage(patch=32, batch=4, iterations=9),
    )
    data = recipe(
        batch=4,
        pool=8,
        progressive=stages,
        captions=CaptionRecipe(drop_probability=0.0),
        workers=1,
    )
    source = BatchSource(dataset(tmp_path, data), data, shrink, CPU, 0)
    made = batches(source, 1, 18)
    assert [len(batch.captions) for batch in made] == [3] * 9 + [4] * 9
    for batch in made:
        values = (batch.hq[:, 0, 0, 0] * 255).round().int().tolist()
        assert [int(caption) for caption in batch.captions] == values


def test_without_a_recipe_for_captions_there_are_none(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "picture_0.txt").write_text("a picture")
    source = BatchSource(dataset(tmp_path, recipe()), recipe(), shrink, CPU, 0)
    assert {batch.captions for batch in batches(source, 1, 4)} == {("", "")}


def test_a_batch_mixes_eight_and_sixteen_bits(tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "deep.tif", torch.full((40, 40, 3), 1000).numpy().astype("uint16"))
    Image.new("RGB", (40, 40), (10, 10, 10)).save(tmp_path / "flat.png")
    source = BatchSource(dataset(tmp_path, recipe()), recipe(), shrink, CPU, 0)
    hq = batches(source, 1, 1)[0].hq
    assert sorted(hq[:, 0, 0, 0].tolist()) == pytest.approx([1000 / 65535, 10 / 255])
