"""A mend that is printed mends the run that failed: its recipe, its store and its runs stand in
it."""

import argparse
from pathlib import Path

import pytest

from stockpot.command import DEFAULT_RUNS, DEFAULT_STORE, kept


def given(recipe="a b.toml", store=DEFAULT_STORE, runs=DEFAULT_RUNS):
    return argparse.Namespace(recipe=recipe, store=Path(store), runs=Path(runs))


@pytest.mark.parametrize(
    ("fix", "args", "found"),
    [
        ("stockpot run RECIPE builds it", given(), "stockpot run 'a b.toml' builds it"),
        (
            "stockpot run RECIPE builds it",
            given(store="p o"),
            "stockpot run --store 'p o' 'a b.toml' builds it",
        ),
        (
            "stockpot run a.toml",
            given(store="pot", runs="out"),
            "stockpot run --store pot --runs out a.toml",
        ),
        (
            "look, then stockpot verify --all",
            given(store="pot"),
            "look, then stockpot verify --store pot --all",
        ),
        (
            "stockpot verify --all --store q mends",
            given(store="pot"),
            "stockpot verify --all --store q mends",
        ),
        (
            "stockpot verify --all --store q, then stockpot run RECIPE",
            given("x.toml", "pot"),
            "stockpot verify --all --store q, then stockpot run --store pot x.toml",
        ),
        ("stockpot run --help", given(store="pot"), "stockpot run --help"),
        (
            "stockpot recipe --defaults > mine.toml",
            given(store="pot"),
            "stockpot recipe --defaults > mine.toml",
        ),
        ("stockpot soup runs/NAME", given(store="pot"), "stockpot soup runs/NAME"),
        ("--set train.seed=0, the default", given(store="pot"), "--set train.seed=0, the default"),
        ("stockpot run RECIPE builds it", given("runs/mine"), "stockpot run RECIPE builds it"),
    ],
)
def test_commands_keep_the_folders_and_the_recipe(fix, args, found):
    assert kept(fix, args) == found
