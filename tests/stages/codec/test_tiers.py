"""Exposed rows have further stages on top of the code of all rows: chosen, coded, packed and read
against oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.planning.dag import build
from stockpot.planning.recipe import from_tables
from stockpot.stages.codebook import STAGE as CODEBOOK
from stockpot.stages.codec import residual_tier as further
from stockpot.stages.codec.coded_rows import Coded
from stockpot.stages.codec.exposure import exposed, exposure
from stockpot.stages.codec.format import Codec, decode
from stockpot.stages.codec.node_rows import NodeRows
from stockpot.stages.codec.tiers import tier_of
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.loader.records import Records
from stockpot.stages.quantize import STAGE
from tests.loaders import read_steps
from tests.memory import run_stage
from tests.packs import dense, features, graph_reader, inputs_of, packed, split_reader

BASES = ("sq1", "pq2", "rq1", "bifeat-sq2", "bifeat-vq4-300")


@given(
    nodes=st.integers(1, 60),
    degree=st.integers(0, 6),
    directed=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_exposure_is_the_squared_weight_of_a_node_in_all_outputs(nodes, degree, directed, seed):
    g = graph_reader(nodes, degree, directed=directed, seed=seed)
    outputs = np.flatnonzero(np.random.default_rng(seed).random(nodes) < 0.4)
    found = exposure(g.array("indptr"), g.array("indices"), outputs)
    pattern = (dense(g) > 0).astype(np.float64)
    mean = pattern / np.maximum(pattern.sum(1, keepdims=True), 1)
    expected = (mean[outputs] ** 2).sum(0) + np.isin(np.arange(nodes), outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@given(st.integers(1, 30), st.integers(1, 4), st.floats(0, 1.1), st.integers(0, 999))
def test_the_most_exposed_are_taken_and_of_equals_the_first(nodes, values, share, seed):
    weight = np.random.default_rng(seed).integers(0, values, nodes).astype(np.float64)
    count = int(share * nodes)
    expected = np.sort(np.lexsort((np.arange(len(weight)), -weight))[:count])
    np.testing.assert_array_equal(exposed(weight, count), expected)


def oracle(codes):
    """Decoded rows of an artifact of codes by its tables, in float64."""
    codec = Codec.from_reader(codes)

    def summed(one, rows):
        lookup, ids = one.lookup, rows.view(f"<u{one.lookup.unit}")
        out = np.zeros((len(rows), one.num_features))
        for u in range(len(lookup)):
            out[:, lookup.lo[u] : lookup.hi[u]] += lookup.table(u).astype(np.float64)[ids[:, u]]
        return out

    out = summed(codec, codes.array("codes"))
    if codec.further is not None:
        out[codes.array("codes_1_rows")] += summed(codec.further, codes.array("codes_1"))
    return out


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("codec", BASES)
def test_further_stages_are_added_and_nothing_is_stored_twice(tmp_path, codec, sparse):
    options = {"codec": codec, "nodes": 2400, "features": 12, "sparse": sparse}
    plain = inputs_of(tmp_path / "a", **options)["codes"]
    inputs = inputs_of(tmp_path / "b", tier=(0.4, 2), **options)
    codes, x = inputs["codes"], features(inputs["graph"]).astype(np.float64)
    np.testing.assert_array_equal(codes.array("codes"), plain.array("codes"))
    rows, facts = codes.array("codes_1_rows"), codes.facts
    outputs = np.concatenate(list(split_reader(2400).arrays.values()))
    weight = exposure(
        inputs["graph"].array("indptr"), inputs["graph"].array("indices"), np.unique(outputs)
    )
    np.testing.assert_array_equal(rows, exposed(weight, 960))
    assert rows.dtype == np.int32
    found = oracle(codes)
    error, before = ((x - found) ** 2).sum(1), ((x - oracle(plain)) ** 2).sum(1)
    others = np.setdiff1d(np.arange(2400), rows)
    np.testing.assert_array_equal(error[others], before[others])
    assert 0.01 * before[rows].sum() < error[rows].sum() < 0.8 * before[rows].sum()
    assert facts["tier"] == {
        "codec": "rq2", "rows": 960, "row_bytes": 2,
        "error_left": pytest.approx(error[rows].sum() / before[rows].sum(), rel=1e-5),
    }  # fmt: skip
    assert facts["nmse"] == pytest.approx(error.sum() / ((x - x.mean(0)) ** 2).sum(), rel=1e-5)
    assert facts["nmse_aggregated"] is None
    kept = ("codes", "codes_1", "codes_1_rows")
    tables = [a for name, a in codes.arrays.items() if name not in kept]
    assert facts["code_bytes"] == sum(codes.arrays[name].nbytes for name in kept)
    assert facts["table_bytes"] == sum(t.nbytes for t in tables)
    assert facts["compression_ratio"] == 4 * x.size / (facts["code_bytes"] + facts["table_bytes"])
    np.testing.assert_allclose(NodeRows(codes).all(), found, atol=1e-5)
    some = np.array([2399, *rows[:3], 0])
    np.testing.assert_array_equal(NodeRows(codes).of(some), NodeRows(codes).all()[some])


def test_the_same_bytes_for_any_threads_and_chunks(tmp_path, monkeypatch):
    g, split = graph_reader(6000, features=5), split_reader(6000)
    asked = {"features.codec": "pq1", "features.tier_share": 0.7, "features.tier_bytes": 2}
    found = []
    for threads, chunk in ((1, 8 << 20), (3, 1), (2, 4 * 5 * 2048)):
        monkeypatch.setattr("stockpot.stages.codec.feature_blocks.CHUNK_BYTES", chunk)
        monkeypatch.setattr(further, "CHUNK_BYTES", chunk)
        inputs = {"graph": g, "split": split}
        params = CODEBOOK.resolve(asked, {"graph": g.facts})
        inputs["codebook"] = run_stage(
            CODEBOOK, params, inputs, tmp_path / f"book-{chunk}", threads=threads
        )
        params = STAGE.resolve(asked, {"graph": g.facts})
        codes = run_stage(STAGE, params, inputs, tmp_path / f"codes-{chunk}", threads=threads)
        arrays = {**{f"book {n}": a for n, a in inputs["codebook"].arrays.items()}, **codes.arrays}
        found.append(
            (
                {name: a.tobytes() for name, a in arrays.items()},
                codes.facts,
                inputs["codebook"].facts,
            )
        )
    assert found[0] == found[1] == found[2]
    assert {"codes_1", "codes_1_rows", "table_levels", "table_1_tables", "book tier_rows"} <= set(
        found[0][0]
    )


@pytest.mark.parametrize("share", [0.005, 0.5, 1.0])
def test_records_hold_the_stages_of_their_own_rows(tmp_path, share):
    options = {"codec": "sq1", "features": 24, "tier": (share, 3), "shard_bytes": 6000}
    beside, inputs = packed(tmp_path / "a", **options)
    gathered, _ = packed(tmp_path / "b", gather=True, **options)
    exposed_rows = 0
    for mine, other in zip(Records.from_reader(beside), Records.from_reader(gathered), strict=True):
        codes = inputs["codes"]
        held = np.isin(mine.n_id, codes.array("codes_1_rows"))
        np.testing.assert_array_equal(mine.codes_1_rows, np.flatnonzero(held))
        at = np.searchsorted(codes.array("codes_1_rows"), mine.n_id[held])
        np.testing.assert_array_equal(mine.codes_1, codes.array("codes_1")[at])
        assert mine.codes_1.dtype == np.uint8
        assert mine.codes_1_rows.dtype == np.int32
        for name in ("codes", "codes_1", "codes_1_rows"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(other, name))
        exposed_rows += held.sum()
    records = Records.from_reader(beside)
    assert records.meta["requires"][-1] == "tiers"
    assert records.codec.tables_to_bytes() == Codec.from_reader(inputs["codes"]).tables_to_bytes()
    assert records.codec == Codec.from_reader(inputs["codes"])
    assert beside.facts["exposed_rows"] == exposed_rows
    assert gathered.facts["gather_bytes"] == 3 * beside.facts["rows"] + 7 * exposed_rows


@pytest.mark.parametrize("codec", ["rq1", "sq1", "sq8"])
@pytest.mark.parametrize(("per_step", "layers"), [(1, 1), (3, 2)])
def test_steps_bring_the_sum_of_both_whether_decoded_or_coded(tmp_path, codec, per_step, layers):
    reader, inputs = packed(tmp_path, codec=codec, features=24, tier=(0.5, 2), shard_bytes=6000)
    expected = oracle(inputs["codes"])
    options = {"layers": layers, "adj": "norm", "per_step": per_step, "shuffle": False}
    plain, coded = (read_steps(reader, coded=c, **options) for c in (False, True))
    for a, b in zip(plain, coded, strict=True):
        np.testing.assert_allclose(a.x.numpy(), expected[a.n_id.numpy()], atol=1e-5)
        if codec == "sq8":  # so many bytes are decoded by the loader
            assert isinstance(b.x, torch.Tensor)
            continue
        assert isinstance(b.x, Coded)
        assert torch.equal(b.x.decoded(), a.x)
        head = b.x.first(7)
        assert torch.equal(head.decoded(), a.x[:7])
        weight = torch.randn(5, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
        other = weight.detach().clone().requires_grad_()
        found, wanted = b.x.times(weight), a.x @ other.t()
        assert torch.allclose(found, wanted, atol=1e-4)
        grad = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
        found.backward(grad)
        wanted.backward(grad)
        assert torch.allclose(weight.grad, other.grad, atol=1e-3)


def test_damaged_rows_of_further_stages_are_found(tmp_path):
    reader, _ = packed(tmp_path, codec="sq1", features=24, tier=(0.5, 2))
    from stockpot.stages.pack.index import mismatch

    records = Records.from_reader(reader)
    record, index = records[0], records._opened()[0].index
    assert mismatch(index, 0, record) is None
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__}
    for wrong in (record.codes_1_rows[::-1], record.codes_1_rows + np.int32(record.num_nodes)):
        assert "rows of further stages" in mismatch(
            index, 0, type(record)(**fields | {"codes_1_rows": wrong})
        )
    assert "rows of further" in mismatch(
        index, 0, type(record)(**fields | {"codes_1": record.codes_1[1:]})
    )
    described, blob = records.meta["codec"], records.codec.tables_to_bytes()
    with pytest.raises(Corrupt, match="expected tables"):
        Codec.from_json(described, blob[:-1])
    assert decode(Codec.from_json(described, blob).further, record.codes_1).shape == (
        len(record.codes_1_rows),
        24,
    )


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (
            {"features.tier_share": 0.1, "features.codec": "fp32"},
            "features.codec = fp32, which loses nothing",
        ),
        ({"features.tier_share": 0.1, "features.codec": "fp16"}, "features.codec = fp16, which"),
    ],
)
def test_what_cannot_be_is_refused(asked, match):
    facts = graph_reader(features=5).facts
    with pytest.raises(BadInput, match=match):
        STAGE.resolve(
            {"features.codec": "sq2", "features.tier_bytes": 4, **asked}, {"graph": facts}
        )


def test_off_is_as_it_was():
    facts = {"graph": graph_reader(features=5).facts}
    for stage in (STAGE, CODEBOOK):
        off = {"features.codec": "sq2", "features.tier_share": 0.0, "features.tier_bytes": 4}
        assert stage.resolve(off, facts) == stage.resolve({"features.codec": "sq2"}, facts)
    assert tier_of({"features.tier_share": 1e-9, "features.tier_bytes": 4}, 10) == ("rq4", 1)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_split_is_read_where_nodes_are_exposed(share):
    recipe = from_tables("r", {"features": {"codec": "rq4", "tier_share": share}})
    book = next(node for node in build(recipe) if node.id == "codebook")
    assert ("split" in book.inputs) == (share > 0)


@pytest.mark.parametrize("chosen", ["fp32", "sq2"])
def test_what_auto_chooses_has_a_tier_where_it_loses_something(tmp_path, chosen):
    g, split = graph_reader(900, features=12), split_reader(900)
    asked = {
        "features.codec": "auto", "features.lossless_up_to": 0,
        "features.tier_share": 0.3, "features.tier_bytes": 2,
    }  # fmt: skip
    inputs, facts = {"graph": g, "split": split}, {"graph": g.facts, "judge": {"codec": chosen}}
    book, lossy = CODEBOOK.resolve(asked, facts), chosen != "fp32"
    assert (book is not None) == lossy
    if lossy:
        inputs["codebook"] = run_stage(CODEBOOK, book, inputs, tmp_path / "book")
    params = STAGE.resolve(asked, facts)
    assert params.codec == chosen
    codes = run_stage(STAGE, params, inputs, tmp_path / "codes")
    assert ("tier" in codes.facts) == codes.has("codes_1") == lossy
    if lossy:
        error = ((features(g) - oracle(codes)) ** 2).sum(1)
        assert (
            error[codes.array("codes_1_rows")].mean()
            < 0.9 * np.delete(error, codes.array("codes_1_rows")).mean()
        )
