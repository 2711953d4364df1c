"""Examples in docstrings are run."""

import doctest
from importlib import import_module

import pytest

from tests.test_rooms import modules

WITH_EXAMPLES = {
    name: path.read_text().count(">>> ") for name, path in modules() if ">>> " in path.read_text()
}
SKIPPED = {
    name: path.read_text().count("+SKIP") for name, path in modules()
}  # they read files that are not here


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name):
    found = doctest.testmod(import_module(name))
    assert found.failed == 0
    assert found.attempted == WITH_EXAMPLES[name] - SKIPPED[name]
