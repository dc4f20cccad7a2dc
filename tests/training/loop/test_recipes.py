from __future__ import annotations

import re
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from motorvae.runtime.core.errors import ConfigError
from motorvae.training import cli
from motorvae.training.checkpoint import config_from_run
from motorvae.training.loop.recipes import RECIPES, options_of_recipe
from motorvae.training.options import Recipe, TrainOptions, spec_from_train_options
from motorvae.training.train import train

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def _parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> TrainOptions:
    """Return the options with which the command would train."""
    seen: list[TrainOptions] = []

    class Stop(Exception):  # noqa: N818  # no error
        pass

    def stop(options: TrainOptions) -> None:
        seen.append(options)
        raise Stop

    monkeypatch.setattr(cli, "spec_from_train_options", stop)
    with pytest.raises(Stop):
        cli.main.body(cli.main.parse(words), words)
    return seen[0]


@pytest.mark.parametrize("recipe", get_args(Recipe))
def test_a_recipe_is_defaults_and_what_is_given_wins(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(RECIPES) == set(get_args(Recipe))
    assert set(RECIPES[recipe]) <= {one.name for one in fields(TrainOptions)}
    whole = _parsed(monkeypatch, "photos", "--recipe", recipe)
    assert whole == options_of_recipe(recipe, data="photos")
    assert whole == replace(TrainOptions(), data="photos", recipe=recipe, **RECIPES[recipe])
    spec_from_train_options(whole)
    # Also the values that the card has: they are given, not left out.
    words = ["--recipe", recipe, "--lr", "1e-4", "--lr-schedule", "stages", "--steps", "9"]
    given = _parsed(monkeypatch, *words)
    changes = {"learning_rate": 1e-4, "lr_schedule": "stages", "steps": 9}
    assert given == options_of_recipe(recipe, **changes)
    assert given.lr_schedule == "stages"


def test_the_card_is_the_bare_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _parsed(monkeypatch, "--recipe", "card") == _parsed(monkeypatch) == TrainOptions()


def test_the_page_says_what_each_recipe_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `(--[^`]+)`", PAGE.read_text(), flags=re.MULTILINE))
    for recipe, values in RECIPES.items():
        if values:
            options = _parsed(monkeypatch, *shlex.split(rows[recipe]))
            assert replace(options, recipe=recipe) == options_of_recipe(recipe)


def test_a_run_keeps_the_name_and_its_definite_values(options: TrainOptions) -> None:
    asked = replace(options, recipe="fast", **RECIPES["fast"], epochs=(1, 1))
    saved = config_from_run(train(asked).folder).options
    assert saved.recipe == "fast"
    assert {name: getattr(saved, name) for name in RECIPES["fast"]} == RECIPES["fast"]


def test_a_name_alone_is_refused(options: TrainOptions) -> None:
    with pytest.raises(ConfigError, match=r"recipe='fast': .* options_of_recipe\('fast'\)"):
        train(TrainOptions(output=options.output, recipe="fast"))
    assert not options.output.exists()
