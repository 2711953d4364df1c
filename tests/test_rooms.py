"""Imports between the rooms of the package run one way, drawn from the code; no two files import
each other."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("stages", "store", "planning", "execution", "report", "inspection", "souping", "verbs")
"""Each room uses those before it and itself; the files on top of pipeline/ use all."""
BASES = {"errors": "stages", "command": "stages", "locate": "store"}
"""Files on top that rooms of pipeline/ may use, those after the room named: it is the last that
they use themselves."""


def modules():
    for folder, prefix in (("pipeline", "stockpot"), ("stages", "stockpot.stages")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([prefix, *parts]).removesuffix(".__init__"), path


def imported(tree, names):
    """(module, whether the import is for type checkers alone) of all imports of stockpot, inside
    functions too."""

    def visit(node, typing):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.ImportFrom)
                and (child.module or "").split(".")[0] == "stockpot"
            ):
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield (full if full in names else child.module), typing
            elif isinstance(child, ast.Import):
                yield from (
                    (a.name, typing) for a in child.names if a.name.split(".")[0] == "stockpot"
                )
            inside = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            yield from visit(child, typing or inside)

    return visit(tree, typing=False)


@cache
def arrows():
    """{module: {module it imports: whether for type checkers alone}}"""
    files = dict(modules())
    found = {}
    for name, path in files.items():
        found[name] = {}
        for target, typing in imported(ast.parse(path.read_text()), files):
            if target != name:
                found[name][target] = typing and found[name].get(target, True)
    return found


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else "top"


def test_every_file_is_in_a_room_or_one_of_few_on_top():
    top = {path.name for path in (ROOT / "pipeline").iterdir() if path.name != "__pycache__"}
    assert {name for name in top if not (ROOT / "pipeline" / name).is_dir()} == {
        "README.md",
        "__init__.py",
        "batches.py",
        "cli.py",
        "command.py",
        "errors.py",
        "locate.py",
        "py.typed",
    }
    assert {name for name in top if (ROOT / "pipeline" / name).is_dir()} == set(ROOMS) - {"stages"}


@pytest.mark.parametrize("here", ROOMS)
def test_imports_run_one_way(here):
    before = ROOMS[: ROOMS.index(here)]
    allowed = {*before, here}
    back = {
        f"{name} -> {target}"
        for name, targets in arrows().items()
        if room(name) == here
        for target in targets
        if room(target) not in allowed and BASES.get(target.removeprefix("stockpot.")) not in before
    }
    assert not back


@pytest.mark.parametrize(("here", "last"), BASES.items())
def test_bases_use_no_later_room(here, last):
    found = {
        target
        for target in arrows()[f"stockpot.{here}"]
        if target.removeprefix("stockpot.") not in BASES
    }
    assert {room(target) for target in found} <= {*ROOMS[: ROOMS.index(last) + 1]}


def test_no_two_files_import_each_other():
    """No circle, of whatever length, counting imports inside functions and of types."""
    graph = arrows()
    done, path, circles = set(), [], []

    def visit(name):
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
            return
        if name in done:
            return
        path.append(name)
        for target in graph.get(name, ()):
            visit(target)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)
    assert not circles


def test_no_two_files_share_a_name():
    """But the parts that every stage has, and the errors that both layers know."""
    shared = {"__init__", "stage", "planning", "reporting", "errors"}
    names = Counter(
        path.stem for folder in ("pipeline", "stages") for path in (ROOT / folder).rglob("*.py")
    )
    assert {name for name, count in names.items() if count > 1} <= shared
