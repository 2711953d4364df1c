"""A packed file and its index are a function of their records alone: the same bytes on any number
of workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
import pyarrow as pa

from stockpot.stages.errors import BadInput, NonDeterminism
from stockpot.stages.pack.build import gather_further, gather_rows, subgraph, weight_sums
from stockpot.stages.pack.index import label_counts, write_index
from stockpot.stages.pack.record import Record
from stockpot.stages.pack.schema import INT32_MAX, MAGIC_BYTES, schema_of, to_batch
from stockpot.stages.partition.blocks import blocks as block_of
from stockpot.stages.partition.blocks import num_blocks
from stockpot.stages.sample.batch import Sampler
from stockpot.stages.sample.sampler_inputs import graph_of, sampling_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.stage import Inputs

__all__ = ["Builder", "write_shard"]


class Builder:
    """Builds records of one split from the graph, the partition, the records' nodes and the codes.

    Parameters
    ----------
    inputs : roles graph, partition, records, codes; no partition where records have no edges: the
        blocks of ownership are equal ranges of ids then.
    blocks : most units of ownership K; fewer where the partition has fewer parts.
    gather : leave the codes where they are.
    """

    def __init__(self, inputs: Inputs, blocks: int, *, gather: bool = False) -> None:
        graph, records, codes = (inputs[r] for r in ("graph", "records", "codes"))
        self.edgeless = bool(records.facts.get("edgeless"))
        if self.edgeless:
            self.parts = int(graph.facts["num_nodes"])
        else:
            self.parts = int(inputs["partition"].facts["parts"])
            self.part = inputs["partition"].array("part")
        self.blocks = num_blocks(self.parts, blocks)
        self.indptr, self.indices, self.y = (
            graph.array("indptr"),
            graph.array("indices"),
            graph.array("y"),
        )
        self.weight = graph.array("weight") if graph.facts["weighted"] else np.zeros(0, np.float32)
        self.out_deg = graph.array("out_deg") if graph.facts["directed"] else None
        self.outputs, self.out_ptr = records.array("outputs"), records.array("out_ptr")
        self.input_id = records.array("input_id")
        self.n_id, self.n_ptr = records.array("n_id"), records.array("n_ptr")
        self.codes = None if gather else codes.array("codes")
        self.code_indptr = (
            codes.array("code_indptr") if codes.has("code_indptr") and not gather else None
        )
        self.further = (
            (codes.array("codes_1_rows"), codes.array("codes_1")) if codes.has("codes_1") else None
        )
        self.gather, self.coded = gather, 0
        self.local = np.full(int(graph.facts["num_nodes"]), -1, np.int32)
        self.dropped = 0
        self.sampler: Sampler | None = None
        if "sampling" in records.facts:
            block = block_of(self.part, self.parts, self.blocks)
            self.sampler = Sampler(
                graph_of(graph, block, self.blocks), sampling_of(records.facts["sampling"])
            )

    @property
    def layered(self) -> bool:
        """Whether each layer of its records has edges of its own."""
        one = self.sampler
        return one is not None and not one.how.one_csr(weighted=one.graph.weighted)

    def build(self, r: int) -> Record:
        """Record `r`; nodes that reach no output are dropped and counted in `dropped`. O(sum of
        degrees).
        """
        if self.sampler is not None:
            return self._sampled(r)
        if self.edgeless:
            return self._rows(r)
        nodes = self.n_id[self.n_ptr[r] : self.n_ptr[r + 1]]
        outputs = self.outputs[self._span(r)]
        block = block_of(self.part[nodes], self.parts, self.blocks)
        n_id, block_ptr, indptr, indices, t_indptr, t_indices, weight, deg_w = subgraph(
            nodes, outputs, block, self.blocks, self.indptr, self.indices, self.weight, self.local
        )
        if indices.size > INT32_MAX:
            raise BadInput(
                f"record {r}: {indices.size} edges, expected at most {INT32_MAX}",
                fix="lower batches.outputs",
            )
        self.dropped += nodes.size - n_id.size
        directed, weighted = self.out_deg is not None, self.weight.size > 0
        return Record(
            **self._of(outputs, self.input_id[self._span(r)], n_id),
            num_sampled_nodes=(block_ptr[:, -1] - block_ptr[:, 0]).astype(np.int32),
            block_ptr=block_ptr,
            indptr=indptr.astype(np.int32),
            indices=indices,
            t_indptr=t_indptr.astype(np.int32) if directed else None,
            t_indices=t_indices if directed else None,
            weight=weight if weighted else None,
            deg_w=deg_w.astype(np.float32) if weighted else None,
        )

    def _rows(self, r: int) -> Record:
        """Record `r` of outputs alone: no edge is looked at. O(outputs log outputs)."""
        outputs = self.outputs[self._span(r)]
        n_id = np.sort(outputs)
        block = block_of(n_id, self.parts, self.blocks)  # rises with the id
        ends = np.searchsorted(block, np.arange(self.blocks + 1)).astype(np.int32)
        weighted = self.weight.size > 0
        return Record(
            **self._of(outputs, self.input_id[self._span(r)], n_id),
            num_sampled_nodes=np.array([n_id.size], np.int32),
            block_ptr=ends[None],
            indptr=np.zeros(n_id.size + 1, np.int32),
            indices=np.zeros(0, np.int32),
            deg_w=weight_sums(n_id, self.indptr, self.weight) if weighted else None,
        )

    def _sampled(self, r: int) -> Record:
        """Record `r` as sampled again: the same edges as when its nodes were found.

        Raises
        ------
        NonDeterminism
            It has other nodes.
        """
        found = self.drawn(r, self.outputs[self._span(r)], self.input_id[self._span(r)])
        if not np.array_equal(np.sort(found.n_id), self.n_id[self.n_ptr[r] : self.n_ptr[r + 1]]):
            raise NonDeterminism(
                f"record {r}: sampled again it has other nodes than in its artifact",
                fix="run the recipe again with one version of stockpot",
            )
        return found

    def drawn(self, number: int, outputs: NDArray[np.int32], input_id: NDArray[np.int64]) -> Record:
        """Batch `number` of the sampling, of some outputs and their positions in the split."""
        if self.sampler is None:
            raise BadInput("records: expected sampled ones, found all edges between their nodes")
        found = self.sampler.batch(number, outputs)
        indptr, indices = np.zeros(0, np.int32), np.zeros(0, np.int32)
        if not self.layered:
            outer = found.layers[-1]
            empty = found.n_id.size + 1 - outer.indptr.size
            indptr, indices = (
                np.concatenate([outer.indptr, np.full(empty, outer.indptr[-1])]),
                outer.indices,
            )
        weighted = self.weight.size > 0
        return Record(
            **self._of(outputs, input_id, found.n_id),
            num_sampled_nodes=found.num_sampled_nodes,
            block_ptr=found.block_ptr,
            indptr=indptr,
            indices=indices,
            deg_w=weight_sums(found.n_id, self.indptr, self.weight) if weighted else None,
            layers=found.layers,
        )

    def _span(self, r: int) -> slice:
        """Where the outputs of record `r` lie."""
        return slice(int(self.out_ptr[r]), int(self.out_ptr[r + 1]))

    def _of(
        self, outputs: NDArray[np.int32], input_id: NDArray[np.int64], n_id: NDArray[np.int32]
    ) -> dict[str, Any]:
        """What a record holds of its nodes, whatever its edges are; the outputs are the first of
        them.
        """
        by_id = np.argsort(outputs, kind="stable")
        hop0 = n_id[: outputs.size]
        code_indptr, codes = None, np.zeros((0, 0), np.uint8)
        if self.codes is not None:
            code_indptr, codes = gather_rows(n_id, self.code_indptr, self.codes)
        codes_1 = codes_1_rows = None
        if self.further is not None:
            codes_1, codes_1_rows = gather_further(n_id, *self.further)
            self.coded += codes_1_rows.size
            codes_1, codes_1_rows = (None, None) if self.gather else (codes_1, codes_1_rows)
        return {
            "n_id": n_id,
            "deg": (self.indptr[n_id + np.int64(1)] - self.indptr[n_id]).astype(np.int32),
            "y": self.y[hop0],
            "input_id": input_id[by_id[np.searchsorted(outputs[by_id], hop0)]],
            "codes": codes,
            "code_indptr": code_indptr,
            "codes_1": codes_1,
            "codes_1_rows": codes_1_rows,
            "out_deg": self.out_deg[n_id] if self.out_deg is not None else None,
        }


def write_shard(
    path: Path,
    index_path: Path,
    meta: Mapping[str, Any],
    records: Sequence[Record],
    tables: bytes = b"",
) -> dict[str, Any]:
    """Write `records` as one packed file and its index; returns what the artifact's facts need.

    Parameters
    ----------
    meta : metadata of the file without `counts`, which is added here.
    tables : of the codec, as bytes.
    """
    counts = {
        "records": len(records),
        "outputs": sum(r.num_outputs for r in records),
        "nodes": sum(r.num_nodes for r in records),
        "edges": sum(r.num_edges for r in records),
    }
    schema = schema_of({**meta, "counts": counts}, tables)
    # The writer puts the schema before the first record only when that record comes.
    end = MAGIC_BYTES + len(schema.serialize())
    spans: list[tuple[int, int]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        for record in records:
            file.write_batch(to_batch(schema, record))
            spans.append((end, sink.tell() - end))
            end = sink.tell()
    with pa.memory_map(str(path)) as source:
        data = source.read_buffer(source.size())
        crc = [int(google_crc32c.value(data.slice(*span))) for span in spans]
        about = {
            "bytes": data.size,
            "records": len(records),
            "head_crc32c": int(google_crc32c.value(data.slice(0, spans[0][0]))),
            "tail_crc32c": int(google_crc32c.value(data.slice(end))),
        }
        del data
    rows = {
        "offset": [s[0] for s in spans],
        "length": [s[1] for s in spans],
        "crc32c": crc,
        "num_outputs": [r.num_outputs for r in records],
        "num_nodes": [r.num_nodes for r in records],
        "num_edges": [r.num_edges for r in records],
        "first_input_id": [int(r.input_id[0]) for r in records],
    }
    labels = np.stack([label_counts(r.y, meta["num_classes"]) for r in records])
    write_index(index_path, about, rows, labels)
    return {
        **counts,
        "bytes": int(about["bytes"]),
        "max_rows": max(r.num_nodes for r in records),
        "max_edges": max(r.num_edges for r in records),
        "hops": max(r.num_sampled_nodes.size for r in records),
    }
