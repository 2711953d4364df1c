"""A table of edges or labels in parquet, Arrow or csv is read in bounded batches; an error names the row."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.errors import BadInput
from stages.ingest.csvs import csv_batches, first_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["IDS", "INTEGERS", "NUMBERS", "Table"]

INTEGERS, NUMBERS, IDS = "integers", "numbers", "integers or strings"


class Table:
    """A parquet, Arrow IPC or csv file.

    Parameters
    ----------
    headless : names that a csv file without header has, in order; it has none where its first row is all integers.

    Attributes
    ----------
    columns : its names, in order.
    """

    def __init__(self, path: Path, headless: Sequence[str] = ()) -> None:
        self.path, self._suffix, self._skip = path, path.suffix, 0
        self._types: dict[str, Any] = {}
        with self._reading():
            if self._suffix == ".csv":
                self.columns = self._csv_columns(headless)
            else:
                schema = self._parquet().schema_arrow if self._suffix == ".parquet" else self._arrow().schema
                self.columns = list(schema.names)
                self._types = dict(zip(schema.names, schema.types, strict=True))
        if len(set(self.columns)) != len(self.columns):
            raise self.bad(f"expected columns of different names, found {', '.join(self.columns)}")

    def _csv_columns(self, headless: Sequence[str]) -> list[str]:
        fields = first_fields(self.path)
        if headless and all(_is_integer(field) for field in fields[:2]):
            if not len(headless) - 1 <= len(fields) <= len(headless):
                raise self.bad(f"expected {len(headless) - 1} or {len(headless)} columns, found {len(fields)}")
            return list(headless[: len(fields)])
        self._skip = 1
        return [field.strip() for field in fields]

    def kind(self, name: str) -> str:
        """`INTEGERS`, "strings", or what else the column is; that of csv is told by the first row."""
        import pyarrow as pa

        if self._suffix == ".csv":
            texts = {column: pa.string() for column in self.columns}
            for batch in csv_batches(self.path, self.columns, texts, skip=self._skip, most=1):
                return INTEGERS if _is_integer(batch.column(self.columns.index(name))[0].as_py() or "") else "strings"
            raise self.bad("expected rows, found none")
        found = self._types[name]
        if pa.types.is_dictionary(found):
            found = found.value_type
        if pa.types.is_integer(found):
            return INTEGERS
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

        texts = dict.fromkeys(self.columns, pa.string())
        return sum(batch.num_rows for batch in csv_batches(self.path, self.columns, texts, skip=self._skip))

    def batches(self, wanted: Mapping[str, str], most: int) -> Iterator[dict[str, Any]]:
        """Columns by name as pyarrow arrays of at most `most` rows: int64, string or float64 as `wanted` says.

        Raises
        ------
        BadInput
            A value of a column wanted as `INTEGERS` or "strings" is null, a string is empty or looks like a number in
            csv, or a column is of another type; names column and row, which csv counts from 1, as editors do.
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
                    raise self.bad(f"{name}: expected {kind}, found nothing in row {self._row(seen + at)}")
                try:
                    found[name] = column.cast(types[kind])
                except pa.ArrowInvalid as error:
                    raise self.bad(f"{name}: expected {kind}, found {' '.join(str(error).split())}") from error
                if kind == "strings":
                    self._check_names(name, found[name], seen)
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
            raise self.bad(f"{name}: expected a column of {kind}, found {found}")

    def _check_names(self, name: str, values: Any, first: int) -> None:
        import pyarrow.compute as pc

        wrong = {"an empty one": pc.equal(values, "")}
        if self._suffix == ".csv":
            wrong["an integer among names"] = pc.match_substring_regex(values, r"^\s*[+-]?[0-9]+\s*$")
        for what, mask in wrong.items():
            if pc.any(mask).as_py():
                at = int(np.flatnonzero(mask.to_numpy(zero_copy_only=False))[0])
                raise self.bad(
                    f"{name}: expected ids of one type, names as in the first row, found {what} in row "
                    f"{self._row(first + at)}: {values[at].as_py()!r}",
                    fix="write all ids as integers or all as names; a mixture as strings in parquet",
                )

    def _row(self, index: int) -> int:
        return index + 1 + self._skip if self._suffix == ".csv" else index

    def _batches(self, types: Mapping[str, Any], most: int) -> Iterator[Any]:
        import pyarrow as pa

        with self._reading():
            if self._suffix == ".csv":
                texts = {name: types.get(name, pa.string()) for name in self.columns}
                yield from csv_batches(self.path, self.columns, texts, skip=self._skip, most=most)
            elif self._suffix == ".parquet":
                yield from self._parquet().iter_batches(min(most, 1 << 20), columns=list(types), use_threads=False)
            else:
                reader = self._arrow()
                for number in range(reader.num_record_batches):
                    batch = reader.get_batch(number)
                    for start in range(0, batch.num_rows, most):
                        yield batch.slice(start, most)

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
        return BadInput(f"{self.path}: {text}", fix=fix or f"write {self.path.name} again and run the same command")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.lstrip("+-").isdigit() and len(text) - len(text.lstrip("+-")) <= 1
