"""Every key takes what its range says and nothing else, and says so in one line with a mend that
mends."""

import math
import re
import typing

import pytest

from stockpot.planning.recipe import KEYS, Recipe, defaults_text, from_tables
from stockpot.planning.recipe_keys import MOST_LIST
from stockpot.stages.errors import BadInput
from stockpot.stages.units import MOST_BYTES, bytes_of
from stockpot.stages.value_range import MOST_TEXT, Range, shown

NUMBERS = {name: key for name, key in KEYS.items() if key.within is not None}


def tables(name, value):
    *sections, last = name.split(".")
    found = {last: value}
    for section in reversed(sections):
        found = {section: found}
    return found


def value_of(name, value):
    return from_tables("x", tables(name, value)).values()[name]


def kinds(key):
    """Types of the key's alternatives, those of a list for its items."""
    every = (
        typing.get_args(key.type)
        if typing.get_origin(key.type) is not tuple
        else [typing.get_args(key.type)[0]]
    )
    return [kind for kind in every or [key.type] if kind in (int, float)]


def just_outside(key):
    """The nearest numbers that the key does not take."""
    within = key.within
    if float in kinds(key):
        gap = 1e-9 * max(1, abs(within.most))
        yield within.least if within.above else within.least - gap
        yield within.most if within.below else within.most + gap
    else:
        yield within.least - 1 if within.least - 1 not in dict(within.also) else within.least - 2
        yield within.most + 1
    yield -(2**70)
    yield 2**64
    yield 10**400


def test_every_key_of_numbers_has_a_range():
    """A key added without one takes any number, and a graph engineer's slip ends in a traceback or
    never."""
    assert [name for name, key in KEYS.items() if kinds(key) and key.within is None] == []


@pytest.mark.parametrize("name", NUMBERS)
def test_the_ends_of_a_range_are_taken_and_what_is_beyond_is_refused(name):
    key = NUMBERS[name]
    listed = typing.get_origin(key.type) is tuple
    inside = [] if key.within.above else [key.within.least]
    inside += [] if key.within.below else [key.within.most]
    for number in [*inside, *(single for single, _ in key.within.also)]:
        found = value_of(name, [number] if listed else number)
        assert found == ([number] if listed else number)
    for number in just_outside(key):
        with pytest.raises(BadInput) as caught:
            value_of(name, [1, number] if listed else number)
        text = str(caught.value)
        assert text.startswith(f"recipe: {name}: expected ")
        assert key.within.words in text
        assert "\n" not in text
        assert len(text) < 400
        mend = re.search(r"fix: --set (\S+), the default", text)[1]
        assert from_tables("x", tables(name, [1] if listed else key.default), [mend]) is not None


@pytest.mark.parametrize("name", KEYS)
def test_what_no_key_takes_is_one_line(name):
    deep = []
    for _ in range(3000):
        deep = [deep]
    texts = ("x" * (MOST_TEXT + 1), "a\nb", "\0", "\udcff")
    for value in (math.nan, math.inf, -math.inf, {"a": 1}, [[1]], ["1"] * 50, deep, *texts):
        if name == "batches.kappa" and value == float("inf"):
            continue
        with pytest.raises(BadInput) as caught:
            value_of(name, value)
        text = str(caught.value)
        assert name in text
        assert text.isprintable()
        assert "; fix: " in text
        assert len(text) < 600


def test_lists_have_a_length():
    assert value_of("batches.fanouts", [2] * MOST_LIST) == [2] * MOST_LIST
    for value in ([], [1] * (MOST_LIST + 1), [1] * 10**6):
        with pytest.raises(
            BadInput,
            match=rf"batches.fanouts: expected a list of 1 to {MOST_LIST} .*found {len(value)} of",
        ):
            value_of("batches.fanouts", value)


def test_ranges_are_printed():
    text = defaults_text()
    for name, key in NUMBERS.items():
        line = next(
            line
            for line in text.splitlines()
            if line.startswith(f"{name.partition('.')[2]} = ") and key.about in line
        )
        assert line.endswith(f"; {key.within.words}")
    assert "from 0 to 9223372036854775807" in text


def test_defaults_are_in_their_ranges():
    for name, value in Recipe("x").values().items():
        if name in NUMBERS and not isinstance(value, str):
            assert all(
                item in NUMBERS[name].within
                for item in (value if isinstance(value, list) else [value])
            ), name


@pytest.mark.parametrize(
    "text", ["0", "0.0001", "-1", "1e400GB", "9" * 400 + "GB", "2 EB", "", "GB", "nan", "2000000TB"]
)
def test_sizes_that_are_none(text):
    assert bytes_of(text) is None
    with pytest.raises(
        BadInput, match=rf'resources.memory: expected "auto", or 1 to {MOST_BYTES} bytes'
    ):
        from_tables("x", {"resources": {"memory": text}})


def test_a_range_in_words():
    assert Range(0, 1, above=True, below=True).words == "above 0, below 1"
    assert 0 not in Range(0, 1, above=True)
    assert math.nan not in Range(0, 1)  # noqa: PLW0177 - what is tested
    assert -1 in Range(1, 9, also=((-1, "all"),))


def test_what_is_shown_is_short_whatever_it_is():
    for value in (
        "x" * 10**6,
        list(range(10**6)),
        {"k" * 10**5: 1},
        10**20_000,
        [10**20_000],
        "\x1b[31m\n",
        "\udcff",
    ):
        text = shown(value)
        assert len(text) < 200
        assert text.isprintable()
