import pytest

from bir_core.errors import BIRError
from bir_core.training.data.captions import Captions, captions_from, draw_caption
from bir_core.training.data.draws import generator_for
from bir_core.training.recipe import CaptionRecipe

BOTH = Captions("short", "long")


def shares(captions, recipe, count=4000):
    drawn = [draw_caption(captions, recipe, generator_for(k)) for k in range(count)]
    return {text: drawn.count(text) / count for text in set(drawn)}


def test_rates_are_those_of_the_recipe():
    """v2.1: long with probability 0.2, else short; emptied with probability 0.2."""
    found = shares(BOTH, CaptionRecipe())
    assert found == pytest.approx({"short": 0.64, "long": 0.16, "": 0.2}, abs=0.025)


def test_v2_empties_half():
    found = shares(BOTH, CaptionRecipe(long_probability=0.0, drop_probability=0.5))
    assert found == pytest.approx({"short": 0.5, "": 0.5}, abs=0.025)


def test_one_caption_stands_in_for_the_other():
    always_long = CaptionRecipe(long_probability=1.0, drop_probability=0.0)
    always_short = CaptionRecipe(long_probability=0.0, drop_probability=0.0)
    assert shares(Captions("short"), always_long, 5) == {"short": 1}
    assert shares(Captions(long="long"), always_short, 5) == {"long": 1}


def test_no_recipe_no_captions():
    assert draw_caption(BOTH, None, generator_for(0)) == ""


def test_fields_before_text():
    assert captions_from({"caption": " a ", "long_caption": "b"}, "c") == Captions("a", "b")
    assert captions_from({"caption": None}, "c\n") == Captions("c", "")
    assert captions_from({"caption": ""}, "c") == Captions("", "")


@pytest.mark.parametrize("fields", [{"caption": 3}, {"long_caption": ["a"]}, ["a"], 3])
def test_a_caption_that_is_no_text(fields):
    with pytest.raises(BIRError, match="correct it"):
        captions_from(fields)


def test_a_probability_is_one():
    with pytest.raises(BIRError, match=r"\[0, 1\]"):
        CaptionRecipe(drop_probability=1.5)
