"""Whatever a recipe says, planning it ends in a plan or in one line: no traceback, no hang."""

import json
import signal

import numpy as np
import pytest

from stockpot.cli import main
from stockpot.planning.recipe import KEYS
from stockpot.stages.errors import BadInput
from tests.graphs import write_recipe
from tests.recipes import ODD, recipe_text, small_recipe
from tests.runs import run_here

LONGEST_S = 30
"""A plan of a graph of a hundred nodes that takes longer hangs."""
SHORT, LONG, RUNS = 300, 3000, 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("fuzz")
    recipe = write_recipe(found, nodes=100, workers=1)
    run_here(
        recipe, found, ("pack:valid", "train:0")
    )  # so that plans rest on facts, where a recipe changes nothing
    return found


def source_of(folder):
    return f"npz:{next(folder.glob('*.npz'))}"


def planned(folder, name, text, sets, capsys):
    """Exit code and error of `stockpot plan`, which may neither hang nor leave a traceback."""
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    words = [
        "plan",
        str(path),
        "--store",
        str(folder / "store"),
        "--runs",
        str(folder / "runs"),
        "--json",
    ]
    words += [word for pair in sets for word in ("--set", pair)]
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(LONGEST_S)
    try:
        code = main(words)
    finally:
        signal.alarm(0)
    out, err = capsys.readouterr()
    what = f"{name}: {text[:300]!r} {[pair[:200] for pair in sets]}: {code} {err[:500]}"
    assert code in (0, 2), what
    if code == 0:
        assert json.loads(out)["nodes"], what
        assert err == "", what
    else:
        assert err.startswith("stockpot: error: "), what
        assert err.count("\n") == 1, what
        assert err.rstrip("\n").isprintable(), what
        assert len(err) < 2000, what
        assert "; fix: " in err, what
        assert "Traceback" not in err, what
    assert not list((folder / "runs").rglob("error.log")), what
    return code, err


def fuzz(folder, seeds, capsys):
    codes = [
        planned(folder, f"r{seed}", *recipe_text(seed, source_of(folder)), capsys)[0]
        for seed in seeds
    ]
    assert (
        0.1 < codes.count(0) / len(codes) < 0.9
    )  # neither all right nor all wrong: both sides are tried
    return codes


def test_recipes_of_all_kinds_end_in_a_plan_or_one_line(folder, capsys):
    fuzz(folder, range(SHORT), capsys)


@pytest.mark.long
def test_thousands_of_recipes_end_in_a_plan_or_one_line(folder, capsys):
    fuzz(folder, range(SHORT, SHORT + LONG), capsys)


@pytest.mark.long
@pytest.mark.parametrize("name", KEYS)
def test_every_odd_value_of_every_key(folder, capsys, name):
    source = (
        f"dataset.source = {json.dumps(source_of(folder))}\n" if name != "dataset.source" else ""
    )
    for value in ODD:
        planned(folder, "odd", source, [f"{name}={value}"], capsys)


def ran(folder, seed, tmp_path):
    """Run a small recipe in this process; what is refused is refused in one line before anything is
    trained."""
    path = tmp_path / f"small{seed}.toml"
    path.write_text(small_recipe(seed, source_of(folder)))
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(20 * LONGEST_S)
    try:
        run_here(path, tmp_path / "runs")
    except BadInput:
        return False
    finally:
        signal.alarm(0)
    return True


@pytest.mark.long
def test_what_a_plan_takes_a_run_takes(folder, tmp_path):
    assert sum(ran(folder, seed, tmp_path) for seed in range(RUNS)) > RUNS / 3


def test_seeds_at_the_end_of_their_range_are_trained_with(folder, tmp_path):
    """`train.seed` = 2**64 once failed after all else was built; what its range takes is trained
    with."""
    path = tmp_path / "seeds.toml"
    most = 2**63 - 1
    path.write_text(
        f'dataset.source = "{source_of(folder)}"\ndataset.split.seed = {most}\ntrain.seed = '
        f"{most}\n"
        "train.ingredients = 2\ntrain.vary = 2.0\ntrain.epochs = 2\ntrain.hidden = 8\ntrain.layers "
        "= 2\n"
        'soup.method = "best"\n'
    )
    run_here(path, tmp_path / "runs")
    summary = json.loads((tmp_path / "runs/seeds/summary.json").read_text())
    assert [single["seed"] for single in summary["train"]["ingredients"]] == [most, most + 1]
    assert np.isfinite(summary["train"]["ingredients"][1]["valid_accuracy"])
