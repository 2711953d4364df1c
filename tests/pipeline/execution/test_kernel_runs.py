"""What `stockpot warm` compiles is what runs call: nothing is left to compile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stockpot import cli
from stockpot.errors import BadInput
from stockpot.execution import kernel_runs
from stockpot.stages import package

ROOT = Path(__file__).parents[3]
COMPILED = """
import gc, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from stockpot.execution.kernel_runs import KINDS, run_kind, write_graphs
from tests.runs import run_here

def compiled():
    gc.unfreeze()  # frozen objects are not listed
    there = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {
        (one.py_func.__module__, one.py_func.__qualname__, str(types))
        for one in there
        if one.py_func.__module__.startswith("stockpot.")
        for types in one.signatures
    }

folder, kinds = Path(sys.argv[1]), sys.argv[2].split(",") if sys.argv[2] else list(KINDS)
write_graphs(folder)
for name in kinds:
    gc.collect()
    gc.freeze()
    run_kind(name, folder)
before = compiled()
assert len(before) > 40, before
for recipe in sys.argv[3:]:
    gc.freeze()
    run_here(recipe, Path(recipe).with_suffix(""))
    for kernel in sorted(compiled() - before):
        print(Path(recipe).stem, *kernel)
"""


def left_to_compile(folder, kinds, recipes):
    """(recipe, module, kernel, types) of all that these recipes compile, or take from the cache,
    after runs of these kinds (none named: of all) in one process."""
    words = [str(folder), ",".join(kinds), *map(str, recipes)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILED, *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def small(folder, recipe, source, **sets):
    """A recipe of data/ on a small graph, as it is but for these keys."""
    from stockpot.planning.recipe import load, to_toml

    short = {"train.epochs": 2, "train.ingredients": 2, "train.hidden": 24, "train.device": "cpu"}
    values = {"dataset.source": f'"npz:{source}"', **short, **sets}
    text = to_toml(load(ROOT / "data" / recipe, [f"{k}={v}" for k, v in values.items()]))
    path = folder / recipe
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    import numpy as np

    from tests.graphs import community_arrays

    folder = tmp_path_factory.mktemp("warm")
    graph = community_arrays(900, 5, degree=8, features=40, seed=5, binary=True)
    x = graph.pop("x")
    rows, columns = np.nonzero(x)
    sparse = {
        "x_data": x[rows, columns],
        "x_indices": columns.astype(np.int32),
        "x_indptr": np.append(0, np.cumsum(x.astype(bool).sum(1))).astype(np.int64),
        "x_shape": np.array(x.shape),
    }
    np.savez(folder / "sparse.npz", **graph, **sparse)
    np.savez(folder / "binary.npz", **graph, x=x)
    few = {"features.reduce": 12, "train.warmup": 1}
    return folder, [
        small(folder, "wordnet.toml", folder / "sparse.npz", **few),
        small(folder, "computers.toml", folder / "binary.npz", **{"soup.method": "best"}),
    ]


def test_recipes_of_data_compile_nothing_after_the_kinds_that_they_are_of(recipes):
    folder, paths = recipes
    kinds = ["recipe", "binary"]
    assert left_to_compile(folder, kinds, paths) == []


@pytest.mark.long
def test_hardly_any_recipe_compiles_after_all_kinds(recipes, tmp_path):
    """Drawn from the values of all keys; a recipe that is refused compiles nothing."""
    from tests.recipes import small_recipe

    folder, _ = recipes
    drawn = []
    for seed in range(40):
        path = tmp_path / f"r{seed}.toml"
        path.write_text(small_recipe(seed, f"npz:{folder / 'binary.npz'}"))
        drawn.append(path)
    checked = [path for path in drawn if cli.main(["plan", str(path)]) == 0]
    assert len(checked) > 15
    assert left_to_compile(tmp_path, [], checked) == []


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of two compiled files, of one source, where no kind is run."""
    source = tmp_path / "source.py"
    source.write_text("one")
    kept = tmp_path / "kernels"
    kept.mkdir()
    for name in ("a.nbi", "a.nbc"):
        (kept / name).touch()
    monkeypatch.setattr(kernel_runs, "KINDS", {})
    monkeypatch.setattr(kernel_runs, "_kept_folder", lambda: kept)
    monkeypatch.setattr(kernel_runs, "_kernel_files", list)
    monkeypatch.setattr(
        kernel_runs,
        "_files",
        lambda folder, ending: {path.name for path in folder.glob(f"*{ending}")},
    )
    monkeypatch.setattr(package, "source_files", lambda: {"source.py": source})
    return kept, source


def test_a_second_call_says_that_all_is_compiled(place, capsys):
    kept, source = place
    assert kernel_runs.warmed() is None
    first = kernel_runs.warm(1, print)
    assert (first.folder, first.kernels, first.compiled) == (kept, 1, 0)
    assert kernel_runs.warmed() == kernel_runs.Warmed(kept, 1, 0, 0.0)
    assert cli.main(["warm"]) == 0
    assert capsys.readouterr().out == f"all 1 kernels are compiled already, in {kept}\n"
    assert cli.main(["warm", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"folder": str(kept), "kernels": 1, "compiled": 0, "seconds": 0.0}
    source.write_text("two")
    assert kernel_runs.warmed() is None
    kernel_runs.warm(1, print)
    assert len(list(kept.glob("warm-*.json"))) == 1
    (kept / "a.nbc").unlink()
    assert kernel_runs.warmed() is None


def test_some_kinds_leave_no_note_that_all_is_compiled(place, monkeypatch, capsys):
    monkeypatch.setattr(kernel_runs, "KINDS", {"a": None, "b": None, "c": None})
    ran = []

    class Here:
        """Runs what a pool of processes would."""

        def __init__(self, *_args):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_args):
            pass

        def map(self, _run, names, _folders):
            ran.extend(names)
            return names

    monkeypatch.setattr(kernel_runs, "ProcessPoolExecutor", Here)
    assert cli.main(["warm", "b", "c"]) == 0
    assert ran == ["b", "c"]
    assert kernel_runs.warmed() is None
    assert capsys.readouterr().out == f"the kernels of b, c are compiled already, in {place[0]}\n"
    assert cli.main(["warm", "d"]) == 2
    assert "expected kinds of run among a, b, c, found d" in capsys.readouterr().err
    assert ran == ["b", "c"]


def test_a_damaged_note_is_no_note(place):
    kept, _ = place
    kernel_runs.warm(1, print)
    (note,) = kept.glob("warm-*.json")
    for text in ("", "{}", "[]", '{"files": 3}', '{"files": ["a.nbi"]}'):
        note.write_text(text)
        assert kernel_runs.warmed() is None


def test_where_kernels_cannot_stay_nothing_is_compiled(monkeypatch, tmp_path):
    from stockpot.stages.kernels import compiled

    folder = tmp_path / "stockpot-kernels-x"
    monkeypatch.setattr(compiled, "cache_root", lambda: folder)
    monkeypatch.setattr(kernel_runs.tempfile, "gettempdir", lambda: str(tmp_path))
    with pytest.raises(BadInput, match="no folder can be written") as error:
        kernel_runs.warm(1, print)
    assert error.value.fix.startswith("NUMBA_CACHE_DIR=")
