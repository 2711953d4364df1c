"""`codebook` measures the codec it is asked for, or that a judge chose."""

import numpy as np
import pytest

from stockpot.stages.codebook import STAGE
from stockpot.stages.codec.format import Codec, decode
from stockpot.stages.codec.rate_sizes import LAYERS, WIDTH, rate_bytes
from stockpot.stages.quantize import STAGE as QUANTIZE
from tests.memory import MemoryReader, run_stage
from tests.packs import features
from tests.stages.codec.test_rate import mean_matrix
from tests.stages.graphs import communities, csr


def graph(nodes=900, columns=12, noise=0.7, seed=0):
    """Communities whose features say the class, dense."""
    edges, group = communities(num_nodes=nodes, groups=6, seed=seed)
    indptr, indices, _ = csr(nodes, edges)
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(6, columns))[group] + noise * rng.normal(size=(nodes, columns))).astype(
        np.float32
    )
    facts = {
        "num_nodes": nodes,
        "nnz": len(indices),
        "num_features": columns,
        "num_classes": 6,
        "features": "dense",
    }
    facts |= {"binary": False, "x_nnz": x.size, "directed": False, "weighted": False}
    return MemoryReader({"indptr": indptr, "indices": indices, "x": x, "y": group.copy()}, facts)


def split(nodes, valid=0.4, seed=0):
    order = np.random.default_rng(seed).permutation(nodes).astype(np.int32)
    half, end = int(0.5 * nodes), int((0.5 + valid) * nodes)
    return MemoryReader({"train": np.sort(order[:half]), "valid": np.sort(order[half:end])})


def coded(tmp_path, g, book, codec):
    params = QUANTIZE.resolve({"features.codec": codec}, {"graph": g.facts, "codebook": book.facts})
    return run_stage(QUANTIZE, params, {"graph": g, "codebook": book}, tmp_path)


def test_a_codec_that_was_asked_for_is_measured_without_a_split(tmp_path):
    g = graph()
    book = run_stage(
        STAGE,
        STAGE.resolve({"features.codec": "sq2"}, {"graph": g.facts}),
        {"graph": g},
        tmp_path / "b",
    )
    codes = coded(tmp_path / "c", g, book, "sq2")
    x, y, step = (
        features(g).astype(float),
        decode(Codec.from_reader(codes), codes.array("codes")).astype(float),
        None,
    )
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
    """Errors of a projection are those of the features, within the spread that 256 random signs
    have."""
    g = graph(nodes=300, columns=WIDTH + 100)
    recipe = {"features.codec": "sq1", "features.max_accuracy_drop": 0.0}
    book = run_stage(STAGE, STAGE.resolve(recipe, {"graph": g.facts}), {"graph": g}, tmp_path / "b")
    codes = coded(tmp_path / "c", g, book, "sq1")
    x, y = (
        features(g).astype(float),
        decode(Codec.from_reader(codes), codes.array("codes")).astype(float),
    )
    step = mean_matrix(g.array("indptr"), g.array("indices"))
    x, y = step @ x, step @ y
    exact = ((x - y) ** 2).sum() / ((x - x.mean(0)) ** 2).sum()
    assert book.facts["nmse_by_depth"][0] == pytest.approx(exact, rel=0.2)


def test_memory_is_bounded_whatever_the_graph():
    small, large, huge = (rate_bytes(n, 128, 30 * n) for n in (10**5, 10**7, 10**9))
    assert small < large < 1 << 31
    assert huge - large == 10**9 - 10**7  # a byte a node


def test_it_is_fitted_for_what_the_judge_chose_and_for_nothing_that_loses_nothing():
    facts, asked = (
        {"graph": graph().facts},
        {"features.codec": "auto", "features.lossless_up_to": 0},
    )
    assert STAGE.resolve(asked, {**facts, "judge": {"codec": "sq4"}}).codec == "sq4"
    assert (
        STAGE.resolve(
            {**asked, "features.lossless_up_to": 10**9}, {**facts, "judge": {"codec": "sq4"}}
        )
        is None
    )
    for codec in ("fp32", "fp16", "lossless-values"):
        assert STAGE.resolve(asked, {**facts, "judge": {"codec": codec}}) is None
    assert STAGE.resolve(asked, facts) is None
    assert STAGE.resolve(asked, {**facts, "judge": {"codec": "sq4"}}) == STAGE.resolve(
        {"features.codec": "sq4"}, facts
    )
