"""Keys: the encoding is frozen, and whatever may change a result changes the key."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.execution.task import build_params
from stockpot.stages.errors import Conflict
from stockpot.stages.stage import added
from stockpot.store.keys import FORMAT_VERSION, artifact_key, canonical, plain

A, B = "a" * 32, "b" * 32
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
values = st.recursive(
    leaves,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3),
    max_leaves=8,
)
params = st.dictionaries(st.text(min_size=1, max_size=6), values, max_size=4)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class Params:
    k: int = 1
    inner: Inner = Inner()
    names: tuple[str, ...] = ("a", "b")


def typed(value):
    """The value with its types spelled out, as an oracle of what must differ."""
    if isinstance(value, dict):
        return ("dict", tuple(sorted((name, typed(item)) for name, item in value.items())))
    if isinstance(value, (list, tuple)):
        return ("list", tuple(typed(item) for item in value))
    if isinstance(value, float):
        return ("float", repr(value + 0.0))
    return (type(value).__name__, repr(value))


def test_frozen():
    assert FORMAT_VERSION == 1
    assert (
        artifact_key("pack", 3, Params(), [("graph", A), ("codes", B)])
        == "048abeda1051128f6cc1171fdd0d8d4b"
    )
    assert artifact_key("pack", 3, {}, []) != artifact_key("pack", 3, {}, [], format_version=2)


@given(values, values)
def test_equal_encoding_means_equal_value(a, b):
    assert (canonical(a) == canonical(b)) == (typed(a) == typed(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (("a", "b"), ("ab",)),
        (["a", ["b"]], ["a", "b"]),
        ([], None),
        ([], {}),
        (1, 1.0),
        (1, True),
        (0, False),
        (0, None),
        ("1", 1),
        ("", None),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        ("i1:1", 1),
    ],
)
def test_lookalikes_differ(a, b):
    assert canonical(a) != canonical(b)


def test_same_meaning_same_key():
    assert canonical({"x": 1, "y": 2}) == canonical({"y": 2, "x": 1})
    assert canonical((1, 2)) == canonical([1, 2])
    assert canonical(0.0) == canonical(-0.0)
    as_dict = {"names": ["a", "b"], "k": 1, "inner": {"rate": 0.5}}
    assert plain(Params()) == as_dict
    assert artifact_key("s", 1, Params(), [("x", A)]) == artifact_key("s", 1, as_dict, [("x", A)])
    assert artifact_key("s", 1, {}, [("x", A), ("y", B)]) == artifact_key(
        "s", 1, {}, [("y", B), ("x", A)]
    )


@given(params, st.data())
def test_one_change_flips_the_key(chosen, data):
    base = artifact_key("s", 1, chosen, [("x", A), ("y", B)])
    assert len(base) == 32
    assert artifact_key("s", 1, dict(reversed(chosen.items())), [("x", A), ("y", B)]) == base
    others = [
        ("t", 1, chosen, [("x", A), ("y", B)]),
        ("s", 2, chosen, [("x", A), ("y", B)]),
        ("s", 1, chosen, [("x", B), ("y", A)]),
        ("s", 1, chosen, [("x", A)]),
        ("s", 1, chosen, [("x", A), ("z", B)]),
        ("s", 1, {**chosen, "another key": 0}, [("x", A), ("y", B)]),
    ]
    if chosen:
        name = data.draw(st.sampled_from(sorted(chosen)))
        others.append(("s", 1, {**chosen, name: [chosen[name]]}, [("x", A), ("y", B)]))
        others.append(
            ("s", 1, {n: v for n, v in chosen.items() if n != name}, [("x", A), ("y", B)])
        )
    keys = [artifact_key(*other) for other in others]
    assert base not in keys
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1, {"x": math.nan}]])
def test_only_finite_numbers(value):
    with pytest.raises(ValueError, match="finite"):
        canonical(value)


@pytest.mark.parametrize("value", [object(), b"x", {1: 2}, {1, 2}, 1j, Params])
def test_no_fallback_for_other_types(value):
    with pytest.raises(TypeError):
        canonical(value)


@pytest.mark.parametrize(
    "inputs", [[("x", "")], [("x", None)], [("x", "A" * 32)], [("x", A), ("x", B)]]
)
def test_inputs_need_digests_and_roles(inputs):
    with pytest.raises(ValueError, match=r"digest|twice"):
        artifact_key("s", 1, {}, inputs)


@dataclass(frozen=True)
class Later(Params):
    share: float = added(0.0)
    kinds: tuple[str, ...] = added(())


def test_a_parameter_added_later_is_in_a_key_only_where_it_is_on():
    def key(chosen):
        return artifact_key("s", 1, chosen, [("x", A)])

    assert plain(Later()) == plain(Params())
    assert key(Later()) == key(Later(kinds=[])) == key(Params())
    chosen = [Later(), Later(share=0.5), Later(kinds=("a",)), Later(share=0.5, kinds=("a",))]
    assert len({key(one) for one in chosen}) == 4
    for one in chosen:
        assert key(plain(one)) == key(one)
        assert build_params(Later, plain(one)) == one
    with pytest.raises(Conflict, match="expected fields"):
        build_params(Later, {"k": 1})
