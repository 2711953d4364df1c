"""One packed record as people read it: every figure is counted from the record itself, after its
checksum.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.columns import hag_of
from stockpot.stages.loader.records import Records
from stockpot.stages.show.plain import human_bytes, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stockpot.inspection.target import Target
    from stockpot.stages.pack.record import Record

__all__ = ["record_document", "record_text"]

FIRST = 10  # outputs listed one by one
ACROSS = 7  # label counts in a line


def record_document(target: Target, again: str) -> dict[str, Any]:
    """JSON of record `target.record`. O(nodes + edges) of that record.

    Parameters
    ----------
    again : the command without `--record`, for the mend of one that is out of range.

    Raises
    ------
    BadInput
        There is no such record.
    Corrupt
        Its bytes do not match the index.
    """
    records, i = Records.from_reader(target.reader), target.record or 0
    if not 0 <= i < len(records):
        raise BadInput(
            f"inspect: {target.name}: expected --record in 0..{len(records) - 1}, found {i}",
            fix=f"{again} --record {min(max(i, 0), len(records) - 1)}",
        )
    record, place, meta = records[i], records.place(i), records.meta
    # Columns of edges are made on reading where a file has none.
    left_out = {"layers", *(("indptr", "indices") if records.edgeless else ())}
    y = np.asarray(record.y)
    classes, counts = np.unique(y[y >= 0], return_counts=True)
    return {
        "artifact": target.name,
        "key": target.reader.key,
        "split": meta["split"],
        "record": i,
        "records": len(records),
        "round": i * int(meta.get("rounds", 1)) // len(records),
        "rounds": int(meta.get("rounds", 1)),
        "file": str(place.path),
        "offset": place.offset,
        "bytes": place.length,
        "crc32c": f"{place.crc32c:08x}",
        "codec": meta["codec"],
        "code_bytes": int(record.codes.nbytes)
        + (0 if record.codes_1 is None else int(record.codes_1.nbytes)),
        "columns": {
            f.name: int(getattr(record, f.name).nbytes)
            for f in fields(record)
            if f.name not in left_out and getattr(record, f.name) is not None
        }
        | _layers(record),
        "directed": bool(meta["directed"]),
        "weighted": bool(meta["weighted"]),
        "edgeless": records.edgeless,
        "num_outputs": record.num_outputs,
        "num_nodes": record.num_nodes,
        "num_edges": record.num_edges,
        "hops": _hops(record),
        "held": _share(record.num_edges, int(np.asarray(record.deg, np.int64).sum())),
        "labels": {str(c): int(n) for c, n in zip(classes, counts, strict=True)},
        "unlabelled": int((y < 0).sum()),
        "hag": _hag(record),
        "blocks": _blocks(record.block_ptr),
        "outputs": _outputs(record),
    }


def _hag(record: Record) -> dict[str, Any] | None:
    """Sums the record shares: its HAG against its CSR; None where it has none."""
    found = hag_of(record)
    if found is None:
        return None
    sizes = {
        "nodes": found.num_aggregations,
        "levels": found.depth,
        "reads": found.reads,
        "adds": found.adds,
    }
    return {**sizes, "reads_ratio": found.reads_ratio, "adds_ratio": found.adds_ratio}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _hops(record: Record) -> list[dict[str, Any]]:
    """Per hop: its nodes, the edges into them, the same in the whole graph, and blocks with a node
    of it.
    """
    ends = np.cumsum(record.num_sampled_nodes)
    found = []
    for hop, (stop, count) in enumerate(
        zip(ends.tolist(), record.num_sampled_nodes.tolist(), strict=True)
    ):
        edges = _edges(record, hop, stop - count, stop)
        degree = int(np.asarray(record.deg[stop - count : stop], np.int64).sum())
        found.append(
            {
                "hop": hop,
                "nodes": count,
                "outputs": record.num_outputs if hop == 0 else 0,
                "edges": edges,
                "edges_in_graph": degree,
                "held": _share(edges, degree),
                "blocks": int((np.diff(record.block_ptr[hop]) > 0).sum()),
            }
        )
    return found


def _layers(record: Record) -> dict[str, int]:
    """Bytes of the columns of layers with edges of their own."""
    names = ("indptr", "indices", "edge_w", "weight")
    every = (
        (f"{n}_{at}", getattr(one, n)) for at, one in enumerate(record.layers or ()) for n in names
    )
    return (
        {name: int(values.nbytes) for name, values in every if values is not None}
        if record.layered
        else {}
    )


def _edges(record: Record, hop: int, start: int, stop: int) -> int:
    """Edges into the rows of a hop; where layers have their own, those of the layer the hop is
    first a row of.
    """
    if not record.layered:
        return int(record.indptr[stop] - record.indptr[start])
    layers = record.layers or ()
    return int(layers[hop].indptr[stop] - layers[hop].indptr[start]) if hop < len(layers) else 0


def _blocks(block_ptr: NDArray[np.int32]) -> dict[str, int]:
    """Rows a block owns, over all hops."""
    rows = np.diff(block_ptr, axis=1).sum(axis=0)
    return {
        "K": rows.size,
        "held": int((rows > 0).sum()),
        "least_rows": int(rows.min()),
        "most_rows": int(rows.max()),
    }


def _outputs(record: Record) -> list[dict[str, int | None]]:
    """The first outputs, with their neighbours in the record and in the whole graph."""
    indptr = record.layers[0].indptr if record.layered and record.layers else record.indptr
    inside = np.diff(indptr[: FIRST + 1])
    return [
        {
            "input_id": int(record.input_id[row]),
            "n_id": int(record.n_id[row]),
            "label": int(record.y[row]) if record.y[row] >= 0 else None,
            "neighbours": int(inside[row]),
            "neighbours_in_graph": int(record.deg[row]),
        }
        for row in range(min(FIRST, record.num_outputs))
    ]


def record_text(document: dict[str, Any]) -> str:
    """The same as tables."""
    d = document
    codec = d["codec"]
    width = (
        "rows of varying length"
        if codec["row_bytes"] is None
        else f"{codec['row_bytes']:,} bytes a row"
    )
    kind = ", ".join(word for word in ("directed", "weighted", "edgeless") if d[word])
    rounds = f", round {d['round']} of {d['rounds']}" if d["rounds"] > 1 else ""
    columns = ", ".join(f"{name} {human_bytes(size)}" for name, size in d["columns"].items())
    head = [
        [
            "record",
            f"{d['record']} of {d['records']} ({d['artifact']}, split {d['split']}){rounds}",
        ],
        ["bytes", f"{human_bytes(d['bytes'])} at offset {d['offset']:,} of {d['file']}"],
        ["crc32c", f"{d['crc32c']}, matches its bytes"],
        [
            "codec",
            (
                f"{codec['name']}, {codec['num_features']:,} features, {width}, "
                f"{human_bytes(d['code_bytes'])}"
            ),
        ],
        ["columns", columns],
        *([["graph", kind]] if kind else []),
        *([["hag", _hag_text(d["hag"])]] if d["hag"] else []),
    ]
    blocks = d["blocks"]
    held = (
        f"held: share of the neighbours in the whole graph that are in the record; "
        f"{blocks['held']} of {blocks['K']} "
        f"blocks have rows, {blocks['least_rows']:,} to {blocks['most_rows']:,} each"
    )
    parts = [
        "\n".join(f"{name:<9}{text}" for name, text in head),
        _hop_table(d),
        held,
        _labels(d),
        _output_table(d),
    ]
    return "\n\n".join(parts)


def _hag_text(hag: dict[str, Any]) -> str:
    return (
        f"{hag['nodes']:,} partial sums in {hag['levels']} levels: {hag['reads_ratio']:.2f} x "
        f"fewer reads, "
        f"{hag['adds_ratio']:.2f} x fewer additions"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _hop_table(d: dict[str, Any]) -> str:
    rows = [
        [
            str(hop["hop"]),
            *(f"{hop[name]:,}" for name in ("nodes", "outputs", "edges", "edges_in_graph")),
            _percent(hop["held"]),
            str(hop["blocks"]),
        ]
        for hop in d["hops"]
    ]
    whole = sum(hop["edges_in_graph"] for hop in d["hops"])
    sums = [f"{d[name]:,}" for name in ("num_nodes", "num_outputs", "num_edges")]
    rows.append(["all", *sums, f"{whole:,}", _percent(d["held"]), str(d["blocks"]["held"])])
    head = ("hop", "nodes", "outputs", "edges", "edges in graph", "held", "blocks")
    return table(head, rows, right=range(1, 7))


def _labels(d: dict[str, Any]) -> str:
    counts = [*d["labels"].items(), *([("none", d["unlabelled"])] if d["unlabelled"] else [])]
    cells = [f"{name:>6}: {count:<7,}" for name, count in counts]
    lines = ["".join(cells[i : i + ACROSS]).rstrip() for i in range(0, len(cells), ACROSS)]
    return "\n".join([f"outputs of each label, {len(d['labels'])} classes", *lines])


def _output_table(d: dict[str, Any]) -> str:
    rows = [
        [
            *(str(output[name]) for name in ("input_id", "n_id")),
            "-" if output["label"] is None else str(output["label"]),
            *(f"{output[name]:,}" for name in ("neighbours", "neighbours_in_graph")),
        ]
        for output in d["outputs"]
    ]
    head = ("input_id", "n_id", "label", "neighbours in record", "in graph")
    more = d["num_outputs"] - len(rows)
    return table(head, rows, right=range(5)) + (f"\n… {more:,} more outputs" if more else "")
