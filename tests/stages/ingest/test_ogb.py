"""`ogb:` from small folders in OGB's own layout, against the arrays they were written from."""

import gzip

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.open import open_dataset
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.source_counts import source_counts
from stockpot.store.digests import file_digest, source_digest
from stockpot.store.reader import SourceReader

SPLITS = {"train": [5, 3, 0], "valid": [1], "test": [4, 2]}
N, D = 7, 3


def arrays():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 0, 1, 2, -1])
    return rng.integers(0, N, (2, 11)), rng.normal(size=(N, D)), labels


def gz(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def rows(values):
    return "".join(
        ",".join("" if v != v else repr(v.item()) for v in row) + "\n" for row in np.asarray(values)
    )


def write_csv(root, name="ogbn_arxiv", split="time", **replace):
    edges, x, labels = arrays()
    named = labels.astype(float)
    named[labels < 0] = np.nan
    texts = {
        "raw/edge": rows(edges.T),
        "raw/node-feat": rows(x),
        "raw/node-label": "".join("nan\n" if v != v else f"{v}\n" for v in named),
        "raw/num-node-list": f"{N}\n",
        "raw/num-edge-list": f"{edges.shape[1]}\n",
        **{f"split/{split}/{part}": "".join(f"{i}\n" for i in ids) for part, ids in SPLITS.items()},
    } | replace
    for file, text in texts.items():
        if text is not None:
            gz(root / name / f"{file}.csv.gz", text)
    return root / name


def write_npz(root, save=np.savez, **replace):
    folder = root / "ogbn_papers100M"
    edges, x, labels = arrays()
    (folder / "raw").mkdir(parents=True)
    label = labels.astype(np.float32)[:, None]
    label[labels < 0] = np.nan
    data = {
        "edge_index": edges,
        "node_feat": x.astype(np.float32),
        "node_year": np.zeros((N, 1)),
        "num_nodes_list": np.array([N]),
        "num_edges_list": np.array([11]),
    } | replace
    save(folder / "raw/data.npz", **{k: v for k, v in data.items() if v is not None})
    save(folder / "raw/node-label.npz", node_label=label)
    for part, ids in SPLITS.items():
        gz(folder / f"split/time/{part}.csv.gz", "".join(f"{i}\n" for i in ids))
    return folder


def opened(source):
    found = describe(source)
    return open_dataset(SourceReader(found, source_digest(found, file_digest)))


def check(source, most=4):
    edges, x, labels = arrays()
    with opened(source) as data:
        assert (data.num_nodes, data.num_edges, data.weighted) == (N, 11, False)
        for _ in range(2):
            blocks = list(data.edges(most))
            assert max(len(block.source) for block in blocks) <= most
            found = np.concatenate(
                [np.stack([block.source, block.target]) for block in blocks], axis=1
            )
            assert np.array_equal(found, edges)
        features = data.features()
        for start, stop in ((0, N), (2, 5), (0, 3), (6, 7), (1, 1)):
            assert np.array_equal(features.rows(start, stop), x[start:stop].astype(np.float32))
        assert data.labels().tolist() == labels.tolist()
        assert {part: ids.tolist() for part, ids in data.splits()[0].items()} == {
            part: sorted(ids) for part, ids in SPLITS.items()
        }


def test_csv(tmp_path):
    write_csv(tmp_path)
    check(f"ogb:ogbn-arxiv@{tmp_path}")


def test_products_split_folder(tmp_path):
    write_csv(tmp_path, "ogbn_products", "sales_ranking")
    check(f"ogb:ogbn-products@{tmp_path}")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    write_npz(tmp_path, save)
    check(f"ogb:ogbn-papers100M@{tmp_path}")


def test_without_features(tmp_path):
    write_csv(tmp_path, **{"raw/node-feat": None})
    with opened(f"ogb:ogbn-arxiv@{tmp_path}") as data:
        assert data.features() is None
    assert source_counts(describe(f"ogb:ogbn-arxiv@{tmp_path}"))["features"] == "none"
    write_npz(tmp_path, node_feat=None)
    with opened(f"ogb:ogbn-papers100M@{tmp_path}") as data:
        assert data.features() is None


def test_many_rows_go_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("stockpot.stages.ingest.csvs._BLOCK_BYTES", 64)
    write_csv(tmp_path)
    check(f"ogb:ogbn-arxiv@{tmp_path}", most=3)


def test_the_default_folder_is_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "data/downloads")
    check("ogb:ogbn-arxiv")


def test_counts_are_those_of_the_files_where_they_are_there(tmp_path):
    write_csv(tmp_path)
    write_npz(tmp_path)
    for name in ("ogbn-arxiv", "ogbn-papers100M"):
        counts = source_counts(describe(f"ogb:{name}@{tmp_path}"))
        assert (counts["num_nodes"], counts["num_edges_stored"], counts["num_features"]) == (
            N,
            11,
            D,
        )
        assert counts["splits"] == {"train": 3, "valid": 1, "test": 2}
    absent = describe("ogb:ogbn-papers100M@/nowhere")
    counts = source_counts(absent)
    assert (counts["num_nodes"], counts["num_edges_stored"]) == (111_059_956, 1_615_685_872)
    assert counts["labelled"] == 1_546_782


def test_missing_files_are_named_with_the_command(tmp_path):
    folder = write_csv(tmp_path)
    (folder / "raw/edge.csv.gz").unlink()
    (folder / "split/time/valid.csv.gz").unlink()
    message = str(describe(f"ogb:ogbn-arxiv@{tmp_path}").absent)
    assert f"missing in {folder}: raw/edge.csv.gz, split/time/valid.csv.gz; fix: " in message
    assert message.endswith("; fix: stockpot fetch RECIPE")


def test_the_digest_is_that_of_the_content(tmp_path):
    def digest(root):
        return source_digest(describe(f"ogb:ogbn-arxiv@{root}"), file_digest)

    write_csv(tmp_path / "a")
    write_csv(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    write_csv(tmp_path / "b", **{"split/time/valid": "6\n"})
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("ogb:ogbn-arvix", "unknown data set 'ogbn-arvix', nearest is ogbn-arxiv"),
        ("ogb:ogbn-proteins", "multi-label targets are not available"),
        ("ogb:ogbn-mag", "heterogeneous graphs are not available"),
        ("ogb:", 'found "ogb:"'),
    ],
)
def test_names_that_are_refused(source, words):
    with pytest.raises(BadInput, match=r"dataset\.source") as caught:
        describe(source)
    assert words in str(caught.value)


def read_all(data):
    list(data.edges(1000))
    data.features().rows(0, data.num_nodes)
    data.labels()
    data.splits()


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        ({"raw/edge": "0,1\n2,3,4\n"}, "edge.csv.gz: row 2: expected 2 fields, found 3: 2,3,4"),
        ({"raw/edge": "0,1\n2,x\n"}, "edge.csv.gz: row 2, target: expected an integer, found 'x'"),
        ({"raw/edge": "0,1\n2,\n"}, "edge.csv.gz: expected an integer, found nothing at edge 1"),
        (
            {"raw/edge": "0,1\n2,7\n"},
            "edge.csv.gz: expected node ids from 0 to 6, found 7 at edge 1",
        ),
        ({"raw/edge": "0,1\n"}, "edge.csv.gz: expected 11 edges (num-edge-list), found 1"),
        ({"raw/node-feat": "1,2\n"}, "node-feat.csv.gz: expected 7 rows, one a node, found 1"),
        (
            {"raw/node-feat": "1,2\n" * 8},
            "node-feat.csv.gz: expected 7 rows, one a node, found more",
        ),
        (
            {"raw/node-feat": "1,2\n" * 6 + "1,\n"},
            "node-feat.csv.gz: expected finite features, found nan",
        ),
        (
            {"raw/node-feat": "1,2\n" * 6 + "1\n"},
            "node-feat.csv.gz: row 7: expected 2 fields, found 1: 1",
        ),
        ({"raw/node-label": "1\n2\n"}, "node-label.csv.gz: expected 7 labels, one a node, found 2"),
        ({"raw/node-label": "1,0\n" * 7}, "node-label.csv.gz: row 1: expected 1 fields, found 2"),
        (
            {"raw/num-edge-list": "3\n4\n"},
            "num-edge-list.csv.gz: expected one positive integer, found [3, 4]",
        ),
        (
            {"split/time/valid": "0\n"},
            "valid.csv.gz: expected no node of train_idx, found node 0 in both",
        ),
        ({"split/time/valid": "x\n"}, "valid.csv.gz: row 1, value: expected an integer, found 'x'"),
    ],
)
def test_bad_csv_is_one_line(tmp_path, replace, words):
    write_csv(tmp_path, **replace)
    with pytest.raises(BadInput) as caught, opened(f"ogb:ogbn-arxiv@{tmp_path}") as data:
        read_all(data)
    assert words in str(caught.value)
    assert "fix:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_files(tmp_path):
    folder = write_csv(tmp_path)
    (folder / "split/time/test.csv.gz").write_bytes(b"no gzip")
    assert source_counts(describe(f"ogb:ogbn-arxiv@{tmp_path}")) is None
    write_csv(tmp_path)
    path = folder / "raw/edge.csv.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with (
        pytest.raises(BadInput, match=r"edge\.csv\.gz: expected readable csv"),
        opened(f"ogb:ogbn-arxiv@{tmp_path}") as data,
    ):
        list(data.edges(10))
    folder = write_npz(tmp_path)
    path = folder / "raw/data.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with (
        pytest.raises(BadInput, match=r"data\.npz: edge_index: expected a readable npz"),
        opened(f"ogb:ogbn-papers100M@{tmp_path}") as data,
    ):
        list(data.edges(10))


def test_published_files_that_are_not_used_are_said(tmp_path):
    write_csv(tmp_path, **{"raw/node_year": "2017\n"})
    assert describe(f"ogb:ogbn-arxiv@{tmp_path}").left_out == ("raw/node_year.csv.gz",)
