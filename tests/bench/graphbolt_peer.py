"""GraphBolt's neighbour sampler in an environment of its own: seeds in, blocks out, with the CPU
seconds that sampling took.

    DIR/bin/python graphbolt_peer.py GRAPH.npz '[10, 10, 10]' SEED

Environment: `python -m venv DIR`, `DIR/bin/pip install torch==2.2.1 'numpy<2'`, then `--no-deps
dgl==2.1.0 torchdata==0.7.1`, then scipy, networkx, requests, tqdm, psutil, pyyaml, pydantic and
pandas.
"""

import json
import sys
import time

import numpy as np
import torch


def main(path, fanouts, seed):
    import dgl.graphbolt as gb

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    started = time.process_time()
    with np.load(path) as z:
        indptr = torch.from_numpy(z["indptr"].astype(np.int64))
        indices = torch.from_numpy(z["indices"].astype(np.int32))
    graph = gb.fused_csc_sampling_graph(indptr, indices)
    counts = [torch.LongTensor([count]) for count in reversed(fanouts)]
    send(json.dumps({"seconds": time.process_time() - started}).encode() + b"\n")
    while size := sys.stdin.buffer.read(8):
        raw = sys.stdin.buffer.read(8 * int.from_bytes(size, "little"))
        seeds = torch.from_numpy(np.frombuffer(raw, np.int64).astype(np.int32))
        started = time.process_time()
        nodes, arrays, layers = seeds, [], []
        for count in counts:  # as gb.NeighborSampler does, without its data pipes
            sampled = graph.sample_neighbors(nodes, count).sampled_csc
            nodes, csc = gb.unique_and_compact_csc_formats(sampled, nodes)
            arrays = [csc.indptr, csc.indices, *arrays]
            layers.insert(0, (len(csc.indptr) - 1, len(csc.indices), len(nodes)))
        seconds = time.process_time() - started
        head = {"seconds": seconds, "nodes": len(nodes), "layers": layers}
        send(json.dumps(head).encode() + b"\n",
             *(array.numpy().astype(np.int32).tobytes() for array in [nodes, *arrays]))  # fmt: skip


def send(*parts):
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]))
