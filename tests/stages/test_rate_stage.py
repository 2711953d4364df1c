"""`codebook` measures the codec that was asked for, and chooses one where the recipe says auto."""

import json

import numpy as np
import pytest

from stages.codebook import STAGE
from stages.codebook.rate_sizes import LAYERS, WIDTH, ladder, rate_bytes
from stages.errors import BadInput
from stages.quantize import STAGE as QUANTIZE
from stages.quantize.codec import Codec, decode
from tests.memory import MemoryReader, run_stage
from tests.packs import features, graph_reader
from tests.stages.graphs import communities, csr
from tests.stages.test_rate import mean_matrix


def graph(nodes=900, columns=12, noise=0.7, seed=0):
    """Communities whose features say the class, dense."""
    edges, group = communities(num_nodes=nodes, groups=6, seed=seed)
    indptr, indices, _ = csr(nodes, edges)
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(6, columns))[group] + noise * rng.normal(size=(nodes, columns))).astype(np.float32)
    facts = {"num_nodes": nodes, "nnz": len(indices), "num_features": columns, "num_classes": 6, "features": "dense"}
    facts |= {"binary": False, "x_nnz": x.size, "directed": False, "weighted": False}
    return MemoryReader({"indptr": indptr, "indices": indices, "x": x, "y": group.copy()}, facts)


def split(nodes, valid=0.4, seed=0):
    order = np.random.default_rng(seed).permutation(nodes).astype(np.int32)
    half, end = int(0.5 * nodes), int((0.5 + valid) * nodes)
    return MemoryReader({"train": np.sort(order[:half]), "valid": np.sort(order[half:end])})


def chosen(tmp_path, g, max_drop=0.002, parts=None):
    recipe = {"features.codec": "auto", "features.lossless_up_to": 0, "features.max_accuracy_drop": max_drop}
    params = STAGE.resolve(recipe, {"graph": g.facts})
    return run_stage(STAGE, params, {"graph": g, "split": parts or split(g.facts["num_nodes"])}, tmp_path)


def coded(tmp_path, g, book, codec="auto"):
    asked = {"features.codec": codec, "features.lossless_up_to": 0}
    params = QUANTIZE.resolve(asked, {"graph": g.facts, "codebook": book.facts})
    return run_stage(QUANTIZE, params, {"graph": g, "codebook": book}, tmp_path)


def test_the_choice_follows_what_may_be_lost(tmp_path):
    g = graph()
    strict, loose = (chosen(tmp_path / str(drop), g, drop) for drop in (0.0, 1.0))
    assert strict.facts["codec"] == "fp32"
    assert strict.facts["arrays"] == []
    table = loose.facts["rate"]
    assert [row["codec"] for row in table] == list(ladder(900, 12))
    assert loose.facts["codec"] == min(table, key=lambda row: row["total_bytes"])["codec"]
    assert loose.facts["reason"] == "no candidate is smaller"
    assert json.loads(json.dumps(loose.facts)) == loose.facts
    for row in table:
        assert row["total_bytes"] == 900 * row["row_bytes"] + row["table_bytes"]
    scalar = [row for row in table if row["family"] == "sq"]
    for name in ("nmse", "nmse_aggregated"):
        figures = [row[name] for row in scalar]
        assert figures == sorted(figures)


def test_a_family_is_measured_up_to_its_first_failure(tmp_path):
    rows = chosen(tmp_path, graph(), 0.0).facts["rate"]
    assert [row["codec"] for row in rows] == ["fp32", "fp16", "sq8"]
    assert all(row["drop_bound"] > 0 for row in rows[1:])


def test_product_and_residual_codes_are_candidates_of_larger_graphs(tmp_path):
    g = graph(nodes=4500, columns=16)
    book = chosen(tmp_path / "b", g, 1.0)
    rotated = ["opq8", "opq4", "opq2"]  # one part is all columns: nothing to rotate
    assert [row["codec"] for row in book.facts["rate"]][6:] == ["pq8", "pq4", "pq2", "pq1", *rotated, "rq2"]
    codes = coded(tmp_path / "c", g, book)
    row = next(r for r in book.facts["rate"] if r["codec"] == codes.facts["codec"])
    assert codes.facts["table_bytes"] == row["table_bytes"]
    assert codes.facts["nmse"] == pytest.approx(row["nmse"], rel=0.1)


def test_rotated_codes_are_taken_where_columns_are_correlated(tmp_path):
    g = graph(nodes=4500, columns=16)
    x = g.array("x")
    rng = np.random.default_rng(1)
    mixed = np.linalg.qr(rng.normal(size=(16, 16)))[0] * 10.0 ** -np.arange(16)[:, None]
    turned = np.linalg.qr(rng.normal(size=(16, 16)))[0]
    book = chosen(tmp_path, MemoryReader({**g.arrays, "x": (x @ mixed @ turned).astype(np.float32)}, g.facts), 0.05)
    error = {row["codec"]: row["nmse_aggregated"] for row in book.facts["rate"]}
    assert error["opq4"] < 0.5 * error["pq4"]


def test_few_validation_nodes_prove_nothing(tmp_path):
    book = chosen(tmp_path, graph(), parts=split(900, valid=0.05))
    assert book.facts["codec"] == "fp32"
    assert book.facts["reason"].startswith("the best that fails: ")


def test_the_same_graph_gives_the_same_choice_and_table(tmp_path):
    one, two = (chosen(tmp_path / name, graph(), 0.05) for name in "ab")
    assert one.facts == two.facts
    assert all(np.array_equal(one.array(name), two.array(name)) for name in one.facts["arrays"])


def test_the_codes_carry_what_was_measured(tmp_path):
    g = graph()
    book = chosen(tmp_path / "book", g, 1.0)
    codes = coded(tmp_path / "codes", g, book)
    row = next(r for r in book.facts["rate"] if r["codec"] == codes.facts["codec"])
    assert codes.facts["nmse_aggregated"] == row["nmse_aggregated"] == book.facts["nmse_aggregated"]
    assert (codes.facts["row_bytes"], codes.facts["table_bytes"]) == (row["row_bytes"], row["table_bytes"])


def test_a_codec_that_was_asked_for_is_measured_without_a_split(tmp_path):
    g = graph()
    book = run_stage(STAGE, STAGE.resolve({"features.codec": "sq2"}, {"graph": g.facts}), {"graph": g}, tmp_path / "b")
    codes = coded(tmp_path / "c", g, book, "sq2")
    x, y, step = features(g).astype(float), decode(Codec.from_reader(codes), codes.array("codes")).astype(float), None
    step = mean_matrix(g.array("indptr"), g.array("indices"))
    shares = []
    for _ in range(LAYERS):
        x, y = step @ x, step @ y
        shares.append(((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
    assert book.facts["nmse_by_depth"] == pytest.approx(shares, rel=1e-3)
    assert codes.facts["nmse_aggregated"] == pytest.approx(np.mean(shares), rel=1e-3)
    assert len(book.facts["sensitivity"]) == LAYERS
    assert "rate" not in book.facts


def test_wide_features_are_measured_by_a_projection(tmp_path):
    """Errors of a projection are those of the features, within the spread that 256 random signs have."""
    g = graph(nodes=300, columns=WIDTH + 100)
    recipe = {"features.codec": "sq1", "features.max_accuracy_drop": 0.0}
    book = run_stage(STAGE, STAGE.resolve(recipe, {"graph": g.facts}), {"graph": g}, tmp_path / "b")
    codes = coded(tmp_path / "c", g, book, "sq1")
    x, y = features(g).astype(float), decode(Codec.from_reader(codes), codes.array("codes")).astype(float)
    step = mean_matrix(g.array("indptr"), g.array("indices"))
    x, y = step @ x, step @ y
    exact = ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert book.facts["nmse_by_depth"][0] == pytest.approx(exact, rel=0.2)


def test_large_values_leave_half_floats_out(tmp_path):
    g = graph()
    g.arrays["x"] = g.arrays["x"] * np.float32(1e5)
    assert "fp16" not in [row["codec"] for row in chosen(tmp_path, g).facts["rate"]]


def test_nothing_is_compared_where_features_are_kept_without_loss():
    binary, dense = graph_reader(binary=True).facts, graph().facts
    asked = {"features.codec": "auto", "features.max_accuracy_drop": 0.002}
    assert STAGE.resolve({**asked, "features.lossless_up_to": 0}, {"graph": binary}) is None
    assert STAGE.resolve({**asked, "features.lossless_up_to": 4 * 900 * 12}, {"graph": dense}) is None
    assert STAGE.resolve({**asked, "features.lossless_up_to": 4 * 900 * 12 - 1}, {"graph": dense}) is not None


@pytest.mark.parametrize("columns", [1, 2, 7, 8, 255, 1024, 1025, 1433, 8415, 100_000])
@pytest.mark.parametrize("nodes", [10, 5000, 10**8])
def test_every_count_of_columns_has_candidates_and_a_cost(columns, nodes):
    for kind, nnz in (("dense", nodes * columns), ("sparse", nodes)):
        facts = {**graph().facts, "num_nodes": nodes, "num_features": columns, "features": kind, "x_nnz": nnz}
        recipe = {"features.codec": "auto", "features.lossless_up_to": 0, "features.max_accuracy_drop": 0.002}
        params = STAGE.resolve(recipe, {"graph": facts})
        assert STAGE.cost(params, {"graph": facts}).peak > 0


def test_unlabelled_nodes_and_sparse_features_are_no_hindrance(tmp_path):
    g = graph_reader(nodes=400, sparse=True)
    assert chosen(tmp_path, g, 1.0).facts["judged_on"] < 160


def test_a_share_outside_its_range_is_refused():
    recipe = {"features.codec": "auto", "features.max_accuracy_drop": 1.5}
    with pytest.raises(BadInput, match=r"max_accuracy_drop: expected a share from 0 to 1, found 1\.5"):
        STAGE.resolve(recipe, {"graph": graph().facts})


def test_memory_is_bounded_whatever_the_graph():
    small, large, huge = (rate_bytes(n, 128, 30 * n) for n in (10**5, 10**7, 10**9))
    assert small < large < 1 << 31
    assert huge - large == 10**9 - 10**7  # a byte a node
