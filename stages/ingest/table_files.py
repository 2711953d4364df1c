"""A table of edges or labels in parquet, Arrow or csv is read in bounded batches; an error names
the row.

The index that pandas stores as a column is none of the columns; blanks around the names of a csv
are none of them.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csvs import csv_batches
from stockpot.stages.ingest.dialect import PLAIN, is_float, is_integer, sniff

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["IDS", "INTEGERS", "NUMBERS", "Table"]

INTEGERS, NUMBERS, IDS = "integers", "numbers", "integers or strings"
FLOATS = "floats"

_KNOWN = ({"source", "target"}, {"src", "dst"}, {"id", "label"})
"""Columns of a header, under whatever delimiter they are found."""
_INDEX = re.compile(r"__index_level_\d+__")
_ODD = {
    "an integer": r"^[+-]?[0-9]+$",
    "a float": r"^[+-]?[0-9]+[.]0*$",
    "a name in single quotes": r"^'.*'$",
    "what looks like a comment": r"^[#%]\s",
}
_ODD_AS_WRITTEN = {"a quote after a blank": r'^\s+"'}


class Table:
    """A parquet, Arrow IPC or csv file.

    Parameters
    ----------
    headless : names that a csv file without header has, in order; it has none where its first row
        is all integers.

    Attributes
    ----------
    columns : its names, in order, without `index`.
    trims : whether blanks around names are removed.
    index : columns in which pandas stored the index of a frame; they are left out.
    """

    def __init__(self, path: Path, headless: Sequence[str] = ()) -> None:
        self.path, self._skip, self._dialect = path, 0, PLAIN
        self._suffix = ".csv" if path.name.endswith(".csv.gz") else path.suffix
        self._types: dict[str, Any] = {}
        self.trims = self._suffix == ".csv"
        self.index: list[str] = []
        self._range: tuple[int, int] = (0, 1)
        with self._reading():
            if self._suffix == ".csv":
                self.columns = self._csv_columns(headless)
            else:
                schema = (
                    self._parquet().schema_arrow
                    if self._suffix == ".parquet"
                    else self._arrow().schema
                )
                self.index, self._range = _stored_index(schema)
                self.columns = [name for name in schema.names if name not in self.index]
                self._types = dict(zip(schema.names, schema.types, strict=True))
        if len(set(self.columns)) != len(self.columns):
            raise self.bad(f"expected columns of different names, found {', '.join(self.columns)}")

    def _csv_columns(self, headless: Sequence[str]) -> list[str]:
        def bare(fields: list[str]) -> bool:
            numbered = len(fields) > 1 and all(
                is_integer(field) or is_float(field) for field in fields[:2]
            )
            return bool(headless) and numbered

        def fits(fields: list[str]) -> bool:
            return bare(fields) or any(
                known <= {field.lower() for field in fields} for known in _KNOWN
            )

        self._dialect = sniff(self.path, fits)
        fields, self._skip = list(self._dialect.fields), self._dialect.skip
        if bare(fields):
            if not len(headless) - 1 <= len(fields) <= len(headless):
                raise self.bad(
                    f"expected {len(headless) - 1} or {len(headless)} columns, found {len(fields)}",
                    fix=f"name the columns in a first row {','.join(headless)}; write decimals "
                    f"with a point",
                )
            return list(headless[: len(fields)])
        self._skip += 1
        return [field.lower() for field in fields]

    def kind(self, name: str) -> str:
        """`INTEGERS`, "strings", or what else the column is; that of csv is told by the first
        row.
        """
        import pyarrow as pa

        if self._suffix == ".csv":
            texts = {column: pa.string() for column in self.columns}
            for batch in self._csv(texts, 1):
                first = batch.column(self.columns.index(name))[0].as_py() or ""
                return INTEGERS if is_integer(first) else FLOATS if is_float(first) else "strings"
            raise self.bad("expected rows, found none")
        found = self._types[name]
        if pa.types.is_dictionary(found):
            found = found.value_type
        if pa.types.is_integer(found):
            return INTEGERS
        if pa.types.is_floating(found):
            return FLOATS
        return "strings" if _is_text(found) else str(found)

    def rows(self) -> int:
        """Rows of the file; csv is read through for it."""
        with self._reading():
            if self._suffix == ".parquet":
                return int(self._parquet().metadata.num_rows)
            if self._suffix == ".arrow":
                import pyarrow.dataset as pd

                return int(pd.dataset(self.path, format="ipc").count_rows())
        import pyarrow as pa

        return sum(
            batch.num_rows for batch in self._csv(dict.fromkeys(self.columns, pa.string()), 1 << 20)
        )

    def check_index(self, rows: int) -> None:
        """Refuse rows whose stored index is not 0, 1, ..., in which order they stand: it may be
        meant as the node.

        Raises
        ------
        BadInput
            Naming the first row whose index is another number.
        """
        if self._range != (0, 1):
            start, step = self._range
            raise self.bad(
                f"expected pandas' index to number the rows from 0 to {rows - 1}, found one from "
                f"{start} by {step}",
                fix="write it with frame.sort_index().reset_index(drop=True) where the index is "
                "the node, else without "
                "sort_index()",
            )
        for name in self.index:
            reset = (
                f"write it with frame.sort_index().reset_index(drop=True) where {name} is the "
                f"node, "
                "else without sort_index()"
            )
            kind = self._types[name]
            if self.kind(name) != INTEGERS:
                raise self.bad(
                    f"{name}: expected pandas' index to number the rows from 0, found {kind}",
                    fix=reset,
                )
            seen = 0
            for batch in self._batches({name: kind}, 1 << 20):
                values = batch.column(batch.schema.names.index(name)).to_numpy(zero_copy_only=False)
                wrong = np.flatnonzero(values != np.arange(seen, seen + len(values)))
                if wrong.size:
                    at = int(wrong[0])
                    raise self.bad(
                        f"{name}: expected pandas' index to number the rows from 0 to {rows - 1}, "
                        f"found "
                        f"{values[at]} in row {seen + at}: rows stand in the order of nodes",
                        fix=reset,
                    )
                seen += len(values)

    def batches(self, wanted: Mapping[str, str], most: int) -> Iterator[dict[str, Any]]:
        """Columns by name as pyarrow arrays of at most `most` rows: int64, string or float64 as
        `wanted` says.

        Raises
        ------
        BadInput
            A value of a column wanted as `INTEGERS` or "strings" is null, a string is empty or
            looks like a number in csv, or a column is of another type; names column and row, which
            csv counts from 1, as editors do.
        """
        import pyarrow as pa

        types = {INTEGERS: pa.int64(), "strings": pa.large_string(), NUMBERS: pa.float64()}
        seen = 0
        for batch in self._batches({name: types[kind] for name, kind in wanted.items()}, most):
            found = {}
            for name, kind in wanted.items():
                column = batch.column(batch.schema.names.index(name))
                self._check_type(name, column.type, kind)
                if kind != NUMBERS and column.null_count:
                    at = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                    raise self.bad(
                        f"{name}: expected {kind}, found nothing in row {self._row(seen + at)}"
                    )
                try:
                    found[name] = column.cast(types[kind])
                except pa.ArrowInvalid as error:
                    raise self.bad(
                        f"{name}: expected {kind}, found {' '.join(str(error).split())}"
                    ) from error
                if kind == "strings":
                    found[name] = self._names(name, found[name], seen)
            seen += batch.num_rows
            yield found

    def _check_type(self, name: str, found: Any, kind: str) -> None:
        import pyarrow as pa

        of = pa.types
        value = found.value_type if of.is_dictionary(found) else found
        sound = {
            INTEGERS: of.is_integer(value),
            "strings": _is_text(value),
            NUMBERS: of.is_integer(value) or of.is_floating(value) or of.is_boolean(value),
        }
        if not sound[kind]:
            raise self.bad(
                f"{name}: expected a column of {kind}, found {found}",
                fix=f"cast {name} and write {self.path.name} again",
            )

    def _names(self, name: str, values: Any, first: int) -> Any:
        """Names as they are meant: those of a csv without the blanks around them; what may be none
        is refused.
        """
        import pyarrow.compute as pc

        odd = {}
        if self._suffix == ".csv":
            written, values = values, pc.utf8_trim_whitespace(values)
            odd = {
                what: pc.match_substring_regex(values, pattern) for what, pattern in _ODD.items()
            }
            odd |= {
                what: pc.match_substring_regex(written, text)
                for what, text in _ODD_AS_WRITTEN.items()
            }
        for what, mask in {"an empty one": pc.equal(values, ""), **odd}.items():
            if pc.any(mask).as_py():
                at = int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
                raise self.bad(
                    f"{name}: expected ids of one type, names as in the first row, found {what} "
                    f"among names in row "
                    f"{self._row(first + at)}: {values[at].as_py()!r}",
                    fix="write all ids as integers or all as names, in double quotes or none; a "
                    "mixture as strings "
                    "in parquet",
                )
        return values

    def _row(self, index: int) -> int:
        return index + 1 + self._skip if self._suffix == ".csv" else index

    def _batches(self, types: Mapping[str, Any], most: int) -> Iterator[Any]:
        import pyarrow as pa

        with self._reading():
            if self._suffix == ".csv":
                yield from self._csv(
                    {name: types.get(name, pa.string()) for name in self.columns}, most
                )
            elif self._suffix == ".parquet":
                yield from self._parquet().iter_batches(
                    min(most, 1 << 20), columns=list(types), use_threads=False
                )
            else:
                reader = self._arrow()
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    batch.validate(
                        full=True
                    )  # its counts and offsets, before anything is read by them
                    for start in range(0, batch.num_rows, most):
                        yield batch.slice(start, most)

    def _csv(self, types: Mapping[str, Any], most: int) -> Iterator[Any]:
        return csv_batches(
            self.path, self.columns, types, skip=self._skip, most=most, dialect=self._dialect
        )

    def _parquet(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetFile(self.path, memory_map=True)

    def _arrow(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self.path)))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError) as error:
            text = " ".join(str(error).split())
            raise self.bad(f"expected a readable {self._suffix[1:]} file, found: {text}") from error

    def bad(self, text: str, fix: str | None = None) -> BadInput:
        """Error about this file."""
        return BadInput(
            f"{self.path}: {text}",
            fix=fix or f"write {self.path.name} again and run the same command",
        )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _stored_index(schema: Any) -> tuple[list[str], tuple[int, int]]:
    """Columns in which pandas stored an index, those apart that are asked for by name; start and
    step of a range.
    """
    wanted = {"weight"}.union(*_KNOWN)
    try:
        told = json.loads((schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", ())
        ranges = [(int(of["start"]), int(of["step"])) for of in told if isinstance(of, dict)]
        stored = [name for name in told if isinstance(name, str) and name not in wanted]
    except (ValueError, AttributeError, KeyError, TypeError):
        ranges, stored = [], []
    names = [name for name in schema.names if _INDEX.fullmatch(name) or name in stored]
    return names, next(iter(ranges), (0, 1))
