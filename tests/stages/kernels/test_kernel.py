"""Compiled kernels on disk are never older than a source they came from, wherever they can be
kept."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stockpot.stages.kernels import compiled as kernel
from stockpot.stages.kernels.compiled import KEPT, cache_folder, cache_root, kernel_sources

ROOT = Path(kernel.__file__).parents[2]
INNER = (
    "from stockpot.stages.kernels.compiled import njit\n\n\n@njit(cache=True)\n"
    "def inner(x):\n    return {} * x\n"
)
OUTER = """from stockpot.stages.kernels.compiled import njit
from stockpot.stages.low.inner import inner


@njit(cache=True)
def outer(x):
    return inner(x) + 0 * x
"""
RUN = """
import sys
from stockpot.stages.high.outer import outer
print(outer({}), sum(outer.stats.cache_hits.values()), sum(outer.stats.cache_misses.values()))
"""


@pytest.fixture
def copy(tmp_path):
    """A package of two kernels in two files, beside a copy of `stages/kernels/compiled.py`."""
    root = tmp_path / "stockpot"
    for folder in ("low", "high", "kernels"):
        (root / "stages" / folder).mkdir(parents=True)
        (root / "stages" / folder / "__init__.py").touch()
    (root / "stages" / "__init__.py").touch()
    (root / "__init__.py").touch()
    shutil.copy(kernel.__file__, root / "stages" / "kernels")
    (root / "stages" / "low" / "inner.py").write_text(INNER.format(2))
    (root / "stages" / "high" / "outer.py").write_text(OUTER)
    return root


def begin(root, value=10, **env):
    command = [sys.executable, "-B", "-c", RUN.format(value)]
    own = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    env = (
        own
        | {"PYTHONPATH": str(root.parent), "HOME": str(root / "home"), "XDG_CACHE_HOME": ""}
        | env
    )
    return subprocess.Popen(
        command, cwd=root.parent, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    value, hits, misses = out.split()
    return float(value), int(hits), int(misses), err


def folders(root):
    return sorted(p for p in (root / "stages" / "__pycache__" / "kernels").iterdir())


def test_a_kernel_that_calls_one_of_another_file_follows_its_change(copy):
    """numba alone answers 20 to the last question: the file of `outer` is what it was."""
    inner = copy / "stages" / "low" / "inner.py"
    before = inner.stat()
    assert ended(begin(copy))[:3] == (20, 0, 1)
    assert ended(begin(copy))[:3] == (20, 1, 0)
    inner.write_text(INNER.format(3))
    os.utime(inner, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert inner.stat().st_size == before.st_size
    assert ended(begin(copy))[:3] == (30, 0, 1)
    assert [p.name.partition("-")[0] for p in folders(copy)] == ["high.outer"] * 2 + [
        "low.inner"
    ] * 2
    inner.write_text(INNER.format(2))
    assert ended(begin(copy))[:3] == (20, 1, 0)  # what it was before is there again


def test_processes_that_compile_at_once_leave_what_each_of_them_compiled(copy):
    values = ("10", "10.0", "True")
    assert [ended(one)[0] for one in [begin(copy, value) for value in values]] == [20, 20, 2]
    again = "outer(10), outer(10.0), outer(True)"
    begun = begin(copy, f"10), {again}, outer(10")
    out, err = begun.communicate(timeout=120)
    assert out.split()[:5] == ["20", "20", "20.0", "2", "20"], err


def test_a_function_has_a_file_of_its_own_for_every_compilation():
    from stockpot.stages.order.draw import draw_chain

    names = {draw_chain._cache._cache_file._data_name(1) for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("draw.draw_chain-") and name.endswith(".nbc") for name in names)


@pytest.mark.parametrize("name", kernel.SETTINGS)
def test_settings_that_change_the_code_have_a_folder_of_their_own(copy, monkeypatch, name):
    from numba.core import config

    monkeypatch.setattr(kernel, "_PACKAGE", copy / "stages")
    outer = copy / "stages" / "high" / "outer.py"
    before = kernel._digest(outer)
    assert before == kernel._digest(outer)
    monkeypatch.setattr(config, name, "other")
    assert kernel._digest(outer) != before


def test_old_folders_go_and_others_things_stay(tmp_path):
    for k in range(2 * KEPT):
        (tmp_path / f"low.inner-{k:016x}").mkdir()
        os.utime(tmp_path / f"low.inner-{k:016x}", (k, k))
    (tmp_path / "notes").mkdir()
    (tmp_path / f"high.outer-{0:016x}").mkdir()
    kernel._prune(tmp_path, "low.inner", f"low.inner-{0:016x}")
    expected = {f"low.inner-{k:016x}" for k in (0, *range(2 * KEPT - KEPT + 1, 2 * KEPT))}
    assert {p.name for p in tmp_path.iterdir()} == {"notes", f"high.outer-{0:016x}", *expected}


@pytest.fixture
def root(copy, monkeypatch):
    """Where a process would keep the kernels of the copy."""
    monkeypatch.setattr(kernel, "_PACKAGE", copy / "stages")
    monkeypatch.setenv("HOME", str(copy / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return cache_root.__wrapped__


def test_where_sources_cannot_be_written_users_keep_their_own(copy, root, monkeypatch):
    assert root() == root() == copy / "stages" / "__pycache__" / "kernels"
    shutil.rmtree(copy / "stages" / "__pycache__")
    (copy / "stages" / "__pycache__").touch()  # no folder can be made here, by root neither
    with pytest.warns(
        UserWarning, match=f"kernels are kept in {copy}/home/.cache/stockpot/kernels: .* be written"
    ):
        assert root() == copy / "home" / ".cache" / "stockpot" / "kernels"
    assert root() == copy / "home" / ".cache" / "stockpot" / "kernels"  # said once
    monkeypatch.setenv("XDG_CACHE_HOME", str(copy / "caches"))
    with pytest.warns(UserWarning, match="kernels are kept in"):
        assert root() == copy / "caches" / "stockpot" / "kernels"
    shutil.rmtree(copy / "caches")
    (copy / "caches").touch()
    with pytest.warns(
        UserWarning, match="compiled anew by every process: .* fix: NUMBA_CACHE_DIR="
    ):
        found = root()
    assert found.is_dir()
    found.rmdir()


def test_a_folder_that_was_asked_for_is_taken(copy, root, monkeypatch):
    from numba.core import config

    monkeypatch.setattr(config, "CACHE_DIR", str(copy / "asked"))
    assert root() == copy / "asked" / "stockpot"
    assert not (copy / "stages" / "__pycache__").exists()
    (copy / "file").touch()
    monkeypatch.setattr(config, "CACHE_DIR", str(copy / "file"))
    with pytest.warns(
        UserWarning, match=f"kernels are kept in .*: {copy}/file/stockpot cannot be written"
    ):
        assert root() == copy / "stages" / "__pycache__" / "kernels"


def test_functions_of_others_stay_where_numba_keeps_them():
    from numba.core import config

    from stockpot.stages.order.draw import draw_chain

    assert not config.CACHE_DIR
    folder = cache_folder(ROOT / "stages" / "order" / "draw.py")
    assert Path(draw_chain.stats.cache_path).parent == folder
    assert (
        folder.parent == ROOT / "stages" / "__pycache__" / "kernels"
        or "NUMBA_CACHE_DIR" in os.environ
    )


def test_sources_are_all_that_kernels_take_names_from():
    """The same set by Python's own parser."""
    modules = {path: ast.parse(path.read_text()) for path in (ROOT / "stages").rglob("*.py")}

    def imported(tree):
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "stockpot.stages"
            ):
                yield node.module
                yield from (f"{node.module}.{name.name}" for name in node.names)
            elif isinstance(node, ast.Import):
                yield from (name.name for name in node.names)

    def file_of(name):
        path = ROOT.joinpath(*name.split(".")[1:])
        return {path.with_suffix(".py"), path / "__init__.py"} & modules.keys()

    def reached(path):
        found = {path}
        while (
            more := {f for p in found for name in imported(modules[p]) for f in file_of(name)}
            - found
        ):
            found |= more
        return found - {p for p in found if p.name == "__init__.py"}

    kernels = [
        p for p, tree in modules.items() if "stockpot.stages.kernels.compiled" in imported(tree)
    ]
    assert len(kernels) > 50
    for path in kernels:
        found = set(kernel_sources(path))
        assert found - {p for p in found if p.name == "__init__.py"} == reached(path)
    levels = kernel_sources(ROOT / "stages" / "hag" / "product" / "schedule.py")
    assert ROOT / "stages" / "hag" / "product" / "simd_sums.py" in levels
    assert ROOT / "stages" / "ingest" / "csr.py" not in levels
