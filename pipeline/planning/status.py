"""`plan` and `status` as text and JSON: what is there, what would run, and what it would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.planning.budget import WORKER_BYTES, Budget, granted
from stockpot.planning.plan import totals
from stockpot.stages.show.plain import human_bytes, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stockpot.errors import BadInput
    from stockpot.planning.plan import Planned
    from stockpot.store.store import Store

__all__ = ["plan_document", "plan_text", "status_document", "status_text"]


def plan_document(
    planned: Sequence[Planned], budget: Budget, absent: BadInput | None = None
) -> dict[str, Any]:
    """JSON of a plan; unknown figures are null, and so is `absent` where the data set is there."""
    return {
        "absent": None if absent is None else str(absent),
        "memory_bytes": budget.memory_bytes if budget.bounded else None,
        "worker_bytes": WORKER_BYTES,
        "cores": budget.cores,
        "nodes": [
            {
                "node": p.node.id,
                "stage": p.node.stage,
                "state": p.state,
                "reason": p.reason or None,
                "key": p.key,
                "digest": p.digest,
                "read_bytes": p.cost.read if p.cost else None,
                "written_bytes": p.cost.written if p.cost else None,
                "peak_bytes": granted(p.cost, budget.task_bytes) if p.cost else None,
                "estimated": p.estimated,
                "note": (p.cost.note or None) if p.cost else None,
            }
            for p in planned
        ],
        "would_run": sum(not p.cached for p in planned),
        **totals(planned),
    }


def plan_text(planned: Sequence[Planned], budget: Budget, absent: BadInput | None = None) -> str:
    """A plan as a table; "~" marks figures that rest on estimated counts; `absent` says what data
    is missing.
    """
    rows = []
    for p in planned:
        mark = "~" if p.estimated else ""
        sizes = [p.cost.read, p.cost.written, granted(p.cost, budget.task_bytes)] if p.cost else []
        cells = [f"{mark}{human_bytes(size)}" for size in sizes] or ["?", "?", "?"]
        state = "cached" if p.cached else p.state if p.reason in ("", "not built yet") else p.reason
        rows.append([p.node.id, state, (p.key or "")[:12], *cells])
    text = table(
        ("artifact", "state", "key", "reads", "writes", "peak of a task"), rows, right=(3, 4, 5)
    )
    notes = [
        f"{p.node.id}: {'~' if p.estimated else ''}{p.cost.note}"
        for p in planned
        if p.cost and p.cost.note
    ]
    text = "\n\n".join([text, *(["\n".join(notes)] if notes else [])])
    todo = [p for p in planned if not p.cached]
    if not todo:
        return f"{text}\n\nnothing to run: all {len(planned)} artifacts are cached"
    sums = totals(planned)
    unknown = sum(p.cost is None for p in todo)
    tail = f", {unknown} of them not projected yet" if unknown else ""
    absence = "the data is not there yet; projections rest on published counts, where there are any"
    missing = "" if absent is None else f"\n\n{absence}: {absent}"
    memory = (
        human_bytes(budget.memory_bytes) if budget.bounded else "of each worker its --memory-limit"
    )
    where = f"{budget.cores} cores" if budget.local else f"the cluster {budget.scheduler}"
    return (
        f"{text}\n\n{len(todo)} of {len(planned)} artifacts would run{tail}: read "
        f"{human_bytes(sums['read'])}, write "
        f"{human_bytes(sums['written'])}; memory budget {memory} on {where}, "
        f"a worker stands at {human_bytes(WORKER_BYTES)} before its task{missing}"
    )


def status_document(planned: Sequence[Planned], store: Store) -> dict[str, Any]:
    """JSON of what is built; `shards_done` of what is in progress."""
    nodes = []
    for p in planned:
        work = (
            store.work_in_progress(p.key)
            if p.key and not p.cached
            else {"shards": [], "progress": {}}
        )
        manifest = p.manifest or {}
        nodes.append(
            {
                "node": p.node.id,
                "stage": p.node.stage,
                "state": "cached"
                if p.cached
                else "in progress"
                if work["shards"] or work["progress"]
                else p.state,
                "reason": p.reason or None,
                "key": p.key,
                "digest": p.digest,
                "bytes": sum(file["size"] for file in manifest["files"].values())
                if manifest
                else None,
                "seconds": manifest.get("seconds"),
                "peak_bytes": manifest.get("peak_bytes"),
                "started": manifest.get("started"),
                "shards_done": len(work["shards"]),
                "progress": work["progress"],
            }
        )
    return {
        "store": str(store.root),
        "cached": sum(p.cached for p in planned),
        "total": len(planned),
        "nodes": nodes,
    }


def status_text(document: dict[str, Any]) -> str:
    """Status as a table."""
    rows = []
    for node in document["nodes"]:
        state = node["reason"] if node["state"] != "cached" and node["reason"] else node["state"]
        if node["state"] == "in progress":
            shares = [f"{p['done']}/{p['total']}" for p in node["progress"].values()]
            state = f"in progress, {node['shards_done']} shards done" + (
                f", {' '.join(shares)}" if shares else ""
            )
        built = node["state"] == "cached"
        size = human_bytes(node["bytes"]) if built else ""
        seconds = f"{node['seconds']:.1f} s" if built else ""
        rows.append(
            [
                node["node"],
                state,
                (node["key"] or "")[:12],
                (node["digest"] or "")[:12],
                size,
                seconds,
            ]
        )
    text = table(("artifact", "state", "key", "digest", "size", "built in"), rows, right=(4, 5))
    return (
        f"{text}\n\n{document['cached']} of {document['total']} artifacts are built in "
        f"{document['store']}"
    )
