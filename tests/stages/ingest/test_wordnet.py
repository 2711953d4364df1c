import hashlib
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest.source import EMBEDDED, describe
from stockpot.stages.ingest.sources.wordnet import build, main, parse, write_npz

EXCERPT = Path(__file__).parents[2] / "data" / "wordnet"
FULL = os.environ.get("STOCKPOT_WORDNET_DIR")


@pytest.fixture
def folder(tmp_path):
    """A copy of the excerpt that a test may damage."""
    return Path(shutil.copytree(EXCERPT, tmp_path / "wordnet"))


def edges(graph):
    symbols = graph["edge_type_symbols"][graph["edge_type"]].tolist()
    return dict(zip(map(tuple, graph["edge_index"].T.tolist()), symbols, strict=True))


def test_synsets_come_in_file_order_with_their_pointers():
    synsets, node = parse(EXCERPT)
    assert len(synsets) == 19
    assert [pos for pos, _ in node] == ["n"] * 9 + ["v"] * 3 + ["a"] * 5 + ["r"] * 2
    dog = synsets[node["n", "02084071"]]
    assert (dog.lexfile, dog.lemmas) == (5, ("dog", "domestic_dog", "Canis_familiaris"))
    assert dog.pointers[0] == ("@", "n", "02083346")
    assert dog.gloss.startswith("a member of the genus Canis")


def test_edges_are_one_a_pair_typed_by_the_first_pointer():
    _, node = parse(EXCERPT)
    found = edges(build(EXCERPT, rarest=2))
    dog, canine, able = node["n", "02084071"], node["n", "02083346"], node["a", "00001740"]
    assert found[dog, canine] == "@"
    assert found[canine, dog] == "~"
    assert (node["n", "01606177"],) * 2 in found, "the self-loop is published as it stands"
    # Two pointers of "able" lead to this synset: "=" stands first.
    assert found[able, node["n", "05200169"]] == "="
    # "ably" points at two satellite adjectives, written with the part of speech a.
    assert found[node["r", "00185172"], node["a", "00510348"]] == "\\"
    assert len(found) == 32
    assert list(found) == sorted(found)


def test_features_are_words_of_lemmas_and_gloss_by_document_frequency():
    graph = build(EXCERPT, rarest=1)
    vocab = graph["vocab"].tolist()
    assert vocab == sorted(vocab)
    # Below a tenth of 19 synsets is one synset; "dog" stands in one, "the" in many, "a" is one
    # letter.
    assert {"canidae", "familiaris"} <= set(vocab)
    assert not {"the", "a", "of"} & set(vocab)
    _, node = parse(EXCERPT)
    dog = node["n", "02084071"]
    row = graph["x_indices"][graph["x_indptr"][dog] : graph["x_indptr"][dog + 1]]
    assert "familiaris" in graph["vocab"][row]
    assert (np.diff(row) > 0).all()
    assert (graph["x_data"] == 1).all()
    few = build(EXCERPT, vocabulary=3, rarest=1)["vocab"].tolist()
    assert few == vocab[:3], "all stand in one synset: the alphabet decides"


def test_split_and_labels():
    graph = build(EXCERPT, rarest=1)
    ids = [graph[f"{name}_idx"] for name in ("train", "valid", "test")]
    assert [len(i) for i in ids] == [9, 5, 5]
    assert sorted(np.concatenate(ids).tolist()) == list(range(19))
    assert set(graph["y"].tolist()) == {0, 1, 2, 4, 5, 7, 9, 14, 29}
    assert graph["y"][0] == 4


def test_two_builds_give_the_same_bytes(tmp_path, capsys):
    digests = []
    for name in ("a.npz", "b.npz"):
        assert main([str(EXCERPT), str(tmp_path / name)]) == 0
        digests.append(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    assert "19 nodes, 32 directed edges" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert int(file["num_nodes"]) == 19


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write_npz(tmp_path / "g.npz", {"a": np.array([{}], object)})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("|", " "), "line 30: expected a synset"),
        (
            lambda text: text.replace("00831191 04 n 04", "00831191 04 n zz"),
            "line 30: expected a synset",
        ),
        (
            lambda text: text.replace("00831191 04 n 04", "00831191 04 n 40"),
            "line 30: expected a synset",
        ),
        (lambda text: text.replace("@ 02083346 n", "@ 02083347 n"), r"dog points to (n, 02083347)"),
    ],
)
def test_damaged_files_are_named(folder, damage, words, capsys):
    path = folder / "data.noun"
    path.write_text(damage(path.read_text("latin-1")), "latin-1")
    with pytest.raises(BadInput) as caught:
        build(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert main([str(folder), str(folder / "out.npz")]) == 2
    assert words in capsys.readouterr().err
    assert not (folder / "out.npz").exists()


def test_missing_and_empty_files_are_named(folder, capsys):
    for path in folder.iterdir():
        path.write_text("  1 licence only\n")
    with pytest.raises(BadInput, match="expected synsets"):
        build(folder)
    (folder / "data.verb").unlink()
    with pytest.raises(
        BadInput,
        match=r"data\.verb: expected a WordNet data file, found none; fix: apt-get install",
    ):
        build(folder)
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main([str(EXCERPT), str(folder / "no" / "out.npz")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_the_embedded_graph_is_what_the_readme_says():
    assert describe("wordnet").files == {"source": str(EMBEDDED)}
    with np.load(EMBEDDED, allow_pickle=False) as file:
        graph = dict(file)
    assert int(graph["num_nodes"]) == 117_659
    assert graph["edge_index"].shape == (2, 361_647)
    assert int((graph["edge_index"][0] == graph["edge_index"][1]).sum()) == 9
    touched = np.zeros(117_659, bool)
    touched[graph["edge_index"][:, graph["edge_index"][0] != graph["edge_index"][1]].ravel()] = True
    assert int((~touched).sum()) == 1_009
    assert len(np.unique(graph["y"])) == 45
    assert graph["x_shape"].tolist() == [117_659, 4_096]
    assert len(graph["x_indices"]) == 804_402
    assert [len(graph[f"{s}_idx"]) for s in ("train", "valid", "test")] == [58_829, 29_415, 29_415]
    assert "Princeton" in (EMBEDDED.parent / "WORDNET-LICENSE").read_text()


@pytest.mark.skipif(
    not FULL, reason="the full database: set STOCKPOT_WORDNET_DIR=/usr/share/wordnet"
)
def test_the_full_database_gives_the_embedded_graph():
    built = build(Path(FULL))
    with np.load(EMBEDDED, allow_pickle=False) as file:
        assert sorted(file.files) == sorted(built)
        for name in file.files:
            assert file[name].dtype == built[name].dtype
            assert np.array_equal(file[name], built[name]), name


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("wordnt", "nearest is wordnet"),
        ("nzp:a.npz", "nearest is npz"),
        ("npz:", 'expected "wordnet", "npz:PATH"'),
        ("sythetic:communities", "nearest is synthetic"),
        ("npz:nowhere.npz", "expected a file at"),
    ],
)
def test_sources_that_are_refused(source, words):
    with pytest.raises(BadInput) as caught:
        describe(source)
    assert words in str(caught.value)


def test_npz_source_is_a_path(tmp_path, monkeypatch):
    np.savez(tmp_path / "g.npz", y=np.zeros(2, int))
    monkeypatch.chdir(tmp_path)
    assert describe("npz:g.npz").files == {"source": str(tmp_path / "g.npz")}
