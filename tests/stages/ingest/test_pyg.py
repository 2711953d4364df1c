"""`pyg:` from raw files written here, against the same class of torch_geometric; no network, no
stale cache."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.open import open_dataset
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.source_counts import source_counts
from stockpot.store.digests import file_digest, source_digest
from stockpot.store.reader import SourceReader

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
N, D = 30, 4
RNG = np.random.default_rng(0)
PAIRS = np.array([[i, (i * 7 + 3) % N] for i in range(N)])
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = RNG.integers(0, 3, N)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def raw(*parts):
    from pathlib import Path

    path = Path("data/downloads/pyg", *parts, "raw")
    path.mkdir(parents=True, exist_ok=True)
    return path


def masks(splits=None):
    order = [np.random.default_rng(s).permutation(N) for s in range(splits or 1)]
    found = [np.zeros((len(order), N), bool) for _ in range(3)]
    for row, ids in enumerate(order):
        for mask, part in zip(found, np.split(ids, [10, 20]), strict=True):
            mask[row, part] = True
    return found


def write_heterophilous(y=Y, splits=10):
    train, valid, test = masks(splits)
    np.savez(
        raw("HeterophilousGraphDataset", "minesweeper") / "minesweeper.npz",
        node_features=X,
        node_labels=y,
        edges=PAIRS,
        train_masks=train,
        val_masks=valid,
        test_masks=test,
    )


def write_saint(cls, labels):
    """The layout of GraphSAINT, as Flickr and Yelp have it."""
    place = raw(cls)
    sp.save_npz(place / "adj_full.npz", sp.csr_matrix((np.ones(N), PAIRS.T), shape=(N, N)))
    np.save(place / "feats.npy", X)
    (place / "class_map.json").write_text(json.dumps({str(i): y for i, y in enumerate(labels)}))
    roles = zip(("tr", "va", "te"), masks(), strict=True)
    (place / "role.json").write_text(
        json.dumps({role: np.flatnonzero(mask[0]).tolist() for role, mask in roles})
    )


def write_planetoid():
    place, nodes, test = raw("Planetoid", "Cora"), 600, 40
    rng = np.random.default_rng(1)
    x = sp.csr_matrix((rng.random((nodes, 6)) < 0.3).astype(np.float32))
    y = np.eye(3, dtype=np.int32)[rng.integers(0, 3, nodes)]
    graph = {i: [(i + 1) % nodes, (i * 5) % nodes] for i in range(nodes)}
    rest = nodes - test
    parts = {
        "x": x[:20],
        "tx": x[rest:],
        "allx": x[:rest],
        "y": y[:20],
        "ty": y[rest:],
        "ally": y[:rest],
        "graph": graph,
    }
    for name, value in parts.items():
        (place / f"ind.cora.{name}").write_bytes(pickle.dumps(value))
    (place / "ind.cora.test.index").write_text("\n".join(map(str, range(rest, nodes))))


def opened(source):
    found = describe(source)
    return open_dataset(SourceReader(found, source_digest(found, file_digest)))


def check(source, graph):
    """Against what torch_geometric itself made of the same files."""
    with opened(source) as data:
        blocks = list(data.edges(13))
        pairs = np.concatenate([np.stack([block.source, block.target]) for block in blocks], axis=1)
        assert np.array_equal(pairs, graph.edge_index.numpy())
        assert np.array_equal(data.features().rows(0, data.num_nodes), graph.x.numpy())
        assert data.labels().tolist() == graph.y.tolist()
        splits = data.splits()
        train, valid, test = (
            getattr(graph, f"{part}_mask").numpy() for part in ("train", "val", "test")
        )
        assert len(splits) == (train.shape[1] if train.ndim == 2 else 1)
        for number, split in enumerate(splits):
            for part, mask in (("train", train), ("valid", valid), ("test", test)):
                column = mask if mask.ndim == 1 else mask[:, number]
                assert split[part].tolist() == np.flatnonzero(column).tolist()


def test_planetoid(folder):
    from torch_geometric.datasets import Planetoid

    write_planetoid()
    assert describe("pyg:Planetoid/Cora").absent is None
    check("pyg:Planetoid/Cora", Planetoid("data/downloads/pyg/Planetoid", "Cora")[0])


def test_ten_published_splits(folder):
    from torch_geometric.datasets import HeterophilousGraphDataset

    write_heterophilous()
    graph = HeterophilousGraphDataset(
        "data/downloads/pyg/HeterophilousGraphDataset", "Minesweeper"
    )[0]
    check("pyg:HeterophilousGraphDataset/Minesweeper", graph)
    with opened("pyg:HeterophilousGraphDataset/Minesweeper?splits=none") as data:
        assert data.splits() == []


def test_one_split_in_a_root_of_ones_own(folder):
    from torch_geometric.datasets import Flickr

    write_saint("Flickr", Y.tolist())
    root = folder / "data/downloads/pyg/Flickr"
    check(f"pyg:Flickr@{root}", Flickr(str(root))[0])


def test_what_was_processed_before_plays_no_part(folder):
    from torch_geometric.datasets import HeterophilousGraphDataset

    write_heterophilous()
    HeterophilousGraphDataset("data/downloads/pyg/HeterophilousGraphDataset", "Minesweeper")
    first = describe("pyg:HeterophilousGraphDataset/Minesweeper")
    before = source_digest(first, file_digest)
    write_heterophilous(y=(Y + 1) % 3)
    with opened("pyg:HeterophilousGraphDataset/Minesweeper") as data:
        assert data.labels().tolist() == ((Y + 1) % 3).tolist()
    assert (
        source_digest(describe("pyg:HeterophilousGraphDataset/Minesweeper"), file_digest) != before
    )


def test_a_graph_that_comes_with_the_package(folder):
    with pytest.raises(
        BadInput, match=r"found no val_mask; fix: set dataset.source to pyg:KarateClub\?splits=none"
    ):
        opened("pyg:KarateClub").__enter__()
    with opened("pyg:KarateClub?splits=none") as data:
        assert (data.num_nodes, data.num_edges, data.labels().max()) == (34, 156, 3)
        assert np.array_equal(data.features().rows(0, 34), np.eye(34))
    counts = source_counts(describe("pyg:KarateClub"))
    assert (counts["num_nodes"], counts["num_edges_stored"]) == (34, 156)


def write_tu():
    place = raw("TUDataset", "MUTAG")
    (place / "MUTAG_A.txt").write_text("1, 2\n2, 1\n3, 4\n4, 3\n")
    (place / "MUTAG_graph_indicator.txt").write_text("1\n1\n2\n2\n")
    (place / "MUTAG_graph_labels.txt").write_text("0\n1\n")
    (place / "MUTAG_node_labels.txt").write_text("0\n1\n0\n1\n")


@pytest.mark.parametrize(
    ("write", "source", "words"),
    [
        (
            write_tu,
            "pyg:TUDataset/MUTAG",
            "expected one graph, found 2: data sets of several graphs are not available",
        ),
        (
            lambda: write_saint("Yelp", [[0, 1]] * N),
            "pyg:Yelp",
            "multi-label targets are not available",
        ),
        (
            lambda: write_heterophilous(y=Y + 0.5),
            "pyg:HeterophilousGraphDataset/Minesweeper",
            "regression targets are not available in this version",
        ),
        (
            lambda: (raw("Flickr") / "feats.npy").write_bytes(b""),
            "pyg:Flickr",
            "missing in",
        ),
        (
            lambda: (
                raw("HeterophilousGraphDataset", "minesweeper") / "minesweeper.npz"
            ).write_bytes(b"no"),
            "pyg:HeterophilousGraphDataset/Minesweeper",
            "torch_geometric cannot read it: ",
        ),
    ],
)
def test_data_sets_that_are_refused(folder, write, source, words):
    write()
    with pytest.raises(BadInput) as caught, opened(source) as data:
        data.labels()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "fix:" in str(caught.value)


def test_what_is_missing_comes_with_its_command(folder):
    absent = str(describe("pyg:Planetoid/Cora?split=geom-gcn").absent)
    root = folder / "data/downloads/pyg/Planetoid"
    assert (
        f"expected the raw files of Planetoid in {root}, found none; fix: stockpot fetch RECIPE"
        in absent
    )
    counts = source_counts(describe("pyg:Planetoid/PubMed"))
    assert (counts["num_nodes"], counts["num_features"], counts["num_classes"]) == (19_717, 500, 3)
    assert "num_nodes" in counts["estimated"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pyg:Planetiod/Cora", "unknown data set 'Planetiod', nearest is Planetoid"),
        ("pyg:Planetoid", 'expected "pyg:Planetoid/NAME"'),
        ("pyg:Flickr/Flickr", 'expected "pyg:Flickr"'),
        ("pyg:FakeDataset", "draws its graph at random"),
        (
            "pyg:Planetoid/Cora?spilt=full",
            "unknown option 'spilt' of Planetoid; fix: use splits, split",
        ),
        ("pyg:Planetoid/Cora?splits=some", 'splits: expected "published" or "none", found "some"'),
    ],
)
def test_names_that_are_refused(source, words):
    with pytest.raises(BadInput, match=r"dataset\.source") as caught:
        describe(source)
    assert words in str(caught.value)


def test_describing_imports_no_torch():
    text = "import sys; from stockpot.stages.ingest.source import describe; "
    text += "from stockpot.stages.ingest.source_counts import source_counts as c; "
    text += "c(describe('pyg:Planetoid/Cora')); c(describe('ogb:ogbn-arxiv')); "
    text += "print([m for m in ('torch', 'torch_geometric', 'ogb', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_not_taken_is_left_out_by_name():
    with opened("pyg:KarateClub?splits=none") as data:
        assert data.left_out == ("train_mask",)
        assert data.splits() == []
