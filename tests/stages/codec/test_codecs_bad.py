"""Features no codec was made for, through the stages: coded as well as can be, or refused by row
and column."""

import numpy as np
import pytest

from stockpot.stages.codebook import STAGE as CODEBOOK
from stockpot.stages.codec.format import Codec, decode
from stockpot.stages.errors import BadInput
from stockpot.stages.ingest import STAGE as INGEST
from stockpot.stages.quantize import STAGE
from tests.memory import MemoryReader, run_stage
from tests.packs import graph_reader, split_reader

OURS = ("sq1", "sq2", "sq4", "sq8", "pq1", "pq3", "opq1", "opq3", "rq1", "rq3")
BIFEAT = ("bifeat-sq1", "bifeat-sq2", "bifeat-sq8", "bifeat-vq3-16", "bifeat-vq4-300")


def graph_of(x, *, sparse=False):
    """A random graph with features `x`."""
    g = graph_reader(nodes=len(x), features=x.shape[1], sparse=sparse)
    g.facts |= {"x_nnz": int(np.count_nonzero(x)), "binary": bool(np.isin(x, (0, 1)).all())}
    if not sparse:
        g.arrays["x"] = x.astype(np.float32)
        return g
    import scipy.sparse as sp

    s = sp.csr_matrix(x.astype(np.float32))
    g.arrays |= {
        "x_indptr": s.indptr.astype(np.int64),
        "x_indices": s.indices.astype(np.int32),
        "x_data": s.data,
    }
    return g


class Source(MemoryReader):
    def path(self, name):
        return self.root / "g.npz"


def ingested(root):
    params = INGEST.resolve({"graph.undirected": True, "features.reduce": 0}, {})
    return run_stage(INGEST, params, {"source": Source(root=root)}, root / "graph")


def decoded(tmp_path, g, name, **asked):
    """(rows as decoded, facts of the codes)."""
    asked = {"features.codec": name, **asked}
    inputs, facts = {"graph": g, "split": split_reader(g.facts["num_nodes"])}, {"graph": g.facts}
    if not name.startswith(("fp", "lossless")):
        inputs["codebook"] = run_stage(
            CODEBOOK, CODEBOOK.resolve(asked, facts), inputs, tmp_path / "book"
        )
    codes = run_stage(STAGE, STAGE.resolve(asked, facts), inputs, tmp_path / "codes")
    pointer = codes.array("code_indptr") if codes.has("code_indptr") else None
    return decode(Codec.from_reader(codes), codes.array("codes"), pointer), codes.facts


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", [*OURS, "fp32"])
def test_constant_columns_are_exact(tmp_path, name, sparse):
    x = np.tile(np.float32([0.0, 2.5, -70000.0, 1e-20, 1 / 3]), (600, 1))
    found, facts = decoded(tmp_path, graph_of(x, sparse=sparse), name)
    np.testing.assert_array_equal(found, x)
    assert facts["nmse"] == 0


@pytest.mark.parametrize("name", [*OURS, *BIFEAT])
def test_constant_columns_beside_others_take_none_of_their_rate(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(900, 6)).astype(np.float32)
    x[:, 2] = 4.0
    found, facts = decoded(tmp_path, graph_of(x), name)
    assert np.isfinite(found).all()
    assert facts["nmse"] > 0
    if name in OURS:
        np.testing.assert_allclose(found[:, 2], 4.0, rtol=1e-3)
        assert facts["nmse"] < 1


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", [*OURS, "fp32", "fp16"])
def test_rows_of_zeros_stay_zero(tmp_path, name, sparse):
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    x[50:] = 0  # most rows, so that zero is a level and an entry of its own
    found, _ = decoded(tmp_path, graph_of(x, sparse=sparse), name)
    assert np.abs(found[50:]).max() < (0.2 if name in ("sq1", "pq1", "rq1") else 0.05)
    nothing, facts = decoded(tmp_path / "all", graph_of(np.zeros((300, 5)), sparse=sparse), name)
    assert not nothing.any()
    assert facts["nmse"] == 0


@pytest.mark.parametrize("name", [*BIFEAT, "lossless"])
def test_a_matrix_of_zeros_is_no_error(tmp_path, name):
    found, facts = decoded(tmp_path, graph_of(np.zeros((400, 5))), name)
    assert np.isfinite(found).all()
    assert facts["nmse"] == 0


@pytest.mark.parametrize(
    "name", [*OURS, *BIFEAT, "fp16"]
)  # fp32 is the graph's own rows, which ingest has checked
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named_by_row_and_column(tmp_path, name, value):
    x = np.random.default_rng(0).normal(size=(2500, 6)).astype(np.float32)
    x[2047, 4] = value
    with pytest.raises(BadInput, match=rf"found {value} at node 2047, column 4.*fix: "):
        decoded(tmp_path, graph_of(x), name)


@pytest.mark.parametrize("name", [*OURS, *BIFEAT])
@pytest.mark.parametrize("columns", [4, 5, 7, 8, 9])
def test_columns_need_not_divide_by_the_width_of_a_part(tmp_path, name, columns):
    x = np.random.default_rng(columns).normal(size=(500, columns)).astype(np.float32)
    found, facts = decoded(tmp_path, graph_of(x), name)
    assert found.shape == x.shape
    error = ((x - found).astype(np.float64) ** 2).sum() / (
        (x - x.mean(0)).astype(np.float64) ** 2
    ).sum()
    assert facts["nmse"] == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("name", [*OURS, "bifeat-sq4"])
@pytest.mark.parametrize("shape", [(1, 4), (1, 3), (3, 3), (20, 3)])
def test_fewer_rows_than_entries(tmp_path, name, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found, facts = decoded(tmp_path, graph_of(x), name)
    assert np.isfinite(found).all()
    assert facts["code_bytes"] == shape[0] * facts["row_bytes"]
    if name in OURS and not name.startswith("sq"):  # every row has an entry of its own
        np.testing.assert_allclose(found, x, rtol=2e-3, atol=2e-3)
        rotation = 4 * shape[1] ** 2 if name.startswith("opq") else 0
        assert (
            facts["table_bytes"] <= 4 * 3 * x.size + 4 * shape[1] + rotation
        )  # and there are no more of them


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_fewer_exposed_rows_than_entries(tmp_path, rows):
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    asked = {"features.tier_share": rows / 40, "features.tier_bytes": 2}
    _, facts = decoded(tmp_path, graph_of(x), "sq1", **asked)
    assert facts["tier"]["rows"] == rows
    assert facts["tier"]["error_left"] < 1e-4


@pytest.mark.parametrize("name", [*OURS, *BIFEAT, "fp32", "fp16"])
def test_half_floats_are_coded_as_the_numbers_they_are(tmp_path, name):
    """Values of fp16, up to its largest, come from ingest as fp32 and are coded as these."""
    rng = np.random.default_rng(0)
    half = (rng.normal(size=(500, 6)) * [1e-7, 1e-3, 1, 50, 1e3, 1e4]).astype(np.float16)
    half[3, 5], half[4, 5] = 65504, -65504
    found = []
    for kind in (np.float16, np.float32):
        root = tmp_path / kind.__name__
        root.mkdir()
        edges = np.stack([np.arange(499), np.arange(1, 500)])
        np.savez(
            root / "g.npz",
            edge_index=edges,
            num_nodes=500,
            x=half.astype(kind),
            y=np.arange(500) % 3,
        )
        g = ingested(root)
        np.testing.assert_array_equal(g.array("x"), half.astype(np.float32))
        found.append(decoded(root, g, name))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert np.isfinite(found[0][0]).all()


@pytest.mark.parametrize("name", ["pq2", "rq2", "bifeat-vq3-16"])
def test_values_whose_squares_do_not_fit_are_refused(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    x[7, 3] = 3e22
    with pytest.raises(BadInput, match=r"found 3e\+22 in column 3.*fix: "):
        decoded(tmp_path, graph_of(x), name)


@pytest.mark.parametrize("name", ["sq1", "sq8", "bifeat-sq4"])
def test_scalar_codes_hold_any_finite_value(tmp_path, name):
    x = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    x[7, 3], x[9, 3] = 3e38, -3e38
    found, facts = decoded(tmp_path, graph_of(x), name)
    assert np.isfinite(found).all()
    assert 0 <= facts["nmse"] <= 1.0001


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (
            "lossless",
            (
                "lossless: expected features that are all 0 or 1, or mostly 0, .* in "
                "100%.*features.codec=fp32"
            ),
        ),
        ("pq7", "expected at most a byte for each of 6 columns; fix: --set features.codec=pq6"),
        (
            "bifeat-vq7-16",
            "expected at most 6 columns a code; fix: --set features.codec=bifeat-vq6-16",
        ),
    ],
)
def test_a_codec_that_cannot_hold_these_features_is_refused(asked, match):
    g = graph_of(np.random.default_rng(0).normal(size=(50, 6)))
    with pytest.raises(BadInput, match=match):
        STAGE.resolve({"features.codec": asked}, {"graph": g.facts})
