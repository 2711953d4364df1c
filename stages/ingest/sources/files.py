"""A folder of edges, features, labels and splits as a `DataSet`; edges and feature rows are never
held whole.

Nodes are integers from 0, in the order of labels and feature rows; or they have names, strings in
the edges, and then labels, features and splits are keyed by name: what would have to be guessed
from the order of rows is refused.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.stages.ingest.csvs import numbers
from stockpot.stages.ingest.edges import check_ids, check_weight
from stockpot.stages.ingest.features import check_dense_rows
from stockpot.stages.ingest.fields import PARTS
from stockpot.stages.ingest.gathered import Gathered, Part
from stockpot.stages.ingest.node_names import NodeNames, collect, together
from stockpot.stages.ingest.replayed_rows import StreamedRows
from stockpot.stages.ingest.source_data import EdgeBlock
from stockpot.stages.ingest.sources.folder import form, kinds, roles
from stockpot.stages.ingest.sources.npz import NpzDataSet
from stockpot.stages.ingest.sources.split_files import split_part
from stockpot.stages.ingest.table_files import FLOATS, INTEGERS, NUMBERS, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stockpot.stages.ingest.bad import Bad
    from stockpot.stages.ingest.source_data import Features
    from stockpot.stages.stage import Reader

__all__ = ["edge_table", "open_files"]

_PAIRS = (("source", "target"), ("src", "dst"))
_BATCH = 1 << 20


@contextmanager
def open_files(reader: Reader) -> Iterator[NpzDataSet]:
    """Open the folder of a `files:` source."""
    named = roles(reader.names())
    files = {role: reader.path(name) for role, name in named.items()}
    folder = Path(str(reader.facts["root"]))
    with ExitStack() as stack:
        edges = None if files["edges"].suffix == ".npy" else edge_table(files["edges"])
        names = None if edges is None or _ids(edges) == INTEGERS else _collect(edges, files)
        gathered = Gathered(folder, _parts(files, kinds(named), names), stack, kinds(named))
        yield FilesDataSet(gathered, files, edges, names, stack)


def edge_table(path: Path) -> Table:
    """The table of edges, its columns checked: source and target (or src and dst), and perhaps
    weight.
    """
    table = Table(path, headless=("source", "target", "weight"))
    pair = next((pair for pair in _PAIRS if set(pair) <= set(table.columns)), None)
    others = set(table.columns) - {*(pair or ()), "weight"}
    if pair is None or others:
        raise table.bad(
            f"expected columns source, target (or src, dst) and perhaps weight, found "
            f"{', '.join(table.columns)}",
            fix=f"name the columns of {path.name} so, and leave out others",
        )
    return table


def _ends(table: Table) -> tuple[str, str]:
    return next(pair for pair in _PAIRS if set(pair) <= set(table.columns))


def _ids(table: Table) -> str:
    """INTEGERS or "strings", the same of both ends."""
    found = {name: table.kind(name) for name in _ends(table)}
    for name, kind in found.items():
        if kind == FLOATS:
            raise table.bad(
                f"{name}: expected a column of integers or strings, found floats (1.0 for 1): "
                f"pandas makes them of "
                "integers beside missing values",
                fix=f"frame.astype({{{name!r}: 'int64'}}), rows without an id dropped; names of "
                f"such a "
                "form: as strings in parquet",
            )
        if kind not in (INTEGERS, "strings"):
            raise table.bad(
                f"{name}: expected a column of integers or strings, found {kind}",
                fix=f"frame.astype({{{name!r}: 'int64'}}) or astype({{{name!r}: str}})",
            )
    if len(set(found.values())) > 1:
        told = ", ".join(f"{name} of {kind}" for name, kind in found.items())
        raise table.bad(
            f"expected ids of one type, found {told}",
            fix="write all ids as integers, or all as names",
        )
    return next(iter(found.values()))


def _collect(edges: Table, files: dict[str, Path]) -> NodeNames:
    """Names in edges, labels and features; the last two must be keyed by them."""
    keyed = {
        "labels": ".parquet or .csv with columns id, label",
        "features": ".parquet with a column id",
    }
    tables = []
    for stem, expected in keyed.items():
        path = files.get(stem)
        if path is None:
            continue
        if form(path.name)[1].removesuffix(".gz") not in expected.split(" with", maxsplit=1)[
            0
        ].split(" or "):
            text = (
                f"nodes have names in {edges.path.name}: expected {stem}{expected}, found "
                f"{path.name}"
            )
            raise edges.bad(
                text, fix=f"write {stem} keyed by name: rows of {path.name} say no names"
            )
        table = Table(path)
        if "id" not in table.columns:
            raise table.bad(
                f"nodes have names in {edges.path.name}: expected a column id, found none"
            )
        tables.append(table)

    def columns() -> Iterator[Any]:
        for batch in edges.batches(dict.fromkeys(_ends(edges), "strings"), _BATCH):
            yield from batch.values()
        for table in tables:
            for batch in table.batches({"id": "strings"}, _BATCH):
                yield batch["id"]

    return collect(columns())


def _parts(
    files: dict[str, Path], masks: dict[str, str], names: NodeNames | None
) -> dict[str, Part]:
    """Where the arrays of the npz format stand; those keyed by names are read and put in the order
    of nodes.
    """
    labels = files["labels"]
    parts = {"edge_index": Part(files["edges"])}
    if names is None:
        if labels.suffix != ".npy":
            raise Table(labels).bad(
                "nodes are integers: expected labels.npy, a class a node in their order",
                fix="numpy.save('labels.npy', labels), labels in the order of nodes",
            )
        parts["y"] = Part(labels)
    else:
        parts["y"] = Part(labels, values=_named_labels(Table(labels), names))
        parts["num_nodes"] = Part(files["edges"], values=np.array([len(names)]))
    for split in PARTS:
        if split in files:
            parts[f"{split}_idx"] = split_part(files[split], masks[split], names)
    features = files.get("features")
    if features is not None:
        parts |= {"x": Part(features)}
        if features.suffix == ".npz":
            del parts["x"]
            members = ("data", "indices", "indptr", "shape")
            parts |= {f"x_{member}": Part(features, member) for member in members}
            _check_csr(features)
    return parts


def _check_csr(path: Path) -> None:
    """Refuse what `scipy.sparse.save_npz` wrote of another matrix: a CSC file has members of the
    same names.
    """
    with ExitStack() as stack:
        members = Gathered(path.parent, {"format": Part(path, "format")}, stack)
        found = members["format"]
        for name in members.others(path):
            if name not in ("data", "format", "indices", "indptr", "shape"):
                raise members.bad(
                    "format",
                    f"expected data, indices, indptr and shape beside it, found also {name}",
                )
        if found.tolist() not in (b"csr", "csr"):
            raise members.bad(
                "format", f"expected csr, found {found.tolist()!r}", fix="save matrix.tocsr()"
            )


def _named_labels(table: Table, names: NodeNames) -> NDArray[np.float64]:
    if set(table.columns) != {"id", "label"}:
        raise table.bad(f"expected columns id, label, found {', '.join(table.columns)}")
    y = np.full(len(names), np.nan)
    given = np.zeros(len(names), bool)
    for batch in together(table.batches({"id": "strings", "label": NUMBERS}, _BATCH), len(names)):
        nodes = _once(table, names, batch["id"], given)
        y[nodes] = batch["label"].to_numpy(zero_copy_only=False)
    return y


def _once(
    table: Table, names: NodeNames, column: Any, given: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Nodes of a column of names, none of which was given before; marks them as given."""
    nodes = names.nodes(column)
    if given[nodes].any() or len(np.unique(nodes)) < len(nodes):
        first = np.ones(len(nodes), bool)
        first[np.unique(nodes, return_index=True)[1]] = False
        at = int(np.flatnonzero(given[nodes] | first)[0])
        raise table.bad(f"id: expected each node once, found {column[at].as_py()!r} twice")
    given[nodes] = True
    return nodes


class FilesDataSet(NpzDataSet):
    """See `stockpot.stages.ingest.source_data.DataSet`.

    Parameters
    ----------
    edges : the table of edges, None where these are an array.
    names : where nodes have names.
    """

    def __init__(
        self,
        members: Gathered,
        files: dict[str, Path],
        edges: Table | None,
        names: NodeNames | None,
        stack: ExitStack,
    ) -> None:
        self._files, self._edges, self._names, self._stack = files, edges, names, stack
        super().__init__(members)
        self.weighted = edges is not None and "weight" in edges.columns

    def _count_edges(self) -> int:
        if self._edges is None:
            return super()._count_edges()
        rows = self._edges.rows()
        if rows == 0:
            raise self.bad("edge_index", "expected at least one edge, found no edges at all")
        return rows

    def edges(self, most: int) -> Iterator[EdgeBlock]:
        """All rows of the table in order."""
        if self._edges is None:
            yield from super().edges(most)
            return
        ends = _ends(self._edges)
        wanted = dict.fromkeys(ends, INTEGERS if self._names is None else "strings")
        if self.weighted:
            wanted["weight"] = NUMBERS
        batches, seen = self._edges.batches(wanted, most), 0
        for batch in batches if self._names is None else together(batches, len(self._names)):
            source, target = (self._nodes(batch[end], seen) for end in ends)
            weight = None
            if self.weighted:
                values = batch["weight"].to_numpy(zero_copy_only=False)
                weight = check_weight(self.bad, "edge_index", values, seen)
            for start in range(0, len(source), most):
                part = slice(start, start + most)
                yield EdgeBlock(
                    source[part], target[part], None if weight is None else weight[part]
                )
            seen += len(source)

    def _nodes(self, column: Any, first: int) -> NDArray[np.int32]:
        values = column.to_numpy() if self._names is None else self._names.nodes(column)
        return check_ids(self.bad, "edge_index", values, self.num_nodes, "edge", first)

    def features(self) -> Features | None:
        path = self._files.get("features")
        if path is None or path.suffix != ".parquet":
            return super().features()
        table = Table(path)
        columns = [name for name in table.columns if name != "id"]
        if not columns:
            raise self.bad("x", "expected at least one column of numbers, found none")
        wanted = dict.fromkeys(columns, NUMBERS)
        if self._names is not None:
            return _Scattered(table, wanted, self._names, self.bad, self._stack)
        if "id" in table.columns:
            text = "nodes are integers: expected a row a node in their order, found a column id"
            raise self.bad("x", text, "frame.sort_values('id').drop(columns='id')")
        if table.rows() != self.num_nodes:
            raise self.bad("x", f"expected {self.num_nodes} rows, one a node, found {table.rows()}")
        table.check_index(self.num_nodes)

        def batches() -> Iterator[NDArray[np.float32]]:
            for batch in table.batches(wanted, _rows_together(len(columns))):
                yield _values(batch, columns)

        return StreamedRows(batches, len(columns), self.num_nodes, self.bad)

    def write_node_ids(self, path: Callable[[str], Path]) -> None:
        """`node_ids.arrow`, where nodes have names."""
        if self._names is not None:
            self._names.write(path("node_ids.arrow"))


class _Scattered:
    """Rows keyed by name, put in the order of nodes in a temporary file of 4 bytes a value."""

    sparse = False

    def __init__(
        self, table: Table, wanted: dict[str, str], names: NodeNames, bad: Bad, stack: ExitStack
    ) -> None:
        self.columns, self._bad = len(wanted), bad
        # The stack closes it.
        file = stack.enter_context(tempfile.TemporaryFile(prefix="stockpot-"))  # noqa: SIM115
        self._rows = np.memmap(file, np.float32, "w+", shape=(len(names), self.columns))
        given = np.zeros(len(names), bool)
        batches = table.batches({"id": "strings", **wanted}, _rows_together(self.columns))
        for batch in together(batches, len(names) // 8):
            self._rows[_once(table, names, batch["id"], given)] = _values(batch, list(wanted))
        if not given.all():
            missing = names.names[int(np.flatnonzero(~given)[0])].as_py()
            raise bad("x", f"expected a row for every node, found none for {missing!r}")

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        return check_dense_rows(self._bad, "x", np.array(self._rows[start:stop]), start)


def _rows_together(columns: int) -> int:
    return max(1, (1 << 22) // columns)


def _values(batch: dict[str, Any], columns: list[str]) -> NDArray[np.float32]:
    import pyarrow as pa

    return numbers(pa.record_batch([batch[name] for name in columns], names=columns))
