"""Error that reaches the outputs: a byte more for all nodes against further stages for the most
exposed ones.

    python -m tests.bench.tiers                                    # WordNet
    python -m tests.bench.tiers --data wordnet physics debian --shared ../shared/data

128 SVD columns, codes of 4 bytes and an eighth of the nodes with 4 more and their id: 5 bytes a
node, as `rq5` has. Outputs are all nodes of the split, or one in twenty. Error: squared error of
outputs' own rows and of the mean of their in-neighbours, over the energy of both; tables are given
beside, not counted. Rows go to runs/bench/tiers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from stockpot.stages.codec.coder import Coder, units
from stockpot.stages.codec.exposure import exposed, exposure
from stockpot.stages.codec.feature_blocks import Features
from stockpot.stages.codec.fit import fit
from stockpot.stages.codec.format import decode
from stockpot.stages.codec.residual_tier import encode_further, further_coder
from stockpot.stages.codec.tier_fit import fit_tier
from tests.bench.quantize import load

SHARE, BASE, TIER, PEER = 8, "rq4", "rq4", "rq5"
TRAIN_ROWS = 16_384


class Bench:
    def __init__(self, name: str, shared: Path) -> None:
        self.graph, *_ = load(name, shared)
        self.x = self.graph.array("x")
        self.rows = len(self.x)
        self.sample = self.x[:: max(1, self.rows // TRAIN_ROWS)]
        self.shift = self.x.mean(0, dtype=np.float64).astype(np.float32)
        reach = np.abs(self.x - self.shift).max(0)
        self.units = {"shift": self.shift, "scale": units(reach, self.rows)}
        self.indptr, self.indices = self.graph.array("indptr"), self.graph.array("indices")
        ones = np.ones(len(self.indices))
        self.mean = sp.csr_matrix(
            (
                ones / np.repeat(np.maximum(np.diff(self.indptr), 1), np.diff(self.indptr)),
                self.indices,
                self.indptr,
            ),
            (self.rows, self.rows),
        )

    def coded(self, name: str):
        """(fitted arrays, codec, codes, decoded rows)."""
        fitted = {**fit(name, self.sample, self.shift), **self.units}
        coder = Coder(name, fitted)
        codes, sums = coder.encode(self.x)
        codec = coder.codec(sums)[0]
        return fitted, codec, codes, decode(codec, codes)

    def error(self, found: np.ndarray, outputs: np.ndarray) -> float:
        centred, wrong = self.x - self.shift, self.x - found
        parts = [(self.mean[outputs] @ a, a[outputs]) for a in (wrong, centred)]
        mine, whole = (sum((p.astype(np.float64) ** 2).sum() for p in pair) for pair in parts)
        return float(mine / whole)


def measure(name: str, shared: Path) -> list[dict]:
    bench, rows = Bench(name, shared), []
    fitted, codec, codes, base = bench.coded(BASE)
    _, peer_codec, _, peer = bench.coded(PEER)
    features, rng = Features(bench.x.shape[1], bench.x), np.random.default_rng(0)
    for what, outputs in (
        ("all nodes", np.arange(bench.rows)),
        ("one node in 20", rng.permutation(bench.rows)[::20]),
    ):
        count = bench.rows // SHARE
        weight = exposure(bench.indptr, bench.indices, np.sort(outputs))
        errors = {BASE: bench.error(base, outputs), PEER: bench.error(peer, outputs)}
        for side, mine in (
            ("exposed", exposed(weight, count)),
            ("any", np.sort(rng.permutation(bench.rows)[:count])),
        ):
            arrays = fit_tier(TIER, mine, features, BASE, fitted, bench.sample, TRAIN_ROWS, 0)
            found = encode_further(features, mine, codec, codes, further_coder(TIER, arrays))
            finer = base.copy()
            finer[mine] += decode(found.codec.further, found.codes)
            errors[side] = bench.error(finer, outputs)
        tables = (
            (codec.table_bytes + found.codec.further.table_bytes) / 1e3,
            peer_codec.table_bytes / 1e3,
        )
        cells = [f"{errors[side]:.4f}" for side in (BASE, "exposed", PEER, "any")]
        print(
            f"| {name} | {what} | {' | '.join(cells)} | {tables[0]:.0f}, {tables[1]:.0f} |",
            flush=True,
        )
        ratio = errors[PEER] / errors["exposed"]
        rows.append(
            {
                "what": f"error at the outputs' first layer, {BASE} + {TIER} for 1 node in "
                f"{SHARE}; "
                f"outputs: {what}",
                "dataset": name,
                "ours": errors["exposed"],
                "peer": PEER,
                "peer_value": errors[PEER],
                "unit": "share",
                "threads": 1,
                "n": 1,
                "ratio": ratio,
                "target": None,
                "met": None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", nargs="+", default=["wordnet"], choices=["wordnet", "physics", "debian"]
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared/data"), help="folder of graphs not in here"
    )
    args = parser.parse_args()
    print(
        f"| data | outputs | {BASE} | + {TIER}, exposed | {PEER} | + {TIER}, any | kB of tables: "
        f"tier, {PEER} |"
    )
    print("|---|---|---|---|---|---|---|")
    rows = [row for name in args.data for row in measure(name, args.shared)]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    out = Path("runs/bench/tiers.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "commit": commit, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
