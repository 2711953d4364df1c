"""What becomes of single flipped bits and cuts in every file that a command or a reader reads back;
a row a kind.

    python -m tests.bench.damage [--count 6000] [--folder DIR] [--seed 0]

Builds small runs of every kind of artifact (see `tests.damage`), damages one file at a time, reads
it in this process as commands, stages and readers do, and puts it back. "refused": an error of one
line, or a word said aloud. "same": every reader gave what it gave before. "silent" must be 0: a
reader gave something else and nobody said a word.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch

from tests.damage import RUNS, Target, as_json, build, reads, strike, table, targets

COUNT = 6000
OUT = Path("runs/bench/damage.json")


def struck(found: list[Target], count: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """(outcomes by kind of file, words for all that is silent or untyped) of about `count` damages,
    as many a kind."""
    kinds: dict[str, list[Target]] = defaultdict(list)
    for target in found:
        kinds[target.kind].append(target)
    each = -(-count // len(kinds))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    words = []
    for number, (kind, files) in enumerate(sorted(kinds.items())):
        rng = np.random.default_rng([seed, number])
        sound: dict[Path, list[str]] = {}
        for _ in range(each):
            target = files[int(rng.integers(len(files)))]
            if target.path not in sound:
                sound[target.path] = reads(target)
                assert not [one for one in sound[target.path] if one.startswith(("!", "?"))], (
                    target.path,
                    sound,
                )
            one = strike(target, sound[target.path], rng)
            counts[kind][one.outcome] += 1
            if one.outcome in ("silent", "untyped"):
                words.append(f"{one.outcome}: {one.word}")
        print(f"{kind}: {dict(counts[kind])}", file=sys.stderr, flush=True)
    return counts, words


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="damages, over all kinds of files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to build, or where it was built before")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "scratch").exists():
            build(folder, tuple(RUNS))
        started = time.process_time()
        counts, words = struck(targets(folder), args.count, args.seed)
    print(table(counts))
    print(f"\n{time.process_time() - started:.0f} CPU seconds of reading")
    print("\n".join(words))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(as_json(counts))
    return 1 if words else 0


if __name__ == "__main__":
    sys.exit(main())
