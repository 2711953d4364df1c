"""Single records by index: one contiguous range each of a packed file."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput, Conflict, Corrupt
from stockpot.stages.loader.packed_file import REBUILD, PackedFile, open_packed, shard_names
from stockpot.stages.pack.layered import depth
from stockpot.stages.pack.schema import edgeless
from stockpot.stages.stage import Derived

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from stockpot.stages.codec.format import Codec
    from stockpot.stages.pack.record import Record
    from stockpot.stages.stage import Reader

__all__ = ["Place", "Records"]

SHARED = (
    "codec",
    "K",
    "split",
    "directed",
    "weighted",
    "num_nodes",
    "num_classes",
    "records",
    "rounds",
    "gather",
    "form",
    "sampling",
    "inputs",
    "requires",
)
"""Metadata all files of one artifact have in common."""


@dataclass(frozen=True)
class Place:
    """Where a record lies: `length` bytes from `offset` of the file at `path`, and their
    checksum.
    """

    path: Path
    offset: int
    length: int
    crc32c: int


def _gatherer(codes: Reader) -> Callable[[Record], Record]:
    """How a record is given its rows of an artifact of codes."""
    from stockpot.stages.pack.build import (  # here: with numba, which a cached run does without
        gather_further,
        gather_rows,
    )

    pointer, rows = (
        codes.array("code_indptr") if codes.has("code_indptr") else None,
        codes.array("codes"),
    )
    further = (
        (codes.array("codes_1_rows"), codes.array("codes_1")) if codes.has("codes_1") else None
    )

    def filled(record: Record) -> Record:
        code_indptr, found = gather_rows(record.n_id, pointer, rows)
        if further is None:
            return replace(record, codes=found, code_indptr=code_indptr)
        codes_1, codes_1_rows = gather_further(record.n_id, *further)
        return replace(
            record, codes=found, code_indptr=code_indptr, codes_1=codes_1, codes_1_rows=codes_1_rows
        )

    return filled


class Records:
    """The records of one packed split, from one or more files; opened on first use in each process,
    so fork-safe.

    Parameters
    ----------
    paths : packed files in the order of their records; each has its index beside it.
    corrupt : makes the error for damaged bytes from its message; a store's reader says which
        artifact to set aside.
    codes : the artifact of codes, for files that hold none but gather them; opened when first read
        from.

    Attributes
    ----------
    meta : metadata the files share (codec, K, split, directed, weighted, ...).
    codec : description of the feature codes.
    num_outputs, num_nodes, num_edges : i8[records].

    Raises
    ------
    Corrupt
        On first use: a file is missing, truncated or damaged; its index or the record's checksum
        does not match.
    BadInput
        A newer format, or a `requires` entry this version does not know.
    Conflict
        The files are not all of one artifact, or not all there.
    """

    fresh = False
    """Whether records are drawn anew in every epoch."""

    def __init__(
        self,
        paths: Sequence[Path | str],
        corrupt: Callable[[str], Corrupt] | None = None,
        codes: Callable[[], Reader] | None = None,
    ) -> None:
        self.paths = [Path(p) for p in paths]
        if not self.paths:
            raise BadInput("records: expected at least one packed file (shard-*.arrow), found none")
        self._corrupt, self._codes = corrupt, codes
        self._pid = -1
        self._files: list[PackedFile] = []
        self._first: NDArray[np.int64] = np.zeros(1, np.int64)
        self._gathered: Callable[[Record], Record] | None = None
        self._table: NDArray[np.uint8] | None = None

    @classmethod
    def from_reader(cls, reader: Reader) -> Records:
        """Records of a `pack` artifact."""
        found = shard_names(reader.names())
        if not found:
            raise BadInput("records: expected a pack artifact with shard-*.arrow, found none in it")
        names = set(reader.names())
        for name in found:
            index = name.removesuffix(".arrow") + ".index.arrow"
            if index in names:
                reader.path(index)  # its digest is checked on first use
        codes = partial(reader.parent, "codes") if isinstance(reader, Derived) else None
        return cls([reader.path(name) for name in found], getattr(reader, "corrupt", None), codes)

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "corrupt": self._corrupt, "codes": self._codes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _opened(self) -> list[PackedFile]:
        if self._pid != os.getpid():
            with self._damage():
                files = [open_packed(path) for path in self.paths]
            self._together(files)
            self._files, self._gathered, self._table = files, None, None
            self._first = np.concatenate(
                [[0], np.cumsum([len(f.index.offset) for f in files])]
            ).astype(np.int64)
            self._pid = os.getpid()
        return self._files

    @contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            yield
        except Corrupt as error:
            raise error if self._corrupt is None else self._corrupt(error.message) from error

    @staticmethod
    def _together(files: list[PackedFile]) -> None:
        first, seen = files[0], 0
        for file in files:
            for key in SHARED:
                if file.meta.get(key) != first.meta.get(key):
                    raise Conflict(
                        f"{file.path}: {key} is {file.meta.get(key)}, but {first.meta.get(key)} in "
                        f"{first.path.name}",
                        fix="open the files of one artifact only",
                    )
            if file.meta["first_record"] != seen:
                raise Conflict(
                    f"{file.path}: expected record {seen} first, found {file.meta['first_record']}",
                    fix="open all files of the artifact, in order",
                )
            seen += len(file.index.offset)
        if seen != first.meta["records"]:
            raise Conflict(
                f"{files[-1].path.parent}: expected {first.meta['records']} records, found {seen}",
                fix="open all files of the artifact",
            )
        if seen % first.meta.get("rounds", 1):
            raise Conflict(
                f"{first.path}: expected {first.meta['rounds']} rounds of equal size, found {seen} "
                f"records",
                fix="open all files of the artifact",
            )

    @property
    def meta(self) -> dict[str, Any]:
        """Metadata of the first file; what `SHARED` names is the same in all."""
        return self._opened()[0].meta

    @property
    def rounds(self) -> int:
        """Sets of records, of equal size and one after the other, each with every output once."""
        return int(self.meta.get("rounds", 1))

    @property
    def sampled(self) -> int:
        """Layers that were sampled; 0 where records hold all edges between their nodes."""
        return depth(self.meta)

    @property
    def edgeless(self) -> bool:
        """Whether records are their outputs alone, without edges."""
        return edgeless(self.meta)

    @property
    def codec(self) -> Codec:
        """Description of the feature codes, with their tables."""
        return self._opened()[0].codec

    def _column(self, name: str) -> NDArray[np.int64]:
        return np.concatenate([getattr(f.index, name) for f in self._opened()]).astype(np.int64)

    @property
    def num_outputs(self) -> NDArray[np.int64]:
        """i8[records]"""
        return self._column("num_outputs")

    def outputs_of(self, records: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Outputs of each of some records."""
        return self.num_outputs[records]

    @property
    def num_nodes(self) -> NDArray[np.int64]:
        """i8[records]"""
        return self._column("num_nodes")

    @property
    def num_edges(self) -> NDArray[np.int64]:
        """i8[records]"""
        return self._column("num_edges")

    def __len__(self) -> int:
        self._opened()
        return int(self._first[-1])

    def __iter__(self) -> Iterator[Record]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Record:
        """Record `i` of the split: zero-copy views on the mapped file, O(1) after its first read.

        Only codes that are gathered from the codes of the whole graph are copies.

        Raises
        ------
        IndexError
            There is no such record.
        Corrupt
            Its bytes do not match the index.
        """
        record = self.stored(i)
        return self.gathered(record) if self.gathers else record

    def stored(self, i: int) -> Record:
        """Record `i` as it is stored: its codes are not gathered where they are no part of it;
        errors as above.
        """
        file, k = self._find(i)
        data = file.data.slice(int(file.index.offset[k]), int(file.index.length[k]))
        if file.checked[k]:
            return file.parsed(data)
        with self._damage():
            return file.first_read(k, data)

    def unchecked(self, i: int) -> Record:
        """Views on record `i` whose bytes are not read yet, for who reads some of them and checks
        those.

        Its codes are not gathered; see `gathered`.
        """
        file, k = self._find(i)
        data = file.data.slice(int(file.index.offset[k]), int(file.index.length[k]))
        return file.parsed(data)

    @property
    def gathers(self) -> bool:
        """Whether features are no part of the records but read from the codes of the whole
        graph.
        """
        return bool(self.meta.get("gather"))

    def gathered(self, record: Record) -> Record:
        """A record with the codes of its `n_id`, read from the codes of the whole graph."""
        return self._gather_from()(record)

    @property
    def plain(self) -> bool:
        """Whether features are fp32 rows of the whole graph, which `rows` reads without a record
        in between.
        """
        return self.gathers and not self.fresh and self.codec.name == "fp32"

    def rows(self, nodes: NDArray[np.integer[Any]], out: NDArray[np.float32]) -> None:
        """Fill `out` (f4[n, num_features]) with the rows of `nodes` (of the graph), where they are
        `plain`: one copy, O(n num_features).
        """
        if self._table is None:
            self._table = self._whole_codes().array("codes")
        # "clip" writes without a buffer; ids are those of records whose checksums were right
        np.take(self._table, nodes, axis=0, out=out.view(np.uint8), mode="clip")

    @property
    def num_labelled(self) -> NDArray[np.int64]:
        """i8[records], outputs with a label."""
        return np.concatenate([f.index.label_counts.sum(1) for f in self._opened()]).astype(
            np.int64
        )

    def _gather_from(self) -> Callable[[Record], Record]:
        """Fills the codes of the whole graph into a record; errors as of `_whole_codes`."""
        if self._gathered is None:
            self._gathered = _gatherer(self._whole_codes())
        return self._gathered

    def _whole_codes(self) -> Reader:
        """The artifact of codes that features are gathered from.

        Raises
        ------
        BadInput
            The files were opened without their store.
        Conflict
            The artifact of codes is not the one the records were packed for.
        """
        digest = self.meta["inputs"]["codes"]
        if self._codes is None:
            raise BadInput(
                f"{self.paths[0]}: its features are gathered from the codes of digest "
                f"{digest}, expected the store "
                "that has them, found files only",
                fix="open the run or the artifact in its store, or pack with --set "
                "features.layout=packed",
            )
        codes = self._codes()
        if codes.digest != digest:
            raise Conflict(
                f"{self.paths[0]}: expected codes of digest {digest}, found {codes.digest}",
                fix=REBUILD,
            )
        return codes

    def place(self, i: int) -> Place:
        """Where record `i` of the split lies.

        Raises
        ------
        IndexError
            There is no such record.
        """
        file, k = self._find(i)
        index = file.index
        return Place(file.path, int(index.offset[k]), int(index.length[k]), int(index.crc32c[k]))

    def _find(self, i: int) -> tuple[PackedFile, int]:
        """File of record `i` and its number there."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"record {i}: expected one of 0..{n - 1}")
        i %= n
        at = int(np.searchsorted(self._first, i, side="right")) - 1
        return self._files[at], i - int(self._first[at])
