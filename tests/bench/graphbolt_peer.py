"""GraphBolt's neighbour sampler in an environment of its own: seeds in, blocks out, with the CPU
seconds that sampling took; with a file of features their rows after them, read from disk.

    DIR/bin/python graphbolt_peer.py GRAPH.npz '[10, 10, 10]' SEED
    DIR/bin/python graphbolt_peer.py GRAPH.npz '[10, 10, 10]' SEED FEATURES.npy normal|random

Features are a `TorchBasedFeature` of a memory map, which is what `OnDiskFeatureData` with
`in_memory: false` opens; this version has no `DiskBasedFeature`. "random" advises the kernel of
random reads.

Environment: `python -m venv DIR`, `DIR/bin/pip install torch==2.2.1 'numpy<2'`, then `--no-deps
dgl==2.1.0 torchdata==0.7.1`, then scipy, networkx, requests, tqdm, psutil, pyyaml, pydantic and
pandas.
"""

import json
import mmap
import os
import sys
import time

import numpy as np
import torch

GROUPS = "STOCKPOT_BENCH_GROUPS"
"""Variable of the environment: folders of control groups that this process joins."""
ROWS = 8192
"""Rows read at a time, so that there is no second copy of all of them."""


def main(path, fanouts, seed, features=None, advice="normal"):
    for group in filter(None, os.environ.get(GROUPS, "").split(os.pathsep)):
        with open(f"{group}/tasks", "w") as file:
            file.write(str(os.getpid()))
    import dgl.graphbolt as gb

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    started = time.process_time()
    with np.load(path) as z:
        indptr = torch.from_numpy(z["indptr"].astype(np.int64))
        indices = torch.from_numpy(z["indices"].astype(np.int32))
    graph = gb.fused_csc_sampling_graph(indptr, indices)
    counts = [torch.LongTensor([count]) for count in reversed(fanouts)]
    feature = None
    if features is not None:
        mapped = np.load(features, mmap_mode="r+")
        if advice == "random":
            mapped.base.madvise(mmap.MADV_RANDOM)
        feature = gb.TorchBasedFeature(torch.from_numpy(mapped))
    send(json.dumps({"seconds": time.process_time() - started, **so_far()}).encode() + b"\n")
    while size := sys.stdin.buffer.read(8):
        raw = sys.stdin.buffer.read(8 * int.from_bytes(size, "little"))
        seeds = torch.from_numpy(np.frombuffer(raw, np.int64).astype(np.int32))
        started, wall = time.process_time(), time.perf_counter()
        nodes, arrays, layers = seeds, [], []
        for count in counts:  # as gb.NeighborSampler does, without its data pipes
            sampled = graph.sample_neighbors(nodes, count).sampled_csc
            nodes, csc = gb.unique_and_compact_csc_formats(sampled, nodes)
            arrays = [csc.indptr, csc.indices, *arrays]
            layers.insert(0, (len(csc.indptr) - 1, len(csc.indices), len(nodes)))
        x = None if feature is None else rows_of(feature, nodes)
        seconds, wall = time.process_time() - started, time.perf_counter() - wall
        head = {"seconds": seconds, "wall": wall, "nodes": len(nodes), "layers": layers}
        send(json.dumps({**head, **so_far()}).encode() + b"\n",
             *(array.numpy().astype(np.int32).tobytes() for array in [nodes, *arrays]))  # fmt: skip
        if x is not None:
            send(memoryview(x.numpy()).cast("B"))


def rows_of(feature, nodes):
    """Rows of nodes, read in the order of the file, which is the best that a batch can do."""
    order = torch.argsort(nodes)
    x = torch.empty((len(nodes), *feature.size()))
    for some in order.split(ROWS):
        x[some] = feature.read(nodes[some])
    return x


def so_far():
    """Bytes that this process had fetched from storage so far."""
    with open("/proc/self/io") as file:
        return {"read_bytes": int(dict(line.split(": ") for line in file)["read_bytes"])}


def send(*parts):
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
