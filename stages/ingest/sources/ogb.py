"""OGB's raw files as a `DataSet`: gzipped csv and the members of `data.npz` are streamed, never
held whole.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.csvs import csv_batches, csv_column, csv_numbers, first_fields
from stockpot.stages.ingest.edges import check_ids
from stockpot.stages.ingest.gathered import Gathered, Part
from stockpot.stages.ingest.replayed_rows import StreamedRows
from stockpot.stages.ingest.source_data import EdgeBlock
from stockpot.stages.ingest.sources.npz import NpzDataSet
from stockpot.stages.ingest.sources.ogb_source import KNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stockpot.stages.ingest.source_data import Features
    from stockpot.stages.stage import Reader

__all__ = ["open_ogb"]

_FETCH = "mv {folder} {folder}.damaged && stockpot fetch RECIPE"


@contextmanager
def open_ogb(reader: Reader) -> Iterator[NpzDataSet]:
    """Open the raw files of a data set: arrays of edges and rows are streamed, labels and splits
    are read.
    """
    name = str(reader.facts["name"])
    folder, known = Path(str(reader.facts["root"])), KNOWN[name]
    files = {file: reader.path(file) for file in reader.names()}
    with _fetched_again(folder), ExitStack() as stack:
        parts = {}
        for split in ("train", "valid", "test"):
            path = files[f"split/{known.split}/{split}.csv.gz"]
            parts[f"{split}_idx"] = Part(path, values=csv_column(path))
        if known.binary:
            data, labels = files["raw/data.npz"], files["raw/node-label.npz"]
            parts |= {
                "edge_index": Part(data, "edge_index"),
                "num_nodes": Part(data, "num_nodes_list"),
            }
            parts["y"] = Part(labels, "node_label")
            if _has(data, "node_feat"):
                parts["x"] = Part(data, "node_feat")
            yield NpzDataSet(Gathered(folder, parts, stack))
            return
        counts = {what: files[f"raw/num-{what}-list.csv.gz"] for what in ("node", "edge")}
        label = files["raw/node-label.csv.gz"]
        parts["num_nodes"] = Part(counts["node"], values=csv_column(counts["node"]))
        parts["num_edges"] = Part(counts["edge"], values=csv_column(counts["edge"]))
        parts["y"] = Part(label, values=csv_column(label, "float64"))
        parts["edge_index"] = Part(files["raw/edge.csv.gz"])
        if "raw/node-feat.csv.gz" in files:
            parts["x"] = Part(files["raw/node-feat.csv.gz"])
        yield _CsvDataSet(Gathered(folder, parts, stack), files)


@contextmanager
def _fetched_again(folder: Path) -> Iterator[None]:
    """Published files are not written or corrected by a user: what is wrong with them is fetched
    again.
    """
    try:
        yield
    except BadInput as error:
        if (error.fix or "").startswith(("write ", "correct ")):
            raise BadInput(error.message, fix=_FETCH.format(folder=folder)) from error
        raise


def _has(path: Path, member: str) -> bool:
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return f"{member}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False  # opening it says what is wrong


class _CsvDataSet(NpzDataSet):
    """Edges one a row as "source,target", feature rows one a node."""

    def __init__(self, members: Gathered, files: dict[str, Path]) -> None:
        self._files = files
        super().__init__(members)

    def _count_edges(self) -> int:
        found = self._members["num_edges"]
        if found.size != 1 or found[0] < 1:
            raise self.bad(
                "num_edges",
                f"expected one positive integer, found {found.tolist()!r}",
                fix="write it again",
            )
        return int(found[0])

    def edges(self, most: int) -> Iterator[EdgeBlock]:
        """All rows of the file; their number must be what `num-edge-list` says."""
        import pyarrow as pa

        names, seen = ["source", "target"], 0
        for batch in csv_batches(
            self._files["raw/edge.csv.gz"], names, dict.fromkeys(names, pa.int64()), most=most
        ):
            ids = []
            for column in batch.columns:
                if column.null_count:
                    at = seen + int(
                        np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]
                    )
                    raise self.bad("edge_index", f"expected an integer, found nothing at edge {at}")
                values = column.to_numpy()
                ids.append(check_ids(self.bad, "edge_index", values, self.num_nodes, "edge", seen))
            seen += batch.num_rows
            yield EdgeBlock(ids[0], ids[1])
        if seen != self.num_edges:
            raise self.bad(
                "edge_index",
                f"expected {self.num_edges} edges (num-edge-list), found {seen}",
                fix="write it again",
            )

    def features(self) -> Features | None:
        """Rows of `node-feat.csv.gz`, None where the data set comes without."""
        path = self._files.get("raw/node-feat.csv.gz")
        if path is None:
            return None
        columns = len(first_fields(path))
        return StreamedRows(lambda: csv_numbers(path, columns), columns, self.num_nodes, self.bad)
