"""Codes multiplied undecoded against decode + linear in float64, forward and backward, for every
kind of code."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.codec import coded_rows as coded
from stockpot.stages.codec.coded_rows import Coded, Part, Tables, dense, linear
from stockpot.stages.codec.lookup import Lookup
from stockpot.stages.codec.table_sum import table_sum
from stockpot.stages.train.convs import GCNConv, SAGEConv, StoredConv
from stockpot.stages.train.model import build_model
from tests.stages.steps import adj_of, community, weighted


def lookup_of(first, last, num_features, rng):
    """Random tables that cover the columns first[b]..last[b] each."""
    widths = np.subtract(last, first)
    offset = np.concatenate([[0], np.cumsum(256 * widths)])
    values = rng.normal(size=offset[-1]).astype(np.float32)
    return Lookup(
        num_features, 1, 256, *(np.asarray(v, np.int64) for v in (first, last, offset[:-1])), values
    )


def kind_of(kind, num_features, rng, count=3):
    """pq: side by side, the last one narrower; rq: all over all columns; mixed: both in one
    code."""
    width = -(-num_features // count)
    cuts = np.minimum(np.arange(-(-num_features // width) + 1) * width, num_features)
    if kind == "pq":
        return lookup_of(cuts[:-1], cuts[1:], num_features, rng)
    whole = [0] * count, [num_features] * count
    if kind == "rq":
        return lookup_of(*whole, num_features, rng)
    return lookup_of([*cuts[:-1], 0], [*cuts[1:], num_features], num_features, rng)


def coded_of(kinds, n, num_features, rng, dtype=torch.float64):
    """Codes of n rows; every kind after the first is a further stage of some rows."""
    parts = []
    for stage, kind in enumerate(kinds):
        tables = Tables.of(kind_of(kind, num_features, rng), dtype)
        rows = None if stage == 0 else np.flatnonzero(rng.random(n) < 0.4)
        k = n if rows is None else len(rows)
        codes = torch.from_numpy(rng.integers(0, 256, (k, len(tables.lookup)), dtype=np.uint8))
        parts.append(Part(codes, tables, None if rows is None else torch.from_numpy(rows)))
    return Coded(tuple(parts))


def brute(x):
    """f8[n, D], row by row and byte by byte."""
    out = np.zeros(x.shape)
    for part in x.parts:
        look = part.tables.lookup
        rows = range(len(part.codes)) if part.rows is None else part.rows.tolist()
        for i, codes in zip(rows, part.codes.numpy(), strict=True):
            for b, c in enumerate(codes):
                out[i, look.lo[b] : look.hi[b]] += look.table(b)[c]
    return out


kinds = st.lists(st.sampled_from(["pq", "rq", "mixed"]), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(
    kinds=kinds,
    n=st.integers(1, 30),
    dim=st.integers(1, 12),
    out=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_layer_and_gradient_equal_decode_and_linear(kinds, n, dim, out, seed):
    rng = np.random.default_rng(seed)
    x = coded_of(kinds, n, dim, rng)
    rows = torch.from_numpy(brute(x))
    assert torch.allclose(x.decoded(), rows, atol=1e-12)
    weight = torch.from_numpy(rng.normal(size=(out, dim))).requires_grad_()
    grad = torch.from_numpy(rng.normal(size=(n, out)))
    (expected,) = torch.autograd.grad(rows @ weight.t(), weight, grad)
    found = x.times(weight)
    assert torch.allclose(found, rows @ weight.t(), atol=1e-11)
    assert torch.allclose(torch.autograd.grad(found, weight, grad)[0], expected, atol=1e-10)
    count = n // 2
    assert torch.equal(x.first(count).decoded(), x.decoded()[:count])


@pytest.mark.parametrize(
    "kind", ["pq", "rq"]
)  # the forms that a `Lookup` has: it decodes no others
def test_float32_decodes_the_same_by_either_way(kind, monkeypatch):
    x = coded_of([kind, "rq"], 50, 11, np.random.default_rng(0), torch.float32)
    assert np.allclose(x.decoded().numpy(), brute(x), atol=1e-5)
    doubles = coded_of([kind, "rq"], 50, 11, np.random.default_rng(0))
    assert np.allclose(x.decoded().numpy(), doubles.decoded().numpy(), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 19), n=st.integers(0, 20), width=st.integers(1, 33), seed=st.integers(0, 9)
)
def test_sum_of_table_rows_is_embedding_bag(count, n, width, seed):
    rng = np.random.default_rng(seed)
    codes = torch.from_numpy(rng.integers(0, 256, (n, count), dtype=np.uint8))
    tables = torch.from_numpy(rng.normal(size=(count, 256, width))).requires_grad_()
    grad = torch.from_numpy(rng.normal(size=(n, width)))
    found = table_sum(codes, tables)
    expected = tables[torch.arange(count), codes.long()].sum(1)
    assert torch.allclose(found, expected, atol=1e-12)
    for a, b in zip(
        *(torch.autograd.grad(v, tables, grad) for v in (found, expected)), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-12)


def test_any_number_of_threads_gives_the_same_bits():
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, 256, (999, 9), dtype=np.uint8))
    tables = torch.from_numpy(rng.normal(size=(9, 256, 70)).astype(np.float32)).requires_grad_()
    grad = torch.from_numpy(rng.normal(size=(999, 70)).astype(np.float32))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = table_sum(codes, tables)
            found.append((out.detach(), *torch.autograd.grad(out, tables, grad)))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_codes_and_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 bytes a row"):
        table_sum(torch.zeros((2, 3), dtype=torch.uint8), torch.zeros(2, 256, 4))


def test_few_bytes_go_through_tables_and_many_are_decoded():
    rng = np.random.default_rng(0)
    few = coded_of(["pq"], 4000, 128, rng, torch.float32)
    assert few.as_tables(256, backward=True)
    assert few.as_tables(256, backward=False)
    assert not few.first(100).as_tables(
        256, backward=True
    )  # the tables alone have more rows than the codes
    each = np.arange(129)
    many = Tables.of(lookup_of(each[:-1], each[1:], 128, rng))
    codes = torch.from_numpy(rng.integers(0, 256, (4000, 128), dtype=np.uint8))
    assert not Coded((Part(codes, many),)).as_tables(256, backward=True)


@pytest.mark.parametrize("tables", [True, False])
@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
def test_models_read_codes_as_the_rows_they_stand_for(name, tables, monkeypatch):
    """Both ways of multiplying, and both orders of aggregation: the wide layer projects first, the
    narrow last."""
    monkeypatch.setattr(Coded, "as_tables", lambda _self, _out, *, backward: tables)
    rng = np.random.default_rng(3)
    a, _, _ = community(nodes=90)
    for dim, hidden in ((6, 40), (40, 4)):
        model = build_model(
            {
                "model": name,
                "num_features": dim,
                "hidden": hidden,
                "num_classes": 3,
                "layers": 2,
                "dropout": 0.0,
                "heads": 2,
                "self_loops": True,
            },
            seed=0,
        ).double()
        matrix = weighted(a, model.adj, np.asarray(a.sum(1)).ravel())
        adjs = [adj_of(matrix[:60], torch.float64), adj_of(matrix[:30, :60], torch.float64)]
        x = coded_of(["pq", "rq"], 90, dim, rng)
        found, expected = model(x, adjs), model(dense(x), adjs)
        assert torch.allclose(found, expected, atol=1e-10)
        grad = torch.from_numpy(rng.normal(size=found.shape))
        gradients = [
            torch.autograd.grad(out, list(model.parameters()), grad) for out in (found, expected)
        ]
        for ours, theirs in zip(*gradients, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-9)


def test_codes_aggregate_first_where_no_transpose_was_brought():
    a, _, _ = community(nodes=90)
    model = build_model(
        {
            "model": "gcn",
            "num_features": 40,
            "hidden": 4,
            "num_classes": 3,
            "layers": 1,
            "dropout": 0.0,
        },
        seed=0,
    )
    matrix = adj_of(weighted(a, "norm", np.asarray(a.sum(1)).ravel()))
    x = coded_of(["pq"], 90, 40, np.random.default_rng(0), torch.float32)
    without = type(matrix)(matrix.csr)
    model(x, without).sum().backward()
    assert model.convs[0].lin.weight.grad is not None


def test_linear_takes_the_way_that_costs_less(monkeypatch):
    x = coded_of(["pq"], 4000, 128, np.random.default_rng(0), torch.float32)
    weight = torch.randn(256, 128)
    expected = x.decoded() @ weight.t()
    monkeypatch.setattr(Coded, "decoded", None)
    assert torch.allclose(linear(x, weight), expected, atol=1e-3)
    assert coded.linear(expected, torch.eye(256)).shape == expected.shape


def test_tables_projected_in_bfloat16_are_summed_in_float32():
    x = coded_of(["pq"], 4000, 128, np.random.default_rng(0), torch.float32)
    weight = torch.randn(256, 128)
    with torch.autocast("cpu", torch.bfloat16):
        found = x.times(weight)
    assert found.dtype == torch.float32
    assert torch.allclose(found, x.times(weight), atol=1.0)


@pytest.mark.parametrize("conv", [GCNConv(30, 8), SAGEConv(30, 8)])
def test_a_stored_first_layer_takes_codes(conv):
    """Of 45 stored columns, two hops and the graph's own: rows or codes, the same and the same
    gradient."""
    x = coded_of(["pq", "rq"], 70, 45, np.random.default_rng(4), torch.float32)
    layer = StoredConv(conv, 15)
    layer.reset_parameters()
    rows = torch.from_numpy(brute(x)).float()
    own, near = rows[:, :-15], rows[:, 15:]
    expected = (
        conv.lin(near) + conv.bias
        if isinstance(conv, GCNConv)
        else conv.lin_l(near) + conv.lin_r(own)
    )
    goal = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * goal).sum(), list(layer.parameters()))
    for features in (x, rows):
        found = layer(features)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        gradient = torch.autograd.grad((found * goal).sum(), list(layer.parameters()))
        for one, other in zip(gradient, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
