"""Lossy codecs on one core or two: rows fitted and encoded a second, peak memory, and decoding
against memcpy.

    python -m tests.bench.codecs  # decoding, and encoding of 100,000 x 128, time scaled to 10^7
    python -m tests.bench.codecs --full  # encoding of all 10^7 x 128, two threads, 5 GB on disk

Features are correlated, with unequal scales and heavy tails. Encoding is both stages, `codebook`
(statistics, sample, training, figures) and `quantize`, in a process of its own: its peak is the
memory it took above its start, as the pipeline counts it, without the mapped features. Seconds are
of the wall, or with `--cpu`, on a crowded machine, of the processor shared out to the threads.
Decoding is 100,000 rows into fp32, kernels compiled, CPU seconds of alternating runs of one thread;
memcpy copies as many bytes as are written. Rows go to runs/bench/codecs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMNS, ROWS, FULL = 128, 100_000, 10_000_000
LIMIT_S, LIMIT_BYTES, SHARE = 600.0, 2 << 30, 0.5
ENCODE = ("sq1", "sq4", "sq8", "pq8", "rq4", "rq8")
DECODE = ("sq1", "sq2", "sq4", "sq8", "pq4", "pq8", "pq16", "rq2", "rq4", "rq8")


def write_features(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    mix = (rng.normal(size=(16, COLUMNS)) * np.geomspace(1, 30, COLUMNS)).astype(np.float32)
    x = np.lib.format.open_memmap(path, "w+", np.float32, (rows, COLUMNS))
    for start in range(0, rows, 1 << 17):
        n = min(1 << 17, rows - start)
        x[start : start + n] = rng.standard_t(4, size=(n, 16)).astype(np.float32) @ mix
        x[start : start + n] += rng.standard_normal((n, COLUMNS), np.float32)


def encode(path: Path, name: str, threads: int, cpu: bool) -> dict[str, float]:
    """Seconds of both stages and what the process took at its peak; run in a process of its own."""
    from stockpot.stages.codebook import STAGE as CODEBOOK
    from stockpot.stages.quantize import STAGE as QUANTIZE
    from stockpot.store.usage import Usage
    from tests.memory import MemoryReader, run_stage

    def clock() -> float:
        return time.process_time() / threads if cpu else time.perf_counter()

    def built(x: np.ndarray) -> tuple[float, float, dict]:
        facts = {
            "num_nodes": len(x),
            "num_features": COLUMNS,
            "features": "dense",
            "x_nnz": x.size,
            "binary": False,
        }
        facts |= {"nnz": len(x), "num_classes": 2}
        ring = {
            "indptr": np.arange(len(x) + 1),
            "indices": np.roll(np.arange(len(x), dtype=np.int32), 1),
        }
        g = MemoryReader({"x": x, **ring, "y": np.zeros(len(x), np.int32)}, facts)
        with tempfile.TemporaryDirectory() as folder:
            started = clock()
            inputs = {"graph": g}
            params = CODEBOOK.resolve({"features.codec": name}, {"graph": facts})
            inputs["codebook"] = run_stage(
                CODEBOOK, params, inputs, Path(folder) / "book", threads=threads
            )
            fitted = clock()
            params = QUANTIZE.resolve({"features.codec": name}, {"graph": facts})
            codes = run_stage(QUANTIZE, params, inputs, Path(folder) / "codes", threads=threads)
            return fitted - started, clock() - fitted, codes.facts

    x = np.load(path, mmap_mode="r")
    built(np.array(x[:3000]))  # compiles
    with Usage() as usage:
        fit_s, encode_s, facts = built(x)
    return {"fit_s": fit_s, "encode_s": encode_s, "peak": usage.peak_bytes, "nmse": facts["nmse"]}


def measure_encoding(rows: int, threads: int, cpu: bool, names: Sequence[str]) -> list[dict]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        write_features(path, rows)
        for name in names:
            command = [
                sys.executable,
                "-m",
                "tests.bench.codecs",
                "--child",
                name,
                str(path),
                str(threads),
            ]
            command += ["--cpu"] if cpu else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            r = json.loads(done.stdout.splitlines()[-1])
            # Training is on a sample of fixed size; the passes over all rows grow with them.
            seconds = r["fit_s"] + r["encode_s"] * FULL / rows
            what = f"fit and encode 10^7 x {COLUMNS}" + (
                "" if rows == FULL else f", scaled from {rows:,} rows"
            )
            row = {"dataset": f"synthetic, {name}", "peer": "limit", "threads": threads, "n": 1}
            found.append(
                {
                    **row,
                    "what": what,
                    "ours": seconds,
                    "peer_value": LIMIT_S,
                    "unit": "s",
                    "target": 1.0,
                }
                | {"ratio": LIMIT_S / seconds, "met": seconds <= LIMIT_S, "nmse": r["nmse"]}
                | {"mb_s": 4 * COLUMNS * rows / r["encode_s"] / 1e6, "fit_s": r["fit_s"]}
            )
            peak = {
                "what": f"peak memory of fit and encode, {rows:,} rows",
                "ours": r["peak"] / 2**20,
            }
            limit = {"peer_value": LIMIT_BYTES / 2**20, "unit": "MiB", "target": 1.0}
            found.append(
                {
                    **row,
                    **peak,
                    **limit,
                    "ratio": LIMIT_BYTES / r["peak"],
                    "met": r["peak"] <= LIMIT_BYTES,
                }
            )
    return found


def measure_decoding(runs: int) -> list[dict]:
    from stockpot.stages.codec.codec_names import parse
    from stockpot.stages.codec.format import decode, describe

    rows = 100_000
    rng = np.random.default_rng(0)
    out, source = (
        np.empty((rows, COLUMNS), np.float32),
        rng.standard_normal((rows, COLUMNS), np.float32),
    )
    sides = {"memcpy": lambda: np.copyto(out, source)}
    for name in DECODE:
        kind = parse(name)
        tables = {"levels": rng.normal(size=(COLUMNS, kind.entries)).astype(np.float16)}
        if kind.family == "rq":
            tables = {"tables": rng.normal(size=(kind.units, 256, COLUMNS)).astype(np.float16)}
            tables["shift"] = np.zeros(COLUMNS, np.float32)
        codec = describe(name, COLUMNS, tables)
        codes = rng.integers(0, 256, (rows, codec.row_bytes)).astype(np.uint8)
        sides[name] = lambda codec=codec, codes=codes: decode(codec, codes, out=out)
        sides[name]()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, side in sides.items():
            started = time.process_time()
            side()
            times[name].append(time.process_time() - started)
    speed = {name: out.nbytes / statistics.median(t) / 1e9 for name, t in times.items()}
    return [
        {
            "what": f"decode {rows:,} x {COLUMNS} into fp32",
            "dataset": name,
            "ours": speed[name],
            "peer": "memcpy",
        }
        | {"peer_value": speed["memcpy"], "unit": "GB/s", "threads": 1, "n": runs, "target": SHARE}
        | {"ratio": speed[name] / speed["memcpy"], "met": speed[name] >= SHARE * speed["memcpy"]}
        for name in DECODE
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--names", nargs="*", default=ENCODE, help="codecs to encode with")
    parser.add_argument(
        "--cpu", action="store_true", help="processor seconds, shared out to the threads"
    )
    parser.add_argument("--only", choices=("encode", "decode"))
    parser.add_argument("--full", action="store_true", help="all 10^7 rows")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, path, threads = args.child
        print(json.dumps(encode(Path(path), name, int(threads), args.cpu)))
        return
    rows = [] if args.only == "encode" else measure_decoding(args.runs)
    if args.only != "decode":
        rows += measure_encoding(
            FULL if args.full else args.rows, args.threads, args.cpu, args.names
        )
    for r in rows:
        met = "met" if r["met"] else "missed"
        ours, peer = f"{r['ours']:9.2f} {r['unit']:<5}", f"{r['peer']} {r['peer_value']:8.2f}"
        speed = f"  encoding {r['mb_s']:.0f} MB/s" if "mb_s" in r else ""
        print(f"{r['what']:<62} {r['dataset']:<16} {ours} {peer}  {met}{speed}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    target = Path("runs/bench/codecs.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": commit.stdout.strip(),
    }
    target.write_text(json.dumps({**about, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
