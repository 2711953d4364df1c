import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.codec.encode import encode
from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.codec.format import EXACT, Codec, decode, describe
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.stage import Params as PackParams
from stockpot.stages.quantize import STAGE
from tests.memory import run_stage
from tests.packs import features, graph_reader, partition_reader, records_reader


def asked(codec, up_to="2GB"):
    return {"features.codec": codec, "features.lossless_up_to": up_to}


def built(tmp_path, codec="auto", **graph):
    g = graph_reader(**graph)
    params = STAGE.resolve(asked(codec), {"graph": g.facts})
    return run_stage(STAGE, params, {"graph": g}, tmp_path), g


def decoded(reader):
    codec = Codec.from_json(reader.facts["description"])
    pointer = reader.array("code_indptr") if reader.has("code_indptr") else None
    return decode(codec, reader.array("codes"), pointer)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("asked", "binary", "columns", "resolved"),
    [
        ("auto", False, 9, "fp32"),
        ("fp32", True, 9, "fp32"),
        ("auto", True, 9, "lossless-bits"),
        ("lossless", True, 16, "lossless-bits"),
    ],
)
def test_exact_codecs_decode_to_what_was_there(tmp_path, asked, binary, columns, resolved, sparse):
    reader, g = built(tmp_path, asked, features=columns, binary=binary, sparse=sparse)
    assert reader.facts["codec"] == resolved
    assert reader.facts["nmse"] == reader.facts["nmse_aggregated"] == 0.0
    assert reader.facts["row_bytes"] == reader.array("codes").shape[1]
    np.testing.assert_array_equal(decoded(reader), features(g))


@pytest.mark.parametrize("sparse", [False, True])
def test_sparse_codes_win_where_rows_hold_few_ones(tmp_path, sparse):
    g = graph_reader(nodes=50, features=2000, binary=True)
    x = np.zeros((50, 2000), np.float32)
    x[np.arange(49), np.arange(49) * 40] = 1  # the last row is empty
    s = sp.csr_matrix(x)
    for name in list(g.arrays):
        if name.startswith("x"):
            del g.arrays[name]
    g.arrays |= (
        {"x_indptr": s.indptr.astype(np.int64), "x_indices": s.indices.astype(np.int32)}
        if sparse
        else {"x": x}
    )
    g.facts |= {"x_nnz": 49, "features": "sparse" if sparse else "dense"}
    params = STAGE.resolve({"features.codec": "lossless"}, {"graph": g.facts})
    assert params.codec == "lossless-sparse"
    reader = run_stage(STAGE, params, {"graph": g}, tmp_path)
    assert reader.facts["row_bytes"] is None
    assert (
        reader.facts["code_bytes"]
        == 49 * 2 + 51 * 8
        == STAGE.cost(params, {"graph": g.facts}).written
    )
    np.testing.assert_array_equal(decoded(reader), x)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("columns", [300, 70_000])
def test_columns_mostly_zero_are_kept_as_their_values(tmp_path, sparse, columns):
    rng = np.random.default_rng(0)
    s = sp.random(
        40, columns, density=8 / columns, random_state=rng, dtype=np.float32, format="csr"
    )
    s.data[:4] = [1e-42, -3.5, 3e38, 1.0]
    x = s.toarray()
    g = (
        graph_reader(nodes=40, features=columns, sparse=True)
        if sparse
        else graph_reader(nodes=40, features=columns)
    )
    g.arrays |= {
        "x_indptr": s.indptr.astype(np.int64),
        "x_indices": s.indices.astype(np.int32),
        "x_data": s.data,
    }
    g.arrays |= {} if sparse else {"x": x}
    g.facts["x_nnz"] = s.nnz
    params = STAGE.resolve({"features.codec": "lossless"}, {"graph": g.facts})
    assert params.codec == "lossless-values"
    reader = run_stage(STAGE, params, {"graph": g}, tmp_path)
    ids = 2 if columns <= 1 << 16 else 4
    assert (
        reader.facts["code_bytes"]
        == s.nnz * (4 + ids) + 41 * 8
        == STAGE.cost(params, {"graph": g.facts}).written
    )
    np.testing.assert_array_equal(decoded(reader), x)
    assert reader.facts["nmse"] == 0


def test_values_are_packed_as_any_others(tmp_path):
    from stockpot.stages.loader.records import Records
    from tests.loaders import read_steps

    def sparse(nodes, columns):
        g = graph_reader(nodes=nodes, features=columns, sparse=True)
        s = sp.random(
            nodes,
            columns,
            density=0.02,
            random_state=np.random.default_rng(0),
            dtype=np.float32,
            format="csr",
        )
        g.arrays |= {
            "x_indptr": s.indptr.astype(np.int64),
            "x_indices": s.indices.astype(np.int32),
            "x_data": s.data,
        }
        g.facts["x_nnz"] = s.nnz
        return g, s.toarray()

    g, x = sparse(200, 150)
    codes = run_stage(
        STAGE,
        STAGE.resolve({"features.codec": "lossless"}, {"graph": g.facts}),
        {"graph": g},
        tmp_path,
    )
    inputs = {
        "graph": g,
        "codes": codes,
        "partition": partition_reader(200),
        "records": records_reader(200),
    }
    reader = run_stage(PACK, PackParams("train", 4), inputs, tmp_path / "pack")
    records = Records.from_reader(reader)
    assert records.meta["requires"] == ["codec:lossless-values"]
    for record in records:
        np.testing.assert_array_equal(
            decode(records.codec, record.codes, record.code_indptr), x[record.n_id]
        )
    for step in read_steps(reader, layers=2, per_step=2, shuffle=False):
        np.testing.assert_array_equal(step.x.numpy(), x[step.n_id.numpy()])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_torch_decodes_exact_codes_to_the_same_bits(name, sparse):
    import torch

    from tests.decode_tensor import decode_tensor

    g = graph_reader(
        nodes=60,
        features=21,
        binary=name.startswith("lossless-b") or name.endswith("sparse"),
        sparse=sparse,
    )
    source = Features.from_reader(g)
    codec = describe(name, 21)
    codes, pointer, _ = encode(codec, source)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        parts = [
            None if a is None else torch.from_numpy(np.array(a)).to(device)
            for a in (codes, pointer)
        ]
        found = decode_tensor(codec, *parts)
        np.testing.assert_array_equal(found.cpu().numpy(), decode(codec, codes, pointer))


def test_half_floats_report_their_error(tmp_path):
    reader, g = built(tmp_path, "fp16")
    expected = features(g).astype(np.float16).astype(np.float64)
    x = features(g).astype(np.float64)
    np.testing.assert_array_equal(decoded(reader), expected)
    assert reader.facts["nmse"] == pytest.approx(((x - expected) ** 2).sum() / (x**2).sum())
    assert reader.facts["compression_ratio"] == 2.0


@given(
    rows=st.integers(0, 12),
    columns=st.integers(1, 70),
    name=st.sampled_from(EXACT),
    sparse=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60)
def test_rows_go_where_they_are_sent(rows, columns, name, sparse, seed):
    rng = np.random.default_rng(seed)
    x = (rng.random((rows, columns)) < 0.3).astype(np.float32)
    s = sp.csr_matrix(x)
    source = (
        Features(columns, None, s.indptr.astype(np.int64), s.indices.astype(np.int32))
        if sparse
        else Features(columns, x)
    )
    codec = describe(name, columns)
    codes, pointer, nmse = encode(codec, source)
    assert nmse == 0
    to = rng.permutation(rows + 2)[:rows].astype(np.int32)
    out = np.full((rows + 2, columns), 7, np.float32)
    decode(codec, codes, pointer, out=out, rows=to)
    np.testing.assert_array_equal(out[to], x)
    assert (np.delete(out, to, axis=0) == 7).all()
    np.testing.assert_array_equal(decode(codec, codes, pointer), x)


def test_overflow_of_half_floats_names_row_and_column(tmp_path):
    g = graph_reader()
    g.arrays["x"][17, 3] = -70000.0
    with pytest.raises(BadInput, match=r"-70000 at node 17, column 3.*fix: "):
        run_stage(
            STAGE,
            STAGE.resolve({"features.codec": "fp16"}, {"graph": g.facts}),
            {"graph": g},
            tmp_path,
        )


@pytest.mark.parametrize(
    ("codec", "match"),
    [
        ("sq3", "expected auto, fp32.*found sq3"),
        ("pq8", "expected at most a byte for each of 7 columns"),
        ("zip", "expected auto, fp32, fp16, lossless, sqK.* found zip"),
        ("lossless", "expected features that are all 0 or 1"),
    ],
)
def test_what_is_refused_is_named(codec, match):
    with pytest.raises(BadInput, match=match):
        STAGE.resolve(asked(codec), {"graph": graph_reader().facts})


def test_a_graph_without_features_is_refused():
    facts = {**graph_reader().facts, "features": "none", "num_features": 0}
    with pytest.raises(BadInput, match="expected node features, found none"):
        STAGE.resolve(asked("auto"), {"graph": facts})


def test_foreign_descriptions_are_refused():
    with pytest.raises(BadInput, match="found sq3"):
        Codec.from_json({"name": "sq3", "num_features": 8, "row_bytes": 4})
    with pytest.raises(BadInput, match="expected row_bytes"):
        Codec.from_json({"name": "sq4", "num_features": 8, "row_bytes": 8})
    with pytest.raises(BadInput, match="expected row_bytes"):
        Codec.from_json({"name": "fp32", "num_features": 8, "row_bytes": 33})


def test_ids_beyond_the_row_are_an_error_not_a_crash():
    with pytest.raises(Corrupt, match="column ids below 3"):
        decode(
            describe("lossless-sparse", 3), np.array([9, 0], np.uint8), np.array([0, 2], np.int64)
        )
    with pytest.raises(Corrupt, match="column ids below 3"):
        decode(
            describe("lossless-values", 3),
            np.array([0, 0, 0, 0, 9, 0], np.uint8),
            np.array([0, 6], np.int64),
        )


@pytest.mark.parametrize("sparse", [False, True])
def test_auto_keeps_halves_as_halves_and_everything_else_as_it_is(tmp_path, sparse):
    """fp16 is taken where every value of the matrix is one: a single other value, and features stay
    fp32."""
    for odd, codec in ((0.25, "fp16"), (0.1, "fp32"), (1e-9, "fp32"), (70000.0, "fp32")):
        g = graph_reader(nodes=60, sparse=sparse)
        name = "x_data" if sparse else "x"
        values = np.round(g.arrays[name] * 4) / 4
        values.reshape(-1)[-1] = odd
        g.arrays[name] = values.astype(np.float32)
        params = STAGE.resolve(
            asked("auto"), {"graph": {**g.facts, "x_nnz": g.facts["num_nodes"] * 9}}
        )
        reader = run_stage(STAGE, params, {"graph": g}, tmp_path / codec / str(odd))
        assert (params.codec, reader.facts["codec"], reader.facts["nmse"]) == ("fp32", codec, 0.0)
        np.testing.assert_array_equal(decoded(reader), features(g))
        assert STAGE.resolve(asked("fp32"), {"graph": g.facts}).half is False


def test_auto_keeps_values_that_are_mostly_zero_as_values():
    facts = {**graph_reader().facts, "num_nodes": 1000, "num_features": 100, "binary": False}
    for nnz, codec in (
        (1_000, "lossless-values"),
        (30_000, "lossless-values"),
        (40_000, "fp32"),
        (100_000, "fp32"),
    ):
        assert STAGE.resolve(asked("auto"), {"graph": {**facts, "x_nnz": nnz}}).codec == codec


def test_what_is_kept_without_loss_is_a_matter_of_fp32_bytes():
    facts = {
        **graph_reader().facts,
        "num_nodes": 1000,
        "num_features": 100,
        "x_nnz": 100_000,
        "binary": False,
    }
    chosen = {"codec": "sq4"}
    for up_to, codec in (("400kB", "fp32"), (399_999, "sq4"), (0, "sq4"), ("0.39 MiB", "fp32")):
        assert (
            STAGE.resolve(asked("auto", up_to), {"graph": facts, "judge": chosen}).codec == codec
        ), up_to
    assert (
        STAGE.resolve(asked("auto", 0), {"graph": {**facts, "binary": True}}).codec
        == "lossless-bits"
    )
    with pytest.raises(
        BadInput, match=r"lossless_up_to: expected bytes or a size such as .2GB., or 0, found .much"
    ):
        STAGE.resolve(asked("auto", "much"), {"graph": facts})


def test_describing_it_reads_four_keys():
    assert STAGE.reads == (
        "features.codec", "features.lossless_up_to", "features.tier_share", "features.tier_bytes"
    )  # fmt: skip
    assert STAGE.exact
