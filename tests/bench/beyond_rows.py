"""Rows of `make bench-beyond` from what was measured: pure functions, no clock and no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.bench.time_to_accuracy import breaks_even

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["BEFORE", "break_even_rows", "epoch_row", "lru_row", "preprocessing_seconds", "table"]

BEFORE = ("ingest", "split")
"""Stages that a peer needs too."""
OURS = "stockpot"


def epoch_row(
    what: str, disk: str, line: Mapping[str, Any], outputs: int, epochs: int
) -> dict[str, Any]:
    """An epoch, and `epochs` of them, from the part of one that a side came to.

    Parameters
    ----------
    line : what the side counted: outputs, rows, read_bytes, seconds, cpu_seconds.
    outputs : of an epoch.
    epochs : to the accuracy.
    """
    share = outputs / line["outputs"]
    return {
        "what": what, "disk": disk, "measured_outputs": line["outputs"],
        "rows_an_output": line["rows"] / line["outputs"],
        "bytes_an_epoch": line["read_bytes"] * share,
        "seconds_an_epoch": line["seconds"] * share,
        "cpu_seconds_an_epoch": line["cpu_seconds"] * share,
        "epochs": epochs, "seconds": line["seconds"] * share * epochs, "reckoned": False,
    }  # fmt: skip


def lru_row(what: str, measured: Mapping[str, Any], bytes_an_epoch: float) -> dict[str, Any] | None:
    """The loop of a measured row with a cache that lets it read only so many bytes, in reckoned
    seconds: its CPU seconds, and the bytes at the rate at which it had them, bytes over the seconds
    that were not CPU seconds. None where it read nothing, so that there is no rate.
    """
    read = measured["bytes_an_epoch"]
    if not read:
        return None
    cpu = measured["cpu_seconds_an_epoch"]
    waited = max(0.0, measured["seconds_an_epoch"] - cpu)
    seconds = cpu + waited * bytes_an_epoch / read
    return {
        **measured, "what": what, "bytes_an_epoch": bytes_an_epoch, "seconds_an_epoch": seconds,
        "seconds": seconds * measured["epochs"], "reckoned": True,
        "bytes_a_second": read / waited if waited else None,
    }  # fmt: skip


def preprocessing_seconds(stages: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each stage that was built, those left out that a peer needs too."""
    return {
        name: float(stage["seconds"])
        for name, stage in stages.items()
        if stage and "seconds" in stage and name not in BEFORE
    }


def break_even_rows(rows: list[dict[str, Any]], preprocessing: float) -> Iterator[dict[str, Any]]:
    """Of each peer on each disk: the first training with preprocessing included, and the epochs and
    trainings after which it has paid, None where it never does.

    Parameters
    ----------
    rows : of `epoch_row` and `lru_row`; ours of a disk before its peers.
    """
    ours: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "missing" in row:
            continue
        mine = ours.setdefault(row["disk"], row)
        if mine is row:
            continue
        first = preprocessing + mine["seconds"]
        yield {
            "disk": row["disk"], "peer": row["what"], "reckoned": row["reckoned"],
            "preprocessing": preprocessing, "ours": mine["seconds"], "first": first,
            "peer_seconds": row["seconds"], "first_ratio": row["seconds"] / first,
            "epochs": breaks_even(preprocessing, mine["seconds_an_epoch"],
                                  row["seconds_an_epoch"]),
            "trainings": breaks_even(preprocessing, mine["seconds"], row["seconds"]),
        }  # fmt: skip


def table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of Markdown: each peer against ours on the same disk, then what preprocessing costs."""
    names = "disk", "batches by", "rows an output", "MB an epoch", "s an epoch", "CPU s", "epochs"
    yield f"| {' | '.join(names)} | s | fewer bytes | faster |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    ours: dict[str, dict[str, Any]] = {}
    for row in found["rows"]:
        if "missing" in row:
            yield f"| | {row['what']} | {row['missing']} | | | | | | | |"
            continue
        mine = ours.setdefault(row["disk"], row)
        said = " (reckoned)" if row["reckoned"] else ""
        yield (
            f"| {row['disk']} | {row['what']}{said} | {row['rows_an_output']:.1f} "
            f"| {row['bytes_an_epoch'] / 1e6:,.1f} | {row['seconds_an_epoch']:.2f} "
            f"| {row['cpu_seconds_an_epoch']:.2f} | {row['epochs']} | {row['seconds']:.1f} "
            f"| {row['bytes_an_epoch'] / max(1.0, mine['bytes_an_epoch']):.1f} "
            f"| {row['seconds'] / mine['seconds']:.1f} |"
        )
    stages = ", ".join(f"{name} {s:.1f}" for name, s in found["preprocessing"].items())
    yield f"Preprocessing, s: {sum(found['preprocessing'].values()):.1f} ({stages})."
    names = "disk", "against", "first training, s: ours, its", "faster", "pays after epochs"
    yield f"| {' | '.join(names)} | trainings |"
    yield "|---|---|---|---|---|---|"
    for row in found["break_even"]:
        epochs, trainings = (
            "never" if row[name] is None else f"{row[name]}" for name in ("epochs", "trainings")
        )
        yield (
            f"| {row['disk']} | {row['peer']} | {row['first']:.1f}, {row['peer_seconds']:.1f} "
            f"| {row['first_ratio']:.2f} | {epochs} | {trainings} |"
        )
