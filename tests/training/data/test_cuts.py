import torch

from bir_core.training.data.cuts import draw_turn, paired_crop
from bir_core.training.data.draws import generator_for


def test_dihedral_draws_all_eight_modes_and_hflip_two():
    image = torch.arange(27.0).view(3, 3, 3)
    for augmentation, count in (("dihedral", 8), ("hflip", 2), ("none", 1)):
        turns = {
            tuple(draw_turn(augmentation, generator_for(k))(image).flatten().tolist())
            for k in range(100)
        }
        assert len(turns) == count


def test_random_crops_after_the_degradation_are_paired():
    hq = torch.rand(2, 3, 48, 48)
    lq = torch.nn.functional.avg_pool2d(hq, 4)
    cuts = set()
    for k in range(20):
        small, large = paired_crop(lq, hq, 32, generator_for(k))
        torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 4), small)
        cuts.add(float(small[0, 0, 0, 0]))
    assert len(cuts) > 5
