"""Bad data sets: one line each, naming file, field and entry, and nothing written that a reader
could take for good."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest import STAGE
from stockpot.stages.ingest.features import check_dense_rows, check_sparse_rows
from tests.memory import MemoryReader, run_stage

EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
INF, NAN = float("inf"), float("nan")


class Source(MemoryReader):
    def __init__(self, file):
        super().__init__()
        self.file = Path(file)

    def path(self, name):
        return self.file


def good(**changes):
    found = {
        "edge_index": EDGES,
        "num_nodes": np.array(6),
        "x": np.ones((6, 3), np.float32),
        "y": np.array([0, 1, 0, 1, -1, 0]),
        **changes,
    }
    return {name: values for name, values in found.items() if values is not None}


def run(path, tmp_path, reduce=0):
    params = STAGE.resolve({"graph.undirected": True, "features.reduce": reduce}, {})
    return run_stage(STAGE, params, {"source": Source(path)}, tmp_path / "out")


def message(tmp_path, reduce=0, **changes):
    path = tmp_path / "bad.npz"
    np.savez(path, **good(**changes))
    return refusal(path, tmp_path, reduce)


def refusal(path, tmp_path, reduce=0):
    with pytest.raises(BadInput) as caught:
        run(path, tmp_path, reduce)
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.exit_code == 2
    assert caught.value.fix
    return text


def edges(row, column, value, dtype=np.int64):
    found = EDGES.astype(dtype)
    found[row, column] = value
    return found


def x(row, column, value):
    found = np.ones((6, 3), np.float64)
    found[row, column] = value
    return found


CSR = {
    "x": None,
    "x_data": np.ones(2),
    "x_indices": np.array([0, 2]),
    "x_indptr": np.array([0, 1, 1, 2, 2, 2, 2]),
    "x_shape": np.array([6, 3]),
}
LISTS = {"train_idx": np.array([0, 1]), "valid_idx": np.array([2]), "test_idx": np.array([3, 5])}
MASKS = {
    f"{name}_masks": np.eye(6, dtype=bool)[[at]]
    for at, name in enumerate(("train", "valid", "test"))
}

CASES = {
    "edge id too large": (
        {"edge_index": edges(0, 2, 6)},
        "edge_index: expected node ids from 0 to 5, found 6 at edge 2",
    ),
    "edge id huge": ({"edge_index": edges(1, 3, 2**40)}, "found 1099511627776 at edge 3"),
    "edge id negative": (
        {"edge_index": edges(1, 1, -1)},
        "edge_index: expected node ids from 0 to 5, found -1 at edge 1",
    ),
    "edge float": (
        {"edge_index": EDGES.astype(float)},
        "edge_index: expected integer node ids, found float64",
    ),
    "edge NaN": ({"edge_index": edges(1, 2, NAN, float)}, "found float64, and nan at edge 2"),
    "edge bool": ({"edge_index": EDGES > 1}, "found bool"),
    "edge shape": ({"edge_index": EDGES.T}, "edge_index: expected shape (2, E), found (4, 2)"),
    "edge missing": (
        {"edge_index": None},
        "edge_index: expected this member, found num_nodes, x, y",
    ),
    "edges none": ({"edge_index": np.zeros((2, 0), int)}, "no edges at all"),
    "edges only loops": (
        {"edge_index": np.array([[0, 1], [0, 1]])},
        "found no edges but self-loops",
    ),
    "edge pickled": (
        {"edge_index": np.array([[0, None]], object)},
        (
            "edge_index: expected plain numbers, found pickled objects; fix: where it is not "
            "needed, zip -d bad.npz edge"
        ),
    ),
    "weight NaN": (
        {"edge_weight": np.array([1, 1, NAN, 1])},
        "edge_weight: expected finite weights of 0 or more, found nan at edge 2",
    ),
    "weight negative": ({"edge_weight": np.array([1, -2.0, 1, 1])}, "found -2.0 at edge 1"),
    "weight overflow": ({"edge_weight": np.array([1, 1e300, 1, 1])}, "found inf at edge 1"),
    "weight count": (
        {"edge_weight": np.ones(3)},
        "edge_weight: expected 4 numbers, one an edge, found shape (3,)",
    ),
    "nodes none": ({"num_nodes": np.array(0)}, "num_nodes: expected one positive integer, found 0"),
    "nodes float": (
        {"num_nodes": np.array(6.0)},
        "num_nodes: expected one positive integer, found 6.0",
    ),
    "nodes two": (
        {"num_nodes": np.array([6, 6])},
        "num_nodes: expected one positive integer, found [6, 6]",
    ),
    "nodes too many": ({"num_nodes": np.array(2**31)}, "num_nodes: expected at most 2147483647"),
    "nodes unknown": ({"num_nodes": None, "y": None}, "num_nodes: expected this member, or y"),
    "x NaN": ({"x": x(4, 1, NAN)}, "x: expected finite features, found nan at node 4, column 1"),
    "x inf": ({"x": x(0, 2, -INF)}, "found -inf at node 0, column 2"),
    "x overflow": ({"x": x(3, 0, 1e300)}, "found inf at node 3, column 0"),
    "x too large": (
        {"x": x(3, 0, 1e30)},
        (
            "x: expected features from -1e+15 to 1e+15, found 1.0000000150474662e+30 at node 3, "
            "column 0; fix: divide each"
        ),
    ),
    "csr too large": (
        {**CSR, "x_data": np.array([1, -1e16])},
        "x_data: expected features from -1e+15 to 1e+15, found",
    ),
    "x rows": ({"x": np.ones((5, 3))}, "x: expected 6 rows, one a node, found 5"),
    "x shape": ({"x": np.ones(6)}, "x: expected numbers of shape (6, D), found shape (6,)"),
    "x complex": ({"x": np.ones((6, 3), complex)}, "of complex128"),
    "x no column": ({"x": np.ones((6, 0))}, "x: expected at least one column"),
    "x pickled": (
        {"x": np.array([[None]] * 6, object)},
        "x: expected plain numbers, found pickled",
    ),
    "x twice": (
        {**CSR, "x": np.ones((6, 3))},
        "x: expected either x or the parts of a CSR matrix, found also x_data",
    ),
    "csr NaN": (
        {**CSR, "x_data": np.array([1, NAN])},
        "x_data: expected finite features, found nan at node 2, column 2",
    ),
    "csr inf": ({**CSR, "x_data": np.array([INF, 1])}, "found inf at node 0, column 0"),
    "csr column": (
        {**CSR, "x_indices": np.array([0, 3])},
        "x_indices: expected columns from 0 to 2, found 3 at node 2",
    ),
    "csr negative": ({**CSR, "x_indices": np.array([-1, 2])}, "found -1 at node 0"),
    "csr float columns": (
        {**CSR, "x_indices": np.array([0.0, 2.0])},
        "x_indices: expected integers",
    ),
    "csr rows": ({**CSR, "x_shape": np.array([5, 3])}, "x_shape: expected (6, D)"),
    "csr pointer length": (
        {**CSR, "x_indptr": np.array([0, 2])},
        "x_indptr: expected 7 integers, found shape (2,)",
    ),
    "csr pointer end": (
        {**CSR, "x_indptr": np.array([0, 1, 1, 2, 2, 2, 3])},
        "x_indptr: expected offsets rising from 0 to 2",
    ),
    "csr pointer falls": ({**CSR, "x_indptr": np.array([0, 2, 1, 2, 2, 2, 2])}, "falling between"),
    "csr data length": (
        {**CSR, "x_data": np.ones(3)},
        "x_data: expected 2 numbers, one a column index, found shape (3,)",
    ),
    "csr part missing": ({**CSR, "x_indptr": None}, "x_indptr: expected this member"),
    "y count": ({"y": np.zeros(5, int)}, "y: expected 6 labels, one a node, found 5"),
    "y missing": ({"y": None}, "y: expected this member"),
    "y multi-label": (
        {"y": np.zeros((6, 3), int)},
        "multi-label targets are not available in this version",
    ),
    "y regression": (
        {"y": np.array([0, 1, 2.5, 0, 0, 0])},
        "found 2.5 at node 2: regression targets are not available",
    ),
    "y inf": ({"y": np.array([0, INF, 2, 0, 0, 0])}, "found inf at node 1"),
    "y negative": (
        {"y": np.array([0, 1, -2, 0, 0, 0])},
        "or -1 for unlabelled, found -2 at node 2",
    ),
    "y text": ({"y": np.array(list("abcdef"))}, "y: expected integer classes, found <U1"),
    "y all unlabelled": (
        {"y": np.full(6, -1)},
        "y: expected at least one labelled node, found none",
    ),
    "y huge": ({"y": np.array([0, 1, 10**9, 0, 0, 0])}, "found 1000000000 at node 2"),
    "split empty": (
        {**LISTS, "valid_idx": np.array([])},
        "valid_idx: expected at least one node, found an empty split",
    ),
    "split overlaps": (
        {**LISTS, "test_idx": np.array([5, 1])},
        "test_idx: expected no node of train_idx, found node 1 in both",
    ),
    "split overlaps behind": (
        {**LISTS, "test_idx": np.array([5, *LISTS["valid_idx"][:1]])},
        "test_idx: expected no node of valid_idx, found node 2 in both",
    ),
    "split overlaps before": (
        {**LISTS, "valid_idx": LISTS["train_idx"][:1]},
        "valid_idx: expected no node of train_idx, found node 0 in both",
    ),
    "split range": (
        {**LISTS, "test_idx": np.array([9])},
        "test_idx: expected node ids from 0 to 5, found 9 at position 0",
    ),
    "split negative": ({**LISTS, "test_idx": np.array([3, -1])}, "found -1 at position 1"),
    "split twice": (
        {**LISTS, "train_idx": np.array([1, 0, 1])},
        "train_idx: expected each node once, found node 1 twice",
    ),
    "split float": (
        {**LISTS, "train_idx": np.array([0.0, 1.0])},
        "train_idx: expected integer node ids, found float64",
    ),
    "split shape": (
        {**LISTS, "train_idx": np.array([[0, 1]])},
        "train_idx: expected a list of node ids",
    ),
    "split incomplete": (
        {**LISTS, "valid_idx": None},
        "valid_idx: expected this member beside train_idx",
    ),
    "split half": ({"test_idx": np.array([3])}, "train_idx: expected this member beside test_idx"),
    "split name": (
        {"train_mask": np.ones(6, bool)},
        "val_mask: expected this member beside train_mask, found none",
    ),
    "split name of old": (
        {"idx_test": np.ones(6, bool)},
        "idx_train: expected this member beside idx_test, found non",
    ),
    "split twice said": (
        {**LISTS, "val_idx": np.array([2])},
        "val_idx: expected each part of a split once, found also",
    ),
    "split both kinds": (
        {**LISTS, **MASKS},
        "test_idx: expected each part of a split once, found also test_masks",
    ),
    "split mixed names": (
        {
            "train_idx": np.array([0]),
            "valid_mask": np.eye(6, dtype=bool)[1],
            "test_idx": np.array([2]),
        },
        (
            "valid_mask: expected either lists of ids or masks in all three parts, found train_idx "
            "and valid_mask"
        ),
    ),
    "split mixed values": (
        {"train": np.array([0]), "val": np.eye(6, dtype=bool)[1], "test": np.array([2])},
        (
            "expected lists of ids or masks in all three parts, found train of int64, val of bool, "
            "test of int64"
        ),
    ),
    "mask shape": (
        {**MASKS, "test_masks": np.ones((5, 1), bool)},
        "test_masks: expected booleans of shape (6,), (S, 6) or (6, S), found shape (5, 1) of bool",
    ),
    "features twice": ({"node_feat": np.ones((6, 1))}, "node_feat: expected x once, found also x"),
    "edge features": (
        {"edge_attr": np.ones((4, 2))},
        (
            "available in this version; fix: where it is one weight an edge, name it edge_weight; "
            "else zip -d bad.npz"
        ),
    ),
    "unknown name": (
        {"edge_weihgt": np.ones(4)},
        "edge_weihgt: expected a known name, found an unknown one; nearest is edge_weight",
    ),
    "mask counts": ({**MASKS, "test_masks": np.eye(6, dtype=bool)[4:]}, "expected as many splits"),
    "mask values": (
        {**MASKS, "test_masks": np.array([[0, 0, 2, 0, 0, 0]])},
        "test_masks: expected booleans, 0 or 1, found 2",
    ),
    "mask empty": (
        {**MASKS, "test_masks": np.zeros((1, 6), bool)},
        "test_masks: expected at least one node, found an empty",
    ),
    "mask overlaps": (
        {name: np.vstack([mask, np.eye(6, dtype=bool)[[4]]]) for name, mask in MASKS.items()},
        "found node 4 in both in split 1",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case, tmp_path):
    changes, words = CASES[case]
    assert words in message(tmp_path, **changes)


def test_the_base_of_all_cases_is_sound(tmp_path):
    for changes in ({}, CSR, LISTS, MASKS):
        np.savez(tmp_path / "good.npz", **good(**changes))
        assert run(tmp_path / "good.npz", tmp_path).facts["num_nodes"] == 6


def test_reducing_to_more_columns_than_there_are(tmp_path):
    np.savez(tmp_path / "g.npz", **good())
    with pytest.raises(BadInput, match=r"features\.reduce: expected at most 3 .* found 4"):
        run(tmp_path / "g.npz", tmp_path, reduce=4)


def test_files_that_are_no_npz(tmp_path):
    path = tmp_path / "bad.npz"
    sound = tmp_path / "good.npz"
    np.savez(sound, **good())
    content = sound.read_bytes()
    for bad in (
        b"",
        b"hello, I am text",
        content[:40],
        content[: len(content) // 2],
        content[: len(content) - 10],
    ):
        path.write_bytes(bad)
        assert "expected a readable npz file" in refusal(path, tmp_path)
    np.save(tmp_path / "one.npy", EDGES)
    assert "found a single array" in refusal(tmp_path / "one.npy", tmp_path)
    assert "expected a readable npz file" in refusal(tmp_path / "missing.npz", tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_every_flipped_byte_is_an_error_or_harmless(save, tmp_path):
    """A damaged archive never becomes another graph: zip members carry a checksum."""
    path = tmp_path / "bad.npz"
    save(path, **good())
    content = path.read_bytes()
    sound = run(path, tmp_path)
    for at in range(0, len(content), 37):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        try:
            found = run(path, tmp_path)
        except BadInput:
            continue
        # A flip in an entry's name can hide an optional member; the arrays that are read are whole.
        for name in ("indptr", "indices", "y"):
            assert np.array_equal(found.array(name), sound.array(name))


def test_errors_of_the_own_disk_are_not_blamed_on_the_file(tmp_path):
    np.savez(tmp_path / "g.npz", **good())
    params = STAGE.resolve({"graph.undirected": True, "features.reduce": 0}, {})

    class Full:
        threads = 1
        memory_bytes = 1 << 40

        def array(self, name, values):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        STAGE.run(
            params, {"source": Source(tmp_path / "g.npz")}, STAGE.shards(params, {})[0], Full()
        )


@pytest.mark.parametrize("sparse", [False, True])
def test_a_feature_in_a_later_block_is_named_by_its_node(sparse):
    def bad(name, text, fix=None):
        return BadInput(f"{name}: {text}", fix=fix or "none")

    rows = np.ones((4, 3), np.float32)
    rows[2, 1] = NAN
    parts = np.arange(0, 13, 3), np.tile([0, 1, 2], 4), rows.reshape(-1)
    checked = partial(check_sparse_rows, bad, ("i", "x"), *parts, 3, 100) if sparse else None
    checked = checked or partial(check_dense_rows, bad, "x", rows, 100)
    with pytest.raises(
        BadInput, match="x: expected finite features, found nan at node 102, column 1"
    ):
        checked()
