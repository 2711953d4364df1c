"""Samplers of DGL or torch_geometric in a process of their own: a line in, a line of CPU seconds
and counts out.

python sampling_peer.py KIND GRAPH.npz    # KIND: dgl-neighbor | dgl-labor | pyg; arrays indptr,
indices, seeds
"""

import sys
import time

import numpy as np

FANOUTS = [10, 10]


def dgl_sampler(kind, z):
    import dgl
    import torch

    torch.set_num_threads(1)
    n = len(z["indptr"]) - 1
    target = np.repeat(np.arange(n), np.diff(z["indptr"]))
    graph = dgl.graph(
        (torch.from_numpy(z["indices"].astype(np.int64)), torch.from_numpy(target)), num_nodes=n
    )
    graph = graph.formats("csc")
    graph.create_formats_()
    sampler = {
        "dgl-neighbor": dgl.dataloading.NeighborSampler,
        "dgl-labor": dgl.dataloading.LaborSampler,
    }[kind](FANOUTS)

    def sample(seeds):
        nodes, _, blocks = sampler.sample_blocks(graph, seeds)
        return sum(block.num_edges() for block in blocks), len(nodes)

    return sample


def pyg_sampler(z):
    import torch
    from torch_geometric.data import Data
    from torch_geometric.loader import NeighborLoader

    torch.set_num_threads(1)
    n = len(z["indptr"]) - 1
    target = np.repeat(np.arange(n), np.diff(z["indptr"]))
    edges = torch.from_numpy(np.stack([z["indices"].astype(np.int64), target]))
    loader = NeighborLoader(
        Data(edge_index=edges, num_nodes=n), FANOUTS, batch_size=len(z["seeds"][0])
    )

    def sample(seeds):
        found = loader.node_sampler.sample_from_nodes(_input(seeds))
        return len(found.row), len(found.node)

    from torch_geometric.sampler import NodeSamplerInput

    def _input(seeds):
        return NodeSamplerInput(input_id=None, node=seeds)

    return sample


def main():
    import torch

    kind, path = sys.argv[1:]
    z = dict(np.load(path))
    sample = pyg_sampler(z) if kind == "pyg" else dgl_sampler(kind, z)
    batches = [torch.from_numpy(seeds.astype(np.int64)) for seeds in z["seeds"]]
    sample(batches[0])
    print("ready", flush=True)
    for _ in sys.stdin:
        edges = nodes = 0
        started = time.process_time()
        for seeds in batches:
            e, v = sample(seeds)
            edges, nodes = edges + e, nodes + v
        print(time.process_time() - started, edges, nodes, flush=True)


if __name__ == "__main__":
    main()
