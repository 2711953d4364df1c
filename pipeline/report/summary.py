"""`summary.json` comes from manifests alone: built just now or cached, the figures are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.planning import dag
from stockpot.report.accuracies import Row, ensemble_row, soup_rows
from stockpot.report.remarks import remarks, row_pass_share
from stockpot.stages.hag.stage import enabled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.report.built import Built

__all__ = ["accuracy_rows", "inference_seconds", "summarise"]

_SPLITS = ("train", "valid", "test", "infer")
_JUDGED = ("reason", "rate", "judged_on", "trained_on", "accuracy", "model", "row_passes", "rows_allowed")
_SAMPLED = ("nodes_by_layer", "edges_by_layer", "overlap", "lru_misses")
_INFER_SECONDS = ("seconds", "full_graph_seconds", "all_models_seconds", "load_seconds", "write_seconds")
"""Of inference: the chosen model's batched inference alone, and its parts; null in artifacts of older versions."""
_METHODS = ("best", "uniform", "greedy", "gis", "learned", "signed", "partition")  # as tables list them


def summarise(recipe: Recipe, built: Sequence[Built]) -> dict[str, Any]:
    """The contract's `summary.json`; null where a stage or figure is absent."""
    by_id = {b.node.id: b for b in built}
    stages: dict[str, Any] = {}
    for stage in dict.fromkeys(b.node.stage for b in built):
        stages[stage] = _stage([b for b in built if b.node.stage == stage])
    for stage in ("influence", "sample", "pack"):
        if stage in stages:
            stages[stage]["splits"] = {
                split: _records(by_id.get(f"{stage}:{split}"), by_id.get(f"pack:{split}"))
                for split in _SPLITS
                if f"{stage}:{split}" in by_id
            }
    if (partition := by_id.get("partition")) is not None:
        stages["partition"] |= _pick(partition.facts, "parts", "edge_cut", "balance", "method")
    if (sizing := by_id.get("sizing")) is not None:
        names = ("top_k", "outputs", "mix", "held", "records", "rows", "enough")
        found = {split: _pick(facts, *names) for split, facts in sizing.facts["splits"].items()}
        stages["sizing"] |= {"mass": sizing.facts["mass"], "splits": found}
    if (order := by_id.get("order")) is not None:
        stages["order"] |= _pick(order.facts, "method", "tour_length", "random_length")
        stages["order"] |= {
            name: order.facts[name] for name in ("chain", "overlap", "window", "mix") if name in order.facts
        }
    if (loads := by_id.get("loadplan")) is not None:
        stages["loadplan"] |= _pick(loads.facts, "cache", "cache_bytes", "largest_record", "epochs", "rows", "read")
    if enabled(recipe.hag.enabled) != "never" and (why := dag.unshared(recipe)) and "pack:train" in by_id:
        stages["hag"] = {"use": False, "why": f"no product to share: {why}"}
    if "exchange" in stages and (trained := by_id.get("train:0")) is not None:
        stages["exchange"] |= _pick(trained.facts["shared"], "ranks", "mode", "why", "predicted")
    if (hag := by_id.get("hag")) is not None:
        stages["hag"] |= _hag(hag.facts, [b.facts for b in built if b.node.stage == "pack"])
    if (codes := by_id.get("quantize")) is not None:
        stages["quantize"] |= _quantize(codes.facts) | _code_loss(by_id)
    if (book := by_id.get("codebook")) is not None:
        stages["codebook"] |= _pick(book.facts, "codec", "sensitivity", "nmse_by_depth")
    if (judge := by_id.get("judge")) is not None:
        figures = {**_pick(judge.facts, *_JUDGED), "row_pass_share": row_pass_share(by_id)}
        stages["judge"] |= {"codec": judge.facts.get("codec"), **figures}
        if book is not None:
            stages["codebook"] |= figures
    return {
        "remarks": remarks(recipe, built),
        "dataset": _dataset(recipe, by_id.get("ingest"), by_id.get("split")),
        "stages": {"influence": None, "quantize": None, "hag": None, **stages},
        "train": _train(recipe, by_id),
        "soup": _soup(recipe, by_id),
        "infer": _infer(recipe, by_id.get("infer")),
        "artifacts": {b.node.id: _artifact(b) for b in built},
    }


def _pick(facts: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: facts.get(name) for name in names}


def _message_edges(recipe: Recipe, facts: Mapping[str, Any]) -> int | None:
    """Entries of the message passing matrix: stored ones, and one self-loop a node where the recipe adds them."""
    if not facts:
        return None
    return int(facts["nnz"]) + (int(facts["num_nodes"]) if recipe.graph.self_loops else 0)


def _dataset(recipe: Recipe, ingest: Built | None, split: Built | None) -> dict[str, Any]:
    facts = ingest.facts if ingest else {}
    splits = {name: split.facts.get(name) for name in ("train", "valid", "test")} if split else None
    return {
        "name": recipe.name,
        "num_nodes": facts.get("num_nodes"),
        "num_edges_stored": facts.get("num_edges_stored"),
        "num_edges": _message_edges(recipe, facts),
        "num_features": facts.get("num_features"),
        "num_classes": facts.get("num_classes"),
        "splits": splits,
        "left_out": (ingest.note("left_out") or []) if ingest else [],
    }


def _artifact(b: Built) -> dict[str, Any]:
    return {
        "stage": b.node.stage,
        "key": b.key,
        "cached": b.cached,
        **{name: b.manifest[name] for name in ("seconds", "peak_bytes", "bytes_written")},
        "projected_bytes": b.projected_bytes,
        "bytes": sum(file["size"] for file in b.manifest["files"].values()),
    }


def _stage(nodes: Sequence[Built]) -> dict[str, Any]:
    """One entry a stage; where it has several artifacts: the first key, sums, and the largest peak."""
    found: dict[str, Any] = {
        "key": nodes[0].key,
        "cached": all(b.cached for b in nodes),
        "seconds": sum(b.manifest["seconds"] for b in nodes),
        "peak_bytes": max(b.manifest["peak_bytes"] for b in nodes),
        "bytes_written": sum(b.manifest["bytes_written"] for b in nodes),
    }
    if len(nodes) > 1:
        found["keys"] = {b.node.id: b.key for b in nodes}
    return found


def _records(records: Built | None, packed: Built | None) -> dict[str, Any]:
    facts = records.facts if records else {}
    inside = packed.facts if packed else {}
    return {
        **_pick(facts, "records", "rows"),
        "edges": inside.get("edges"),
        **_pick(facts, "replication", "outputs", "captured"),
        "rounds": facts.get("rounds", 1) if facts else None,  # older artifacts, and those of one round, do not say
        **_pick(inside, "dropped_nodes", "bytes"),
        **(_pick(facts, *_SAMPLED) if "sampling" in facts else {}),
    }


def _hag(facts: Mapping[str, Any], packed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the records that have a HAG in all splits: sums shared; 1 and none where it was decided against."""
    found = [f["hag"] for f in packed if "hag" in f]
    total = {
        name: sum(int(f[name]) for f in found) for name in ("records", "reads", "plain_reads", "adds", "plain_adds")
    }
    return {
        "adds_ratio": total["plain_adds"] / total["adds"] if total["adds"] else 1.0,
        "reads_ratio": total["plain_reads"] / total["reads"] if total["reads"] else 1.0,
        "records_used": total["records"],
        **_pick(facts, "use", "why", "predicted_gain", "possible_gain"),
    }


def _quantize(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "codec": facts.get("codec"),
        "bytes_per_row": facts.get("row_bytes"),
        **_pick(facts, "table_bytes", "compression_ratio", "nmse", "nmse_aggregated", "tier"),
    }


def _code_loss(by_id: Mapping[str, Built]) -> dict[str, Any]:
    """What the code costs the chosen model on validation; null where it loses nothing, or nothing was chosen yet."""
    loss = by_id.get("codeloss")
    names = ("accuracy_drop", "fp32_valid_accuracy")
    return dict.fromkeys(names) if loss is None else _pick(loss.facts, *names)


def _train(recipe: Recipe, by_id: Mapping[str, Built]) -> dict[str, Any] | None:
    trained = [by_id[name] for name in by_id if name.startswith("train:")]
    if not trained:
        return None
    tested = _results(recipe, by_id)
    souped = by_id["soup"].facts.get("ingredients") if "soup" in by_id else None
    valid = [one["valid_accuracy"] for one in souped or ()] or [b.facts.get("valid_accuracy") for b in trained]
    return {
        "ingredients": [
            {
                "seed": b.facts.get("seed"),
                "key": b.key,
                "epochs": b.facts.get("epochs"),
                "seconds": b.note("seconds") or b.manifest["seconds"],
                "seconds_per_epoch": b.note("seconds_per_epoch"),
                "valid_accuracy": accuracy,
                "test_accuracy": tested.get(f"ingredient:{b.node.instance['index']}"),
            }
            for b, accuracy in zip(trained, valid, strict=True)
        ]
    }


def _results(recipe: Recipe, by_id: Mapping[str, Built]) -> Mapping[str, Any]:
    """Test accuracy of every candidate; none where inference was asked for other nodes than the test split."""
    infer = by_id.get("infer")
    if infer is None or recipe.infer.split != "test":
        return {}
    results: Mapping[str, Any] = infer.facts.get("results") or {}
    return results


def _soup(recipe: Recipe, by_id: Mapping[str, Built]) -> dict[str, Any] | None:
    soup = by_id.get("soup")
    if soup is None:
        return None
    tested = _results(recipe, by_id)
    seconds, peaks = soup.note("seconds") or {}, soup.note("peak_bytes") or {}
    methods, ensemble = soup.facts.get("methods", {}), soup.facts.get("ensemble")
    return {
        "chosen": soup.facts.get("chosen"),
        "chosen_by": soup.facts.get("chosen_by"),
        "methods": {
            name: {
                "valid_accuracy": methods[name].get("valid_accuracy"),
                "cross_fitted_accuracy": methods[name].get("cross_fitted_accuracy"),
                "test_accuracy": tested.get(name),
                "same_as": methods[name].get("same_as"),
                "seconds": seconds.get(name),
                "peak_bytes": peaks.get(name),
                "members": methods[name].get("members"),
            }
            for name in sorted(methods, key=_rank)
        },
        "ensemble": None if ensemble is None else {**ensemble, "test_accuracy": tested.get("ensemble")},
    }


def _rank(method: str) -> tuple[int, str]:
    return (_METHODS.index(method) if method in _METHODS else len(_METHODS), method)


def _infer(recipe: Recipe, infer: Built | None) -> dict[str, Any] | None:
    if infer is None:
        return None
    figures = _pick(infer.facts, "num_outputs", "test_accuracy", "full_graph_test_accuracy")
    if recipe.infer.split != "test":
        # Measured on the nodes asked for, among them perhaps those trained on: no test accuracy.
        figures |= {"accuracy": figures["test_accuracy"], "full_graph_accuracy": figures["full_graph_test_accuracy"]}
        figures |= {"test_accuracy": None, "full_graph_test_accuracy": None}
    if "official" in infer.facts:
        figures["official"] = infer.facts["official"]
    return {**{name: infer.note(name) for name in _INFER_SECONDS}, **figures}


def inference_seconds(infer: Mapping[str, Any]) -> str:
    """What took how long in inference, in words; empty where an older version measured all of it as one."""
    parts = [
        f"{_seconds(infer[name])} {what}"
        for name, what in (
            ("seconds", "by the chosen model alone"),
            ("full_graph_seconds", "exactly on the full graph"),
            ("all_models_seconds", "by all models"),
            ("load_seconds", "to load them"),
            ("write_seconds", "to write the predictions"),
        )
        if infer.get(name) is not None
    ]
    return ", ".join(parts)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value:.2g} s"


def accuracy_rows(summary: Mapping[str, Any]) -> list[Row]:
    """Every single model, every soup that differs from others, and the mean of all predictions."""
    rows = [
        Row(f"single model {i} (seed {single['seed']})", single["valid_accuracy"], single["test_accuracy"])
        for i, single in enumerate((summary["train"] or {"ingredients": []})["ingredients"])
    ]
    soup = summary["soup"]
    if soup is not None:
        rows += [*soup_rows(soup), *filter(None, [ensemble_row(soup["ensemble"])])]
    return rows
