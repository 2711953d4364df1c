"""HagAggregation in the place of torch_geometric's own aggregation: same results, gradients,
refusals."""

import warnings

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.factors import csr_of
from stockpot.stages.hag.hag import plain
from stockpot.stages.hag.module import REDUCE, HagAggregation


def geometric():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its import, of torch.jit
        from torch_geometric import nn
    return nn


def edges(nodes=40, groups=4, seed=0):
    """Cliques with a few extra edges, in a random order, and one isolated node."""
    rng = np.random.default_rng(seed)
    member = rng.integers(0, groups, nodes)
    adjacent = (member[:, None] == member) ^ (rng.random((nodes, nodes)) < 0.05)
    adjacent[0], adjacent[:, 0] = False, False
    source, target = np.nonzero(adjacent)
    order = rng.permutation(source.size)
    return torch.from_numpy(np.stack([source[order], target[order]]))


@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize("repeats", [1, 3])
def test_as_simple_conv(reduce, repeats):
    nn = geometric()
    edge_index = edges().repeat(1, repeats)
    aggregate = HagAggregation.from_edges(edge_index, 40, reduce)
    assert "fewer reads" in repr(aggregate)
    x = torch.randn(40, 9, requires_grad=True)
    grad = torch.randn(40, 9)
    out = aggregate(x)
    out.backward(grad)
    mine, x.grad = x.grad, None
    expected = nn.SimpleConv(aggr=reduce)(x, edge_index)
    expected.backward(grad)
    if reduce in ("max", "min"):
        assert torch.equal(out, expected)
    else:
        terms = nn.SimpleConv(aggr=reduce)(x.detach().abs(), edge_index)
        assert ((out - expected).abs() <= 1e-5 * terms).all()
    torch.testing.assert_close(mine, x.grad, rtol=1e-5, atol=1e-5)


def test_gcn_by_scales_before_and_after():
    conv = geometric().GCNConv(6, 5, normalize=False)
    from torch_geometric.nn.conv.gcn_conv import gcn_norm

    edge_index, weight = gcn_norm(edges(), num_nodes=40)
    x = torch.randn(40, 6, requires_grad=True)
    expected = conv(x, edge_index, weight)
    found = HagAggregation.from_edges(edge_index, 40, edge_weight=weight)(conv.lin(x)) + conv.bias
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (mine,), (theirs,) = (torch.autograd.grad(out.square().sum(), x) for out in (found, expected))
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_gradcheck():
    aggregate = HagAggregation.from_edges(edges(nodes=12), 12, "mean")
    assert torch.autograd.gradcheck(
        aggregate, torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("reduce", REDUCE)
def test_on_cuda_as_on_the_cpu(reduce, dtype):
    aggregate = HagAggregation.from_edges(edges(), 40, reduce)
    x = torch.randn(40, 9).to(dtype)
    limit = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(aggregate(x.cuda()).cpu(), aggregate(x), rtol=limit, atol=10 * limit)


def test_refused():
    edge_index = edges()
    with pytest.raises(BadInput, match="capacity"):
        HagAggregation.from_edges(edge_index, 40, capacity=-1)
    with pytest.raises(BadInput, match=r"edge \d+ -> \d+: its weight"):
        HagAggregation.from_edges(edge_index, 40, edge_weight=torch.rand(edge_index.shape[1]) + 0.1)
    with pytest.raises(BadInput, match="factors belong to reduce = sum"):
        HagAggregation.from_edges(
            edge_index, 40, "max", edge_weight=torch.ones(edge_index.shape[1])
        )
    with pytest.raises(BadInput, match="expected 40 rows"):
        HagAggregation.from_edges(edge_index, 40)(torch.ones(39, 2))
    indptr, indices, _ = csr_of(edge_index.numpy(), 40)
    with pytest.raises(BadInput, match="checksum"):
        HagAggregation(plain(indptr, indices), indptr, indices[::-1])
    with pytest.raises(BadInput, match=r"sum \| mean \| max \| min"):
        HagAggregation(plain(indptr, indices), indptr, indices, "median")
    with pytest.raises(BadInput, match="left: expected one factor"):
        HagAggregation(plain(indptr, indices), indptr, indices, left=torch.ones(3))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"edge_weight": torch.ones(64, 1)},
            r"each of 64 edges.* found shape \(64, 1\); fix: .*squeeze",
        ),
        ({"edge_weight": torch.ones(1, 64)}, r"found shape \(1, 64\)$"),
        ({"edge_weight": torch.ones(5)}, r"each of 64 edges, shape \(64,\), found shape \(5,\)$"),
        (
            {"edge_weight": torch.ones(100)},
            r"each of 64 edges, shape \(64,\), found shape \(100,\)$",
        ),
        ({"edge_weight": torch.tensor(1.0)}, r"found shape \(\)$"),
        (
            {"edge_weight": torch.ones(64, dtype=torch.complex64)},
            "expected real numbers, found torch.complex64",
        ),
        (
            {"edge_weight": torch.ones(64).bool()},
            "edge_weight: expected real numbers, found torch.bool",
        ),
        ({"edge_weight": np.ones(64)}, "edge_weight: expected a tensor, found ndarray; fix: "),
        (
            {"edge_index": torch.ones(2, 64)},
            r"edge_index: .* integers, found torch.float32; fix: .*long",
        ),
        (
            {"edge_index": torch.ones(2, 64).bool()},
            "edge_index: expected node ids as integers, found torch.bool",
        ),
        (
            {"edge_index": torch.ones(64, 2).long()},
            r"edge_index: expected shape \(2, E\), found \(64, 2\)",
        ),
        (
            {"edge_index": torch.ones(2).long()},
            r"edge_index: expected shape \(2, E\), found \(2,\)",
        ),
        (
            {"edge_index": np.ones((2, 64), np.int64)},
            "edge_index: expected a tensor, found ndarray",
        ),
        (
            {"edge_index": torch.ones(2, 64).long().to_sparse()},
            "edge_index: expected a dense tensor, found layout",
        ),
        ({"edge_index": torch.full((2, 64), 8)}, r"edge 0 is 8 -> 8: expected nodes 0\.\.7"),
        ({"num_nodes": True}, "num_nodes: expected a whole number from 0, below 2.31, found True"),
        ({"num_nodes": 8.0}, "found 8.0"),
        ({"num_nodes": 2**31}, "found 2147483648"),
    ],
)
def test_edges_of_another_form_are_refused_in_one_line(change, match):
    """pyg-team/pytorch_geometric#795 and its kind: more weights than edges were taken, others ended
    in tracebacks."""
    every = torch.tensor([(i, j) for i in range(8) for j in range(8)]).T
    with pytest.raises(BadInput, match=match) as refused:
        HagAggregation.from_edges(**{"edge_index": every, "num_nodes": 8, **change})
    assert "\n" not in str(refused.value)


def test_ids_and_weights_of_other_widths_are_read_as_they_are():
    every = torch.tensor([(i, j) for i in range(8) for j in range(8)]).T
    x = torch.randn(8, 3)
    expected = HagAggregation.from_edges(every, 8)(x)
    weight = torch.ones(64, dtype=torch.float16)
    for ids, weights in ((torch.uint8, None), (torch.int32, weight), (torch.int64, weight.long())):
        torch.testing.assert_close(
            HagAggregation.from_edges(every.to(ids), 8, edge_weight=weights)(x), expected
        )
