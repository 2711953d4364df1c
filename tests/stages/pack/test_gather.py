"""Records without codes read the same rows as records with them; which of the two is written
follows from bytes."""

import pickle

import numpy as np
import pytest

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import STAGE
from stockpot.stages.pack.layout import FITS_BYTES, gathers, reason
from stockpot.stages.pack.stage import Params
from tests.loaders import read_steps
from tests.memory import MemoryReader
from tests.packs import packed

KINDS = {
    "fp32": {},
    "directed": {"directed": True, "weighted": True},
    "bits": {"binary": True, "sparse": True},
    "sparse": {"binary": True, "sparse": True, "codec": "lossless", "features": 900},
}


@pytest.mark.parametrize("kind", KINDS)
def test_gathered_records_equal_packed_ones(tmp_path, kind):
    beside, inputs = packed(tmp_path / "a", **KINDS[kind])
    gathered, _ = packed(tmp_path / "b", gather=True, **KINDS[kind])
    records, expected = Records.from_reader(gathered), Records.from_reader(beside)
    assert "codes" not in records._opened()[0].schema.names
    assert records.meta["requires"][-1] == "gather"
    for mine, theirs in zip(records, expected, strict=True):
        for name in theirs.__dataclass_fields__:
            a, b = getattr(mine, name), getattr(theirs, name)
            assert (a is None) == (b is None), name
            assert a is None or (
                np.array_equal(a, b) and a.dtype == b.dtype and a.shape == b.shape
            ), name
    assert gathered.facts["bytes"] < beside.facts["bytes"]
    row_bytes = inputs["codes"].facts["code_bytes"] / 200
    assert gathered.facts["gather_bytes"] == int(row_bytes * gathered.facts["rows"])
    assert {"layout", "gather_bytes"}.isdisjoint(beside.facts)
    again = pickle.loads(pickle.dumps(records))
    np.testing.assert_array_equal(again[1].codes, expected[1].codes)


@pytest.mark.parametrize("per_step", [1, 2])
def test_steps_do_not_know_the_difference(tmp_path, monkeypatch, per_step):
    sides = [packed(tmp_path / str(g), gather=g)[0] for g in (False, True)]
    beside, straight = (Records.from_reader(side) for side in sides)
    assert (beside.plain, straight.plain) == (False, True)
    monkeypatch.setattr(Records, "gathered", None)  # rows go into the step, not into a record
    for mine, theirs in zip(
        *(read_steps(r, layers=2, per_step=per_step, shuffle=False) for r in sides), strict=True
    ):
        assert (mine.x == theirs.x).all()
        assert (mine.n_id == theirs.n_id).all()


def test_gathering_needs_the_codes_it_was_packed_for(tmp_path):
    reader, inputs = packed(tmp_path, gather=True)
    names = [
        reader.path(n)
        for n in reader.names()
        if n.endswith(".arrow") and ".index." not in n and "/" not in n
    ]
    found = sorted(path for path in names if path.parent == reader.root)
    with pytest.raises(BadInput, match="expected the store that has them") as error:
        Records(found)[0]
    assert "features.layout=packed" in error.value.fix
    other = MemoryReader(inputs["codes"].arrays, inputs["codes"].facts, digest="5" * 32)
    with pytest.raises(Conflict, match="expected codes of digest 0000"):
        Records(found, None, lambda: other)[0]


def test_layout_follows_from_bytes():
    graph = {"num_nodes": 1000}

    def codes(row_bytes, nodes=1000):
        return {"code_bytes": row_bytes * nodes, "num_features": 128}

    def both(rows, found, graph=graph):
        facts = graph, {"rows": rows}, found
        gather = gathers("auto", *facts)
        return gather, reason(gather, *facts)

    assert both(1000, codes(512))[0] is False  # each node once: nothing is repeated
    gather, why = both(3000, codes(512))
    assert gather
    assert why == (
        "gather: 1.54 MB of codes in 3000 rows, 0.512 MB once, 0.512 MB as fp32; "
        "the copies would exceed the features they stand for"
    )
    gather, why = both(3000, codes(8))
    assert not gather
    assert why.startswith("packed: 0.024 MB of codes in 3000 rows")
    assert why.endswith("they stand for")
    nodes = FITS_BYTES // 512 + 1
    gather, why = both(3 * nodes, codes(512, nodes), {"num_nodes": nodes})
    assert not gather
    assert "of pages an epoch" in why
    facts = graph, {"rows": 3000}, codes(8)
    assert gathers("gather", *facts)
    assert not gathers("packed", graph, {"rows": 3000}, codes(512))
    assert reason(True, *facts).startswith("gather: features.layout says so")


def test_choice_stands_in_params_and_plan():
    graph = {"num_nodes": 1000, "nnz": 5000, "num_classes": 3, "directed": False, "weighted": False}
    facts = {
        "graph": graph, "records": {"rows": 4000, "records": 10},
        "codes": {"code_bytes": 512_000, "row_bytes": 512, "num_features": 128, "num_nodes": 1000},
    }  # fmt: skip
    found = {}
    for layout in ("auto", "packed", "gather"):
        params = STAGE.resolve({"split": "train", "features.layout": layout}, facts)
        found[layout] = params.gather, STAGE.cost(params, facts)
    assert [gather for gather, _ in found.values()] == [True, False, True]
    assert STAGE.resolve({"split": "valid", "features.layout": "packed"}, facts) == Params(
        "valid"
    )  # keys stay
    assert found["auto"][1].note.startswith("gather: 2.05 MB")
    assert found["packed"][1].note.startswith("packed: features.layout says so")
    assert found["packed"][1].written - found["auto"][1].written == 4000 * 512
