"""Every test can fail: it asserts, or expects an error, itself or in a helper of its file that it
calls."""

import ast
from pathlib import Path

TESTS = Path(__file__).parent
EXPECTS = ("raises", "warns", "fail")


def asserts(function, helpers, above=()):
    """Whether a function, or a helper that it calls, says what it expects."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name.startswith("assert") or name in EXPECTS:
                return True
            if (
                name in helpers
                and name not in above
                and asserts(helpers[name], helpers, (*above, name))
            ):
                return True
    return False


def idle(text):
    """Names of the tests in a file's text that assert nothing."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    helpers = {f.name: f for f in functions if not f.name.startswith("test_")}
    return [f.name for f in functions if f.name.startswith("test_") and not asserts(f, helpers)]


def test_no_test_passes_whatever_happens():
    found = {
        path.relative_to(TESTS).as_posix(): idle(path.read_text())
        for path in TESTS.rglob("test_*.py")
    }
    assert len(found) > 80
    assert {path: names for path, names in found.items() if names} == {}


def test_what_counts_as_an_assertion():
    text = """
def check(x):
    return deeper(x)
def deeper(x):
    assert x
def loop():
    loop()
def test_calls(): check(1)
def test_raises():
    with pytest.raises(ValueError): int("x")
def test_numpy(): np.testing.assert_array_equal(1, 1)
def test_runs(): print(loop())
"""
    assert idle(text) == ["test_runs"]
