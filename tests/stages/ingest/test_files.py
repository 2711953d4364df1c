"""`files:` in every format, against the arrays written; names against numbers; and what is
refused."""

import contextlib
import gzip
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.features import SparseRows
from stockpot.stages.ingest.open import open_dataset
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.source_counts import source_counts
from stockpot.stages.ingest.sources.folder import SPLIT_FORMS
from stockpot.store.digests import file_digest, source_digest
from stockpot.store.reader import SourceReader

N, E, D = 9, 23, 3
SPLITS = {"train": [4, 0, 8], "valid": [1], "test": [3, 2]}


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)).astype(np.float32)
    x[rng.random((N, D)) < 0.5] = 0
    y = rng.integers(-1, 3, N)
    y[0] = 2
    return rng.integers(0, N, (2, E)), rng.random(E).astype(np.float32), x, y


def write_table(path, columns, rows_together=5):
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows_together)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows_together)


def write(
    root,
    edges="edges.parquet",
    features="features.npy",
    *,
    weighted=False,
    splits=True,
    ends=("source", "target"),
):
    pairs, weight, x, y = arrays()
    root.mkdir(exist_ok=True)
    if edges == "edges.npy":
        np.save(root / edges, pairs)
    else:
        columns = dict(zip(ends, pairs, strict=True)) | ({"weight": weight} if weighted else {})
        write_table(root / edges, columns)
    if features == "features.npy":
        np.save(root / features, x)
    elif features == "features.npz":
        sp.save_npz(root / features, sp.csr_matrix(x))
    elif features == "features.parquet":
        write_table(root / features, {f"c{i}": x[:, i] for i in range(D)}, 4)
    np.save(root / "labels.npy", y)
    if splits:
        (root / "split").mkdir(exist_ok=True)
        for part, ids in SPLITS.items():
            np.save(root / "split" / f"{part}.npy", np.array(ids))
    return f"files:{root}"


def opened(source):
    found = describe(source)
    return open_dataset(SourceReader(found, source_digest(found, file_digest)))


def read_edges(data, most):
    blocks = list(data.edges(most))
    assert max(len(block.source) for block in blocks) <= most
    weight = (
        None if blocks[0].weight is None else np.concatenate([block.weight for block in blocks])
    )
    return np.concatenate(
        [np.stack([block.source, block.target]) for block in blocks], axis=1
    ), weight


def dense(rows):
    if isinstance(rows, SparseRows):
        data = np.ones(len(rows.indices), np.float32) if rows.data is None else rows.data
        return sp.csr_matrix(
            (data, rows.indices, rows.indptr), shape=(len(rows.indptr) - 1, rows.columns)
        ).toarray()
    return rows


def check_features(features, x):
    for start, stop in ((0, N), (3, 7), (0, 2), (8, 9), (4, 4)):
        assert np.array_equal(dense(features.rows(start, stop)), x[start:stop])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("edges", ["edges.parquet", "edges.csv", "edges.arrow", "edges.npy"])
def test_edges(tmp_path, edges, weighted):
    weighted &= edges != "edges.npy"
    source = write(tmp_path, edges, weighted=weighted)
    pairs, weight, x, y = arrays()
    with opened(source) as data:
        assert (data.num_nodes, data.num_edges, data.weighted) == (N, E, weighted)
        for most in (1, 4, 7, 1000):
            found, found_weight = read_edges(data, most)
            assert np.array_equal(found, pairs)
            assert (found_weight is None) or np.allclose(found_weight, weight, rtol=1e-6)
            assert weighted == (found_weight is not None)
        check_features(data.features(), x)
        assert data.labels().tolist() == y.tolist()
        assert {part: ids.tolist() for part, ids in data.splits()[0].items()} == {
            part: sorted(ids) for part, ids in SPLITS.items()
        }
        data.write_node_ids(pytest.fail)
    counts = source_counts(describe(source))
    assert (counts["num_nodes"], counts["num_features"], counts["weighted"]) == (N, D, weighted)
    assert counts["splits"] == {"train": 3, "valid": 1, "test": 2}
    if edges == "edges.csv":
        assert counts["num_edges_stored"] == pytest.approx(E, rel=0.2)
        assert counts["estimated"] == ["num_edges_stored"]
    else:
        assert counts["num_edges_stored"] == E


@pytest.mark.parametrize("features", ["features.npy", "features.npz", "features.parquet", None])
def test_features(tmp_path, features):
    source = write(tmp_path, features=features, splits=False, ends=("src", "dst"))
    x = arrays()[2]
    with opened(source) as data:
        if features is None:
            assert data.features() is None
        else:
            check_features(data.features(), x)
        assert data.splits() == []
    counts = source_counts(describe(source))
    kind = {None: "none", "features.npz": "sparse"}.get(features, "dense")
    assert (counts["features"], counts["splits"], counts["published_splits"]) == (kind, None, 0)
    assert counts["x_nnz"] == {"none": 0, "sparse": np.count_nonzero(x), "dense": N * D}[kind]


def test_csv_without_header_and_quoted(tmp_path):
    write(tmp_path, "edges.npy")
    (tmp_path / "edges.npy").unlink()
    (tmp_path / "edges.csv").write_text('0,1,0.5\n"2",3,1\n')
    with opened(f"files:{tmp_path}") as data:
        found, weight = read_edges(data, 10)
        assert (found.tolist(), weight.tolist()) == ([[0, 2], [1, 3]], [0.5, 1.0])


# --- names


def named(root, edges="edges.parquet", seed=0, labels="labels.parquet", unknown=False, **replace):
    """The graph of `arrays` under names; labels and features in an order of their own, some nodes
    only in them."""
    pairs, weight, x, y = arrays()
    rng = np.random.default_rng(seed)
    names = np.array(sorted({f'{chr(945 + i)} {i:02d},"{i}' for i in range(N)}))
    root.mkdir(exist_ok=True)
    keep = (pairs < N - 1).all(axis=0)  # the last node stands in no edge
    columns = {
        "source": names[pairs[0, keep]],
        "target": names[pairs[1, keep]],
        "weight": weight[keep],
    }
    write_table(root / edges, columns)
    order = rng.permutation(N)
    labelled = order[y[order] >= 0]
    write_table(root / labels, {"id": names[labelled], "label": y[labelled]})
    order = rng.permutation(N)
    features = {"c0": x[order, 0], "id": names[order], "c1": x[order, 1], "c2": x[order, 2]}
    write_table(root / "features.parquet", features)
    (root / "split").mkdir(exist_ok=True)
    for part, ids in SPLITS.items():
        np.save(root / "split" / f"{part}.npy", names[ids])
    return names, pairs[:, keep], weight[keep], x, y


@given(
    seed=st.integers(0, 1000), edges=st.sampled_from(["edges.parquet", "edges.csv", "edges.arrow"])
)
def test_names_are_numbered_in_sorted_order_whatever_the_files_order(tmp_path_factory, seed, edges):
    root = tmp_path_factory.mktemp("named")
    names, pairs, weight, x, y = named(
        root, edges, seed, labels="labels.csv" if seed % 2 else "labels.parquet"
    )
    with opened(f"files:{root}") as data:
        assert (data.num_nodes, data.num_edges, data.weighted) == (N, pairs.shape[1], True)
        for most in (1, 6, 100):
            found, found_weight = read_edges(data, most)
            assert np.array_equal(found, pairs)
            assert np.allclose(found_weight, weight)
        check_features(data.features(), x)
        assert data.labels().tolist() == y.tolist()
        assert {part: ids.tolist() for part, ids in data.splits()[0].items()} == {
            part: sorted(ids) for part, ids in SPLITS.items()
        }
        data.write_node_ids(lambda name: root / name)
    with pa.ipc.open_file(root / "node_ids.arrow") as kept:
        assert kept.read_all()["id"].to_pylist() == names.tolist()


def test_the_digest_covers_the_files_that_are_used(tmp_path):
    def digest(root):
        return source_digest(describe(f"files:{root}"), file_digest)

    write(tmp_path / "a")
    write(tmp_path / "b")
    (tmp_path / "b/notes.txt").write_text("not used")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    np.save(tmp_path / "b/split/valid.npy", np.array([5]))
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_a_file_that_changes_after_the_plan_is_noticed(tmp_path):
    found = describe(write(tmp_path))
    reader = SourceReader(found, source_digest(found, file_digest))
    assert reader.path("edges.parquet") == tmp_path / "edges.parquet"
    reader.check()
    np.save(tmp_path / "split/test.npy", np.array([5]))
    with pytest.raises(BadInput, match="it changed since the plan was made: expected digest"):
        reader.check()
    (tmp_path / "split/test.npy").unlink()
    with pytest.raises(BadInput, match=r"test\.npy: cannot read it: No such file"):
        reader.check()


# --- what is refused


def rewritten(root, name, content):
    for old in root.glob(f"{name.split('.')[0]}.*"):
        old.unlink()
    path = root / name
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        path.write_text(content)
    elif isinstance(content, dict):
        write_table(path, content)
    else:
        np.save(path, content)


def read_all(source):
    with opened(source) as data:
        list(data.edges(1000))
        if (features := data.features()) is not None:
            features.rows(0, data.num_nodes)
        data.labels()
        data.splits()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "edges.csv",
            "source,target\n0,1\n2,3,4\n",
            "edges.csv: row 3: expected 2 fields, found 3: 2,3,4",
        ),
        (
            "edges.csv",
            'source,target\n0,1\n"2,3\n',
            "row 3: expected 2 fields, found 1, with a quote that is not closed",
        ),
        (
            "edges.csv",
            "source,target\n0,1\n2,x7\n",
            "edges.csv: row 3, target: expected an integer, found 'x7'",
        ),
        (
            "edges.csv",
            "source,target\n0,1\n0,\n",
            "target: expected integers, found nothing in row 3",
        ),
        (
            "edges.csv",
            "source,target,wieght\n0,1,2\n",
            "perhaps weight, found source, target, wieght",
        ),
        ("edges.csv", "0,1\n0,9\n", "expected node ids from 0 to 8, found 9 at edge 1"),
        ("edges.csv", "0,1,2,3\n", "expected 2 or 3 columns, found 4"),
        ("edges.csv", "", "edges.csv: expected readable csv"),
        (
            "edges.csv",
            "a,b\n",
            "expected columns source, target (or src, dst) and perhaps weight, found a, b",
        ),
        ("edges.csv", "source,target\n0,1,\n", "row 2: expected 2 fields, found 3"),
        (
            "edges.parquet",
            {"source": [0.0], "target": [1.0]},
            "source: expected a column of integers or strings, found floats (1.0 for 1)",
        ),
        (
            "edges.parquet",
            {"source": [0], "target": ["a"]},
            "expected ids of one type, found source of integers, target",
        ),
        (
            "edges.parquet",
            {"source": [0, None], "target": [1, 2]},
            "source: expected integers, found nothing in row 1",
        ),
        (
            "edges.parquet",
            {"source": np.array([2**63], np.uint64), "target": [1]},
            "source: expected integers, found",
        ),
        (
            "edges.parquet",
            {"source": [0], "target": [1], "weight": ["a"]},
            "weight: expected a column of numbers, found",
        ),
        (
            "edges.parquet",
            {"source": [0], "target": [1], "weight": [-1.0]},
            "expected finite weights of 0 or more, found -",
        ),
        ("edges.parquet", "no parquet", "edges.parquet: expected a readable parquet file, found"),
        ("edges.arrow", "no arrow", "edges.arrow: expected a readable arrow file, found"),
        ("edges.npy", np.zeros((5, 2), int), "edges.npy: expected shape (2, E), found (5, 2)"),
        ("edges.npy", np.zeros((2, 5)), "edges.npy: expected integer node ids, found float64"),
        ("features.npy", np.zeros((3, 2)), "features.npy: expected 9 rows, one a node, found 3"),
        (
            "features.parquet",
            {"c": [1.0] * 8},
            "features.parquet: expected 9 rows, one a node, found 8",
        ),
        (
            "features.parquet",
            {"c": [1.0] * 10},
            "features.parquet: expected 9 rows, one a node, found 10",
        ),
        (
            "features.parquet",
            {"c": [1.0] * 8 + [None]},
            "expected finite features, found nan at node 8, column 0",
        ),
        ("features.parquet", {"c": ["a"] * 9}, "c: expected a column of numbers, found string"),
        (
            "features.parquet",
            {"id": range(9), "c": [1.0] * 9},
            "expected a row a node in their order, found a column id",
        ),
        (
            "labels.npy",
            np.zeros((9, 2), int),
            "multi-label targets are not available in this version",
        ),
        ("labels.npy", np.full(9, 0.5), "regression targets are not available in this version"),
        ("labels.csv", "id,label\n0,1\n", "nodes are integers: expected labels.npy"),
        (
            "split/valid.npy",
            np.array([0]),
            "valid.npy: expected no node of train_idx, found node 0 in both",
        ),
        ("split/valid.npy", np.array(["a"]), "valid.npy: expected integer node ids, found <U1"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, words):
    source = write(tmp_path)
    rewritten(tmp_path, name, content)
    with pytest.raises(BadInput) as caught:
        read_all(source)
    assert words in str(caught.value)
    assert "fix:" in str(caught.value)
    assert "\n" not in str(caught.value)
    with contextlib.suppress(
        BadInput
    ):  # that of the table's header, which describing a source reads
        source_counts(describe(source))  # says what it can, never fails


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("edges.csv", "source,target\na,b\nc,7\n", "found an integer among names in row 3: '7'"),
        (
            "edges.csv",
            "source,target\na,b\n,b\n",
            "source: expected ids of one type, names as in the first row, found an",
        ),
        (
            "edges.csv",
            "a,b\nb,c\n",
            "expected columns source, target (or src, dst) and perhaps weight, found a, b",
        ),
        (
            "edges.parquet",
            {"source": ["a", None], "target": ["b", "b"]},
            "source: expected strings, found nothing in row 1",
        ),
        (
            "labels.npy",
            np.zeros(9, int),
            "nodes have names in edges.parquet: expected labels.parquet or .csv with colum",
        ),
        (
            "features.npy",
            np.zeros((9, 1)),
            "nodes have names in edges.parquet: expected features.parquet with a column id",
        ),
        (
            "features.parquet",
            {"c": [1.0]},
            "nodes have names in edges.parquet: expected a column id, found none",
        ),
        (
            "features.parquet",
            {"id": ["new"], "c": [1.0]},
            "features.parquet: expected a row for every node, found none",
        ),
        (
            "labels.parquet",
            {"id": ["a", "a"], "label": [0, 1]},
            "id: expected each node once, found 'a' twice",
        ),
        (
            "labels.parquet",
            {"id": ["a"], "class": [0]},
            "expected columns id, label, found id, class",
        ),
        (
            "labels.parquet",
            {"id": ["a"], "label": ["x"]},
            "label: expected a column of numbers, found string",
        ),
        (
            "split/valid.npy",
            np.array(["nobody"]),
            "valid.npy: expected names of nodes, found 'nobody' at position 0",
        ),
        (
            "split/valid.npy",
            np.array([3]),
            "valid.npy: nodes have names: expected a list of strings, found int64",
        ),
    ],
)
def test_bad_names_are_one_line(tmp_path, name, content, words):
    named(tmp_path)
    rewritten(tmp_path, name, content)
    with pytest.raises(BadInput) as caught:
        read_all(f"files:{tmp_path}")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edges.csv", "expected edges once, found edges.csv and edges.parquet"),
        (
            "feature.npy",
            (
                "feature.npy: expected a known name, found an unknown one; nearest is "
                "features.{npy,npz,parq"
            ),
        ),
        (
            "embedding.npy",
            "embedding.npy: expected a known name, found an unknown one; nearest is edges.",
        ),
        (
            "edge_index.pt",
            "nearest is edges.{parquet,csv,csv.gz,arrow,npy}; fix: write it as edges.",
        ),
        ("y.csv.gz", "y.csv.gz: expected a known name, found an unknown one; nearest is labels."),
        (
            "labels.txt",
            "labels.txt: expected a known name, found an unknown one; nearest is labels.",
        ),
        ("labels", "labels: expected a known name, found an unknown one; nearest is labels."),
        (
            "split/val.npy",
            (
                "expected valid once, found split/val.npy and split/valid.npy; fix: move out all "
                "but one"
            ),
        ),
        ("train.npy", "expected train once, found split/train.npy and train.npy"),
        ("train_mask.parquet", "expected train once, found split/train.npy and train_mask.parquet"),
        (
            "split/train.pt",
            (
                "train.pt: expected a part of the split as npy, csv, csv.gz, txt, parquet, found "
                ".pt; fix: p"
            ),
        ),
        (
            "test_idx.pkl",
            (
                "test_idx.pkl: expected a part of the split as npy, csv, csv.gz, txt, parquet, "
                "found .pkl"
            ),
        ),
        ("split/split_dict.pt", "split_dict.pt: expected a known name, found an unknown one"),
        (
            "split/time/train.csv.gz",
            "time: expected the files of the split here, found a folder; fix: mv ",
        ),
        ("splits/train.npy", "splits: expected the split in"),
        ("train/ids.npy", "train: expected the split in"),
    ],
)
def test_names_of_files(tmp_path, name, words):
    write(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadInput, match=r"dataset\.source files:.*; fix: ") as caught:
        describe(f"files:{tmp_path}")
    assert words in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(BadInput, match="expected a folder at"):
        describe(f"files:{tmp_path}/none")
    with pytest.raises(
        BadInput, match=r"expected edges\.\{parquet,csv,csv\.gz,arrow,npy\}, found none"
    ):
        describe(f"files:{tmp_path}")
    write(tmp_path)
    (tmp_path / "split/valid.npy").unlink()
    with pytest.raises(
        BadInput, match=r"expected split/valid\.npy beside split/train\.npy, found none"
    ):
        describe(f"files:{tmp_path}")
    (tmp_path / "split/train.npy").unlink()
    (tmp_path / "split/test.npy").unlink()
    (tmp_path / "labels.npy").unlink()
    with pytest.raises(BadInput, match=r"expected labels\.\{npy,parquet,csv,csv\.gz\}, found none"):
        describe(f"files:{tmp_path}")


def test_a_matrix_of_columns_is_refused(tmp_path):
    source = write(tmp_path, features=None)
    sp.save_npz(tmp_path / "features.npz", sp.csc_matrix(arrays()[2]))
    with pytest.raises(BadInput, match=r"features\.npz: format: expected csr, found b'csc'"):
        read_all(source)
    matrix = sp.csr_matrix(arrays()[2])
    parts = {name: getattr(matrix, name) for name in ("data", "indices", "indptr", "shape")}
    np.savez(tmp_path / "features.npz", **parts, format=np.array(b"csr"), weight=np.ones(3))
    with pytest.raises(
        BadInput, match=r"expected data, indices, indptr and shape beside it, found also weight"
    ):
        read_all(source)


def test_files_for_people_are_left_alone_and_said(tmp_path):
    source = write(tmp_path)
    for name in ("README.md", "notes.txt", "LICENSE", ".DS_Store", "meta.json", "split/README"):
        (tmp_path / name).write_text("hello")
    (tmp_path / "processed").mkdir()
    found = describe(source)
    assert found.left_out == (
        ".DS_Store",
        "LICENSE",
        "README.md",
        "meta.json",
        "notes.txt",
        "processed/",
        "split/README",
    )
    assert sorted(found.files) == [
        "edges.parquet",
        "features.npy",
        "labels.npy",
        *(f"split/{part}.npy" for part in sorted(SPLITS)),
    ]


# --- splits in every form


def write_split(path, ids, kind="ids"):
    path.parent.mkdir(exist_ok=True)
    values = np.isin(np.arange(N), ids) if kind == "mask" else np.array(ids)
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"id": values}), path)
    else:
        text = "".join(f"{int(value) if kind == 'mask' else value}\n" for value in values)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((f"split/{{}}{suffix}", "ids") for suffix in SPLIT_FORMS),
        *((f"{{}}{suffix}", "ids") for suffix in (".npy", ".txt")),
        *((f"split/{{}}_mask{suffix}", "mask") for suffix in SPLIT_FORMS),
        ("idx_{}.csv", "ids"),
        ("split/{}.npy", "mask"),
        ("split/{}.parquet", "mask"),
    ],
)
@pytest.mark.parametrize("word", ["valid", "val"])
def test_splits_in_every_form(tmp_path, name, kind, word):
    source = write(tmp_path, splits=False)
    for part, ids in SPLITS.items():
        write_split(tmp_path / name.format({"valid": word}.get(part, part)), ids, kind)
    with opened(source) as data:
        (found,) = data.splits()
    assert {part: ids.tolist() for part, ids in found.items()} == {
        part: sorted(ids) for part, ids in SPLITS.items()
    }
    counts = source_counts(describe(source))
    assert counts["published_splits"] == 1
    assert counts["splits"].keys() == SPLITS.keys()


@pytest.mark.parametrize("suffix", SPLIT_FORMS)
def test_splits_of_names_in_every_form(tmp_path, suffix):
    names = named(tmp_path)[0]
    for part, ids in SPLITS.items():
        (tmp_path / f"split/{part}.npy").unlink()
        path = tmp_path / f"split/{part}{suffix}"
        if suffix in (".npy", ".parquet"):
            write_split(path, names[ids])
        else:
            text = "\n".join('"' + name.replace('"', '""') + '"' for name in names[ids]).encode()
            path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    with opened(f"files:{tmp_path}") as data:
        assert [ids.tolist() for ids in data.splits()[0].values()] == [
            sorted(ids) for ids in SPLITS.values()
        ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("4\n0\n8\n", [0, 4, 8]),
        ("id\n4\r\n0\n\n8", [0, 4, 8]),
        ("# of 2017\n 4\n 0 \n8\n", [0, 4, 8]),
        (
            "4.0\n0\n8\n",
            "found the float '4.0' at position 0; fix: write whole numbers: numpy.savetxt",
        ),
        ("4\n0\nx\n", "expected integer node ids, found 'x' at position 2"),
        ("nodes of train\n4\n", "expected integer node ids, found 'nodes of train' at position 0"),
        ("4,0,8\n", "row 1: expected 1 fields, found 3: 4,0,8"),
        ("", "expected readable csv with rows, found nothing"),
        ("4\n4\n", "expected each node once, found node 4 twice"),
    ],
)
def test_splits_as_text(tmp_path, text, found):
    source = write(tmp_path)
    (tmp_path / "split/train.npy").unlink()
    (tmp_path / "split/train.txt").write_text(text)
    if isinstance(found, str):
        with pytest.raises(BadInput) as caught:
            read_all(source)
        assert found in str(caught.value)
        assert "\n" not in str(caught.value)
    else:
        with opened(source) as data:
            assert data.splits()[0]["train"].tolist() == found


# --- what pandas adds


def with_index(columns, index, names=("__index_level_0__",)):
    about = {
        "index_columns": list(names),
        "columns": [],
        "column_indexes": [],
        "pandas_version": "2.2",
    }
    table = pa.table({**columns, names[0]: index})
    return table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})


def test_the_index_of_a_frame_is_no_feature(tmp_path):
    source, x = write(tmp_path, features="features.parquet"), arrays()[2]
    columns = {f"c{i}": x[:, i] for i in range(D)}
    plain = describe(source)
    assert plain.reading == ""
    for name in ("__index_level_0__", "row"):
        pq.write_table(with_index(columns, np.arange(N), (name,)), tmp_path / "features.parquet")
        found = describe(source)
        assert (found.reading, found.left_out) == (
            "features without index",
            (f"features.parquet: {name}",),
        )
        assert source_counts(found)["num_features"] == D
        with opened(source) as data:
            check_features(data.features(), x)
    frame = pd.DataFrame(columns)
    frame.to_parquet(tmp_path / "features.parquet")
    with opened(source) as data:
        check_features(data.features(), x)
    for order in (slice(None, None, -1), [1, 0, *range(2, N)]):
        frame.iloc[order].to_parquet(tmp_path / "features.parquet")
        with pytest.raises(
            BadInput, match=r"expected pandas' index to number the rows from 0 to 8, found"
        ):
            read_all(source)
    frame.set_index(pd.Index(list("abcdefghi"))).to_parquet(tmp_path / "features.parquet")
    with pytest.raises(BadInput, match=r"pandas' index to number the rows from 0, found .*str"):
        read_all(source)


def test_an_index_beside_names_is_left_out_wherever_it_is(tmp_path):
    _, pairs, weight, x, y = named(tmp_path)
    for name in ("edges", "labels", "features"):
        table = pq.read_table(tmp_path / f"{name}.parquet")
        columns = {column: table[column] for column in table.column_names}
        pq.write_table(
            with_index(columns, np.arange(len(table))[::-1]), tmp_path / f"{name}.parquet"
        )
    with opened(f"files:{tmp_path}") as data:
        found, found_weight = read_edges(data, 100)
        assert np.array_equal(found, pairs)
        assert np.allclose(found_weight, weight)
        check_features(data.features(), x)
        assert data.labels().tolist() == y.tolist()


def test_an_arrow_file_whose_offsets_point_elsewhere(tmp_path):
    named(tmp_path, "edges.arrow")
    path = tmp_path / "edges.arrow"
    with pa.ipc.open_file(path) as file:
        batch = file.get_batch(0)
    offsets = batch.column(0).buffers()[1].to_pybytes()
    content = path.read_bytes()
    assert content.count(offsets) >= 1
    path.write_bytes(
        content.replace(offsets, offsets[:4] + (1 << 30).to_bytes(4, "little") + offsets[8:])
    )
    with pytest.raises(BadInput, match=r"edges\.arrow: expected a readable arrow file, found"):
        read_all(f"files:{tmp_path}")
