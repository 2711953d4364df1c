"""A csv file, gzipped or not, is read front to back in bounded batches; an error names the row that
is wrong.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.dialect import PLAIN, is_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stockpot.stages.ingest.dialect import Dialect

__all__ = ["csv_batches", "csv_column", "csv_numbers", "first_fields", "numbers"]

_BLOCK_BYTES = 8 << 20


def first_fields(path: Path) -> list[str]:
    """Fields of the first row, as text.

    Raises
    ------
    BadInput
        The file is empty or unreadable.
    """
    import pyarrow as pa
    import pyarrow.csv as pc

    try:
        with pc.open_csv(
            path,
            read_options=pc.ReadOptions(
                autogenerate_column_names=True, use_threads=False, block_size=1 << 20
            ),
            convert_options=pc.ConvertOptions(strings_can_be_null=False),
            parse_options=pc.ParseOptions(invalid_row_handler=lambda _: "skip"),
        ) as reader:
            columns = len(reader.schema)
        names = [str(i) for i in range(columns)]
        for batch in csv_batches(path, names, dict.fromkeys(names, pa.string()), most=1):
            return [str(column[0].as_py()) for column in batch.columns]
    except (pa.ArrowInvalid, OSError) as error:
        raise _bad(path, error) from error
    raise BadInput(f"{path}: expected rows, found none", fix=f"write {path.name} again")


def csv_batches(
    path: Path,
    names: Sequence[str],
    types: Mapping[str, Any],
    *,
    skip: int = 0,
    most: int = 1 << 20,
    dialect: Dialect = PLAIN,
) -> Iterator[Any]:
    """Record batches of at most `most` rows of the columns `names`, which the file has in this
    order.

    Parameters
    ----------
    types : name -> pyarrow type. An empty field is null.
    skip : lines before the first row to leave out (a header, and what stands before it).
    dialect : its delimiter and decimal point.

    Raises
    ------
    BadInput
        A row has more or fewer fields (also by an open quote), or a value is not of its type; names
        the row from 1.
    """
    import pyarrow as pa
    import pyarrow.csv as pc

    odd: list[Any] = []

    def keep(row: Any) -> str:
        odd.append(row)
        return "error"

    try:
        with pc.open_csv(
            path,
            read_options=pc.ReadOptions(
                column_names=list(names), skip_rows=skip, use_threads=False, block_size=_BLOCK_BYTES
            ),
            parse_options=pc.ParseOptions(delimiter=dialect.delimiter, invalid_row_handler=keep),
            convert_options=pc.ConvertOptions(
                column_types=dict(types),
                null_values=["", "nan", "NaN"],
                strings_can_be_null=False,
                decimal_point=dialect.decimal,
            ),
        ) as reader:
            for batch in reader:
                for start in range(0, batch.num_rows, most):
                    yield batch.slice(start, most)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        if odd:
            row = odd[0]
            text = row.text if len(row.text) < 60 else f"{row.text[:60]}..."
            quoted = ", with a quote that is not closed" if row.text.count('"') % 2 else ""
            raise BadInput(
                f"{path}: row {row.number or 0}: expected {row.expected_columns} fields, found "
                f"{row.actual_columns}{quoted}: {' '.join(text.split())}",
                fix=f"correct this row of {path.name} and run the same command again",
            ) from error
        raise _bad(path, error, names) from error


def _bad(path: Path, error: Exception, names: Sequence[str] = ()) -> BadInput:
    text = " ".join(str(error).split())
    found = re.search(
        r"CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.*)'", text
    )
    if found is None:
        fix = f"write {path.name} again"
        if "invalid UTF8" in text:
            fix = f"iconv -f LATIN1 -t UTF-8 {path.name} > new.csv && mv new.csv {path.name}"
        return BadInput(f"{path}: expected readable csv, found: {text}", fix=fix)
    name = names[int(found[1])] if int(found[1]) < len(names) else found[1]
    what = {"int64": "an integer", "double": "a number"}.get(found[3], found[3])
    fix = f"correct this row of {path.name} and run the same command again"
    if found[3] == "int64" and is_float(found[4]):
        fix = f"write {name} as whole numbers, {found[4].partition('.')[0]} and not {found[4]}"
    return BadInput(
        f"{path}: row {int(found[2])}, {name}: expected {what}, found {found[4]!r}", fix=fix
    )


def csv_column(path: Path, kind: str = "int64") -> NDArray[Any]:
    """The only column of a csv file without header: i8, where no row may be empty, or f8 with NaN
    for empty rows.

    Raises
    ------
    BadInput
        There are more columns, or a value is not of its kind.
    """
    import pyarrow as pa

    types = {"value": pa.int64() if kind == "int64" else pa.float64()}
    parts = []
    for batch in csv_batches(path, ["value"], types):
        column = batch.column(0)
        if kind == "int64" and column.null_count:
            raise BadInput(
                f"{path}: expected an integer in every row, found an empty one",
                fix=f"write {path.name} again",
            )
        parts.append(column.to_numpy(zero_copy_only=False))
    return np.concatenate(parts)


def numbers(batch: Any) -> NDArray[np.float32]:
    """Columns of a record batch as f4[n, D], what is missing as NaN; from f8, as ogb reads text."""
    with np.errstate(over="ignore"):  # what is too large becomes inf, and is reported as that
        columns = [
            column.to_numpy(zero_copy_only=False).astype(np.float32) for column in batch.columns
        ]
    return np.stack(columns, axis=1)


def csv_numbers(path: Path, columns: int) -> Iterator[NDArray[np.float32]]:
    """Rows of a csv file of numbers without header."""
    import pyarrow as pa

    names = [f"column {i}" for i in range(columns)]
    for batch in csv_batches(path, names, dict.fromkeys(names, pa.float64())):
        yield numbers(batch)
