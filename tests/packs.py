"""A small graph, its partition, records and codes as readers in memory, packed by the real
stages."""

import numpy as np
import scipy.sparse as sp

from stockpot.stages.codebook import STAGE as CODEBOOK
from stockpot.stages.codec.codec_names import is_lossy
from stockpot.stages.pack import STAGE as PACK
from stockpot.stages.pack.stage import Params as PackParams
from stockpot.stages.quantize import STAGE as QUANTIZE
from tests.memory import MemoryReader, run_stage


def graph_reader(
    nodes=200,
    degree=5,
    features=7,
    classes=4,
    seed=0,
    directed=False,
    weighted=False,
    binary=False,
    sparse=False,
):
    """A random graph as `ingest` would store it."""
    rng = np.random.default_rng(seed)
    count = nodes * degree // (1 if directed else 2)
    source, target = rng.integers(0, nodes, count), rng.integers(0, nodes, count)
    keep = source != target
    source, target = source[keep], target[keep]
    value = rng.uniform(0.5, 2.0, len(source)).astype(np.float32)
    a = sp.csr_matrix((value, (target, source)), (nodes, nodes))
    if not directed:
        a = a.maximum(a.T).tocsr()
    a.sort_indices()
    x = rng.normal(size=(nodes, features)).astype(np.float32)
    x = (x > 1).astype(np.float32) if binary else x
    arrays = {
        "indptr": a.indptr.astype(np.int64),
        "indices": a.indices.astype(np.int32),
        "y": rng.integers(-1, classes, nodes).astype(np.int32),
    }
    if weighted:
        arrays["weight"] = a.data.astype(np.float32)
    if directed:
        t = a.T.tocsr()
        t.sort_indices()
        arrays |= {"t_indptr": t.indptr.astype(np.int64), "t_indices": t.indices.astype(np.int32)}
        arrays["out_deg"] = np.diff(t.indptr).astype(np.int32)
    if sparse:
        s = sp.csr_matrix(x)
        arrays |= {"x_indptr": s.indptr.astype(np.int64), "x_indices": s.indices.astype(np.int32)}
        if not binary:
            arrays["x_data"] = s.data
    else:
        arrays["x"] = x
    facts = {
        "num_nodes": nodes,
        "nnz": int(a.nnz),
        "num_features": features,
        "num_classes": classes,
        "directed": directed,
        "weighted": weighted,
        "features": "sparse" if sparse else "dense",
        "binary": binary,
        "x_nnz": int(np.count_nonzero(x)),
    }
    return MemoryReader(arrays, facts, digest="9" * 32)


def records_reader(num_nodes, outputs=60, records=6, aux=25, seed=0, rounds=1):
    """Records of random nodes, as `influence` would store them: members in no particular order, new
    in each round."""
    rng = np.random.default_rng(seed + 1)
    ids = np.sort(rng.choice(num_nodes, outputs, replace=False)).astype(np.int32)
    position = np.concatenate([rng.permutation(outputs) for _ in range(rounds)])
    ptr = np.linspace(0, outputs, records + 1).astype(np.int64)
    out_ptr = np.concatenate([[0], *(ptr[1:] + r * outputs for r in range(rounds))])
    rows = []
    for r in range(rounds * records):
        mine = ids[position[out_ptr[r] : out_ptr[r + 1]]]
        rows.append(
            np.union1d(mine, rng.choice(num_nodes, aux + 4 * r, replace=False)).astype(np.int32)
        )
    n_ptr = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    arrays = {
        "outputs": ids[position],
        "out_ptr": out_ptr,
        "input_id": position.astype(np.int64),
        "n_id": np.concatenate(rows),
        "n_ptr": n_ptr,
    }
    facts = {
        "split": "train",
        "records": len(rows),
        "outputs": outputs,
        "rows": int(n_ptr[-1]),
        "num_nodes": num_nodes,
    }
    return MemoryReader(arrays, facts | ({"rounds": rounds} if rounds > 1 else {}), digest="8" * 32)


def partition_reader(num_nodes, parts=8, seed=0):
    part = np.random.default_rng(seed + 2).integers(0, parts, num_nodes).astype(np.int32)
    return MemoryReader({"part": part}, {"parts": parts, "num_nodes": num_nodes}, digest="7" * 32)


def split_reader(num_nodes, seed=0):
    ids = np.random.default_rng(seed + 3).permutation(num_nodes)[: num_nodes // 2]
    parts = np.split(np.sort(ids).astype(np.int32), [num_nodes // 4, num_nodes // 3])
    return MemoryReader(dict(zip(("train", "valid", "test"), parts, strict=True)), {})


def inputs_of(root, codec="auto", records=None, tier=(0.0, 1), **graph):
    """Inputs of `pack` by role; `tier`: share of the nodes with further stages, and their bytes."""
    g = graph_reader(**graph)
    nodes = g.facts["num_nodes"]
    chosen = {"codec": "lossless" if g.facts["binary"] else "fp32"}
    asked = {
        "features.codec": codec,
        "features.tier_share": tier[0],
        "features.tier_bytes": tier[1],
    }
    params = QUANTIZE.resolve(asked, {"graph": g.facts, "codebook": chosen})
    books = {"graph": g}
    if is_lossy(codec):
        book = CODEBOOK.resolve(asked, {"graph": g.facts})
        books["codebook"] = run_stage(
            CODEBOOK, book, {"graph": g, "split": split_reader(nodes)}, root / "codebook"
        )
    codes = run_stage(QUANTIZE, params, books, root / "codes")
    return {
        "graph": g,
        "partition": partition_reader(nodes),
        "records": records_reader(nodes, **(records or {})),
        "codes": codes,
    }


def packed(root, *, shard_bytes=64 << 20, key="1" * 32, gather=False, **options):
    """(reader of a pack artifact of split train, its inputs)."""
    inputs = inputs_of(root, **options)
    reader = run_stage(PACK, PackParams("train", 4, shard_bytes, gather), inputs, root / "pack")
    reader.key, reader.parents = key, inputs
    return reader, inputs


def dense(graph):
    """f8[N, N], row = destination, without self-loops."""
    weight = graph.arrays.get("weight", np.ones(len(graph.arrays["indices"]), np.float32))
    n = graph.facts["num_nodes"]
    return (
        sp.csr_matrix((weight, graph.arrays["indices"], graph.arrays["indptr"]), (n, n))
        .toarray()
        .astype(np.float64)
    )


def features(graph):
    """f4[N, D]."""
    if "x" in graph.arrays:
        return graph.arrays["x"]
    data = graph.arrays.get("x_data", np.ones(len(graph.arrays["x_indices"]), np.float32))
    shape = (graph.facts["num_nodes"], graph.facts["num_features"])
    return sp.csr_matrix(
        (data, graph.arrays["x_indices"], graph.arrays["x_indptr"]), shape
    ).toarray()
