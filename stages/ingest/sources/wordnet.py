"""The same WordNet database files give the same bytes of the embedded graph, wherever and whenever
it is built.

`python -m stockpot.stages.ingest.sources.wordnet FOLDER OUT.npz`, or `make data/wordnet.npz`;
FOLDER holds the data.noun, data.verb, data.adj and data.adv files of Debian's `wordnet-base`
(/usr/share/wordnet). Format of the files: wndb(5WN).
"""

from __future__ import annotations

import io
import re
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput, StockpotError
from stockpot.stages.replace import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Synset", "build", "main", "parse", "write_npz"]

_FILES = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_WORD = re.compile(r"[a-z]{2,}")
_VOCABULARY = 4096
_RAREST = 10  # synsets a word must occur in
_COMMONEST = 0.1  # share of all synsets it must stay below
_TRAIN, _VALID, _SEED = 0.5, 0.25, 0
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_INSTALL = "apt-get install wordnet-base, then give /usr/share/wordnet"


@dataclass(frozen=True)
class Synset:
    """One line of a data file: lexicographer file, words, pointers as (symbol, part of speech,
    offset), gloss.
    """

    lexfile: int
    lemmas: tuple[str, ...]
    pointers: tuple[tuple[str, str, str], ...]
    gloss: str


def parse(folder: Path) -> tuple[list[Synset], dict[tuple[str, str], int]]:
    """Synsets of all four files, in the order noun, verb, adj, adv and of lines, and (pos, offset)
    -> node.

    Raises
    ------
    BadInput
        A file is missing, or a line is not a synset; names file and line.
    """
    synsets: list[Synset] = []
    node: dict[tuple[str, str], int] = {}
    for name, pos in _FILES.items():
        path = folder / f"data.{name}"
        if not path.is_file():
            raise BadInput(f"{path}: expected a WordNet data file, found none", fix=_INSTALL)
        with path.open(encoding="latin-1") as lines:
            for number, line in enumerate(lines, 1):
                if line.startswith(" "):  # the licence
                    continue
                try:
                    offset, synset = _synset(line)
                except (ValueError, IndexError) as error:
                    raise BadInput(
                        f"{path}, line {number}: expected a synset as in wndb(5WN), found {error}"
                    ) from error
                node[pos, offset] = len(synsets)
                synsets.append(synset)
    if not synsets:
        raise BadInput(
            f"{folder}: expected synsets in data.noun, data.verb, data.adj, data.adv, found none",
            fix=_INSTALL,
        )
    return synsets, node


def _synset(line: str) -> tuple[str, Synset]:
    head, bar, gloss = line.partition("|")
    if not bar:
        raise ValueError("no gloss")
    fields = head.split()
    words = int(fields[3], 16)
    lemmas = fields[4 : 4 + 2 * words : 2]
    start = 5 + 2 * words
    count = int(fields[start - 1])
    rest = fields[start : start + 4 * count]
    if len(rest) != 4 * count or len(lemmas) != words:
        raise ValueError("fewer fields than it announces")
    # Satellite adjectives ("s") live in data.adj too.
    pointers = [
        (rest[i], rest[i + 2].replace("s", "a"), rest[i + 1]) for i in range(0, 4 * count, 4)
    ]
    return fields[0], Synset(int(fields[1]), tuple(lemmas), tuple(pointers), gloss.strip())


def build(
    folder: Path, *, vocabulary: int = _VOCABULARY, rarest: int = _RAREST
) -> dict[str, NDArray[Any]]:
    """Arrays of the `npz:` format, and edge types and vocabulary by name.

    A node per synset, its lexicographer file as label. A directed edge per ordered pair of synsets
    that a pointer connects, sorted; where several do, `edge_type` is that of the first. Symbols are
    numbered as they appear. A binary bag of words: runs of two or more letters in lemmas and gloss,
    lower case, occurring in at least `rarest` and less than a tenth of the synsets, the
    `vocabulary` most frequent (ties by alphabet), columns in alphabetical order. Split:
    `default_rng(0).permutation`, half train, a quarter valid.

    Returns
    -------
    edge_index i4[2, E], edge_type i1[E], edge_type_symbols, num_nodes, x_data u1, x_indices i4,
    x_indptr i8, x_shape, vocab, y i8[N], train_idx, valid_idx, test_idx.
    """
    synsets, node = parse(folder)
    train, valid, test = _split(len(synsets))
    return {
        **_edges(folder, synsets, node),
        "num_nodes": np.array(len(synsets), np.int64),
        **_words(synsets, vocabulary, rarest),
        "y": np.array([s.lexfile for s in synsets], np.int64),
        "train_idx": train,
        "valid_idx": valid,
        "test_idx": test,
    }


def _edges(
    folder: Path, synsets: Sequence[Synset], node: Mapping[tuple[str, str], int]
) -> dict[str, NDArray[Any]]:
    symbols: dict[str, int] = {}
    edges: dict[tuple[int, int], int] = {}
    for source, synset in enumerate(synsets):
        for symbol, pos, offset in synset.pointers:
            target = node.get((pos, offset))
            if target is None:
                raise BadInput(
                    f"{folder}: {synset.lemmas[0]} points to ({pos}, {offset}): expected such a "
                    f"synset, found none",
                    fix=_INSTALL,
                )
            edges.setdefault((source, target), symbols.setdefault(symbol, len(symbols)))
    pairs = sorted(edges)
    return {
        "edge_index": np.array(pairs, np.int32).reshape(-1, 2).T.copy(),
        "edge_type": np.array([edges[pair] for pair in pairs], np.int8),
        "edge_type_symbols": np.array(list(symbols), np.str_),
    }


def _words(synsets: Sequence[Synset], vocabulary: int, rarest: int) -> dict[str, NDArray[Any]]:
    found = [
        set(_WORD.findall(" ".join((*s.lemmas, s.gloss)).replace("_", " ").lower()))
        for s in synsets
    ]
    frequency = Counter(word for words in found for word in words)
    usable = [
        word for word, count in frequency.items() if rarest <= count < _COMMONEST * len(synsets)
    ]
    chosen = sorted(sorted(usable, key=lambda word: (-frequency[word], word))[:vocabulary])
    column = {word: i for i, word in enumerate(chosen)}
    rows = [sorted(column[word] for word in words if word in column) for words in found]
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return {
        "x_data": np.ones(int(indptr[-1]), np.uint8),
        "x_indices": np.fromiter((c for row in rows for c in row), np.int32, int(indptr[-1])),
        "x_indptr": indptr,
        "x_shape": np.array([len(synsets), len(chosen)], np.int64),
        "vocab": np.array(chosen, np.str_),
    }


def _split(nodes: int) -> list[NDArray[np.int64]]:
    order = np.random.default_rng(_SEED).permutation(nodes)
    bounds = [int(_TRAIN * nodes), int((_TRAIN + _VALID) * nodes)]
    return [np.sort(ids) for ids in np.split(order, bounds)]


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a compressed npz, whole or not at all: no pickles, no times, so equal arrays give equal
    bytes.
    """
    with (
        replacing(path) as partial,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for name, values in sorted(arrays.items()):
            content = io.BytesIO()
            np.lib.format.write_array(content, values, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content.getvalue(), compresslevel=9)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build FOLDER's graph into OUT.npz; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if len(given) != 2:
        print(
            "usage: python -m stockpot.stages.ingest.sources.wordnet FOLDER OUT.npz",
            file=sys.stderr,
        )
        return BadInput.exit_code
    try:
        arrays = build(Path(given[0]))
        write_npz(Path(given[1]), arrays)
    except StockpotError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {given[1]}: cannot be written ({error.strerror})", file=sys.stderr)
        return 1
    nodes, columns = arrays["x_shape"]
    edges, classes = arrays["edge_index"].shape[1], len(np.unique(arrays["y"]))
    print(
        f"{given[1]}: {nodes:,} nodes, {edges:,} directed edges, {classes} classes, {columns:,} "
        f"words"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
