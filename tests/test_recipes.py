"""Recipes on the shipped `params.yaml`, and on what people make of it."""

from itertools import permutations
from pathlib import Path

import pytest
import yaml

from tpo.errors import UserError
from tpo.params import LoraParams, parse_params
from tpo.recipes import recipe, recipes, with_recipe

SHIPPED = (Path(__file__).parents[1] / "params.yaml").read_text()
PAPER = {"longva": (0.3, 0.5, 4e-6), "llava_video": (0.2, 1.0, 3e-7)}


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_fits_into_the_shipped_params(name: str) -> None:
    params = parse_params(with_recipe(SHIPPED, recipe(name).read_text()), name)
    if name in PAPER:
        assert (params.train.beta, params.train.sft_alpha, params.train.learning_rate) == PAPER[name]
        assert (params.train.num_epochs, params.train.warmup_ratio, params.train.lora) == (1, 0.1, None)
        assert params.answer.full_frames == 32
    else:
        assert isinstance(params.train.lora, LoraParams)
    assert params.train.pairs_per_step == 64
    assert len(recipes()[name]) <= 65  # beside its name in a terminal


@pytest.mark.parametrize("names", permutations(recipes(), 2), ids="-".join)
def test_whoever_tries_one_after_the_other_has_the_last(names: tuple[str, str]) -> None:
    text = SHIPPED
    for name in names:
        text = with_recipe(text, recipe(name).read_text())
    wanted = yaml.safe_load(recipe(names[1]).read_text())
    found = yaml.safe_load(text)
    assert {section: {key: found[section][key] for key in keys} for section, keys in wanted.items()} == wanted
    parse_params(text, "both")
    assert with_recipe(text, recipe(names[1]).read_text()) == text


def test_everything_else_stays_as_it_was_written() -> None:
    before = SHIPPED.replace("  beta: 0.1\n", "  beta: 0.1      # mine\n  # read this first\n")
    after = with_recipe(before, "train:\n  beta: 0.25\n")
    assert after == before.replace("beta: 0.1      # mine", "beta: 0.25     # mine")


def test_a_value_may_change_its_form() -> None:
    before = "train:\n  lora:       # none\n  views:      # of both\n    - a\n    - b\n\nother:\n  kept: 1   # here\n"
    inline = with_recipe(before, "train:\n  lora: {r: 64}\n  views: [c]\n  new: 1\n")
    assert inline.startswith("train:\n  new: 1\n  lora: {r: 64} # none\n  views: [c]")
    assert inline.endswith("other:\n  kept: 1   # here\n")
    back = with_recipe(inline, "train:\n  views:\n    - a\n    - b\n")
    assert "    - a\n    - b\n" in back
    assert yaml.safe_load(back)["train"] == {"new": 1, "lora": {"r": 64}, "views": ["a", "b"]}


def test_a_value_that_another_section_borrows_stays_there() -> None:
    after = with_recipe("train:\n  beta: &b 0.1\nother:\n  beta: *b\n", "train:\n  beta: 0.2\n")
    assert yaml.safe_load(after) == {"train": {"beta": 0.2}, "other": {"beta": 0.1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  base: x\n", "no section `train:`"),
        ("train:\n", "no section `train:`"),
        ("- a list\n", "no sections of settings"),
        ("train: [\n", "not valid YAML"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_recipe(text, "train:\n  beta: 0.2\n")


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"'longvaa'.* llava_video, longva, one_small_gpu"):
        recipe("longvaa")
