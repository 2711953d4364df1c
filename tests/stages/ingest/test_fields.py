"""Usual names are taken as the documented ones are; what is not understood is refused; sizes are
not believed."""

import io
import zipfile

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.ingest import STAGE
from stockpot.stages.ingest.fields import split_name, take
from stockpot.stages.ingest.source import describe
from stockpot.stages.ingest.source_counts import source_counts
from tests.stages.ingest.test_ingest_bad import good, run

IDS = {"train": np.array([4, 0]), "valid": np.array([1]), "test": np.array([3, 5])}
MASK = {part: np.isin(np.arange(6), ids) for part, ids in IDS.items()}
TWO = {part: np.stack([mask, mask[::-1]]) for part, mask in MASK.items()}
DENSE = {"x": np.arange(18.0).reshape(6, 3)}
WEIGHT = np.array([1, 2, 3, 4.0])


def ingested(tmp_path, **members):
    path = tmp_path / "graph.npz"
    np.savez(path, **members)
    return run(path, tmp_path)


def same(tmp_path, members, documented):
    """Both are read as the same graph, and counted as the same before."""
    counts = []
    for given in (members, documented):
        np.savez(tmp_path / "graph.npz", **given)
        counts.append(source_counts(describe(f"npz:{tmp_path / 'graph.npz'}")))
    assert counts[0] == counts[1] is not None
    found, expected = ingested(tmp_path, **members), ingested(tmp_path, **documented)
    assert found.facts == expected.facts
    assert sorted(found.arrays) == sorted(expected.arrays)
    for name, values in expected.arrays.items():
        assert np.array_equal(found.array(name), values), name
    return found


SPLITS = {
    "PyG": (("train_mask", "val_mask", "test_mask"), MASK),
    "OGB": (("train", "valid", "test"), IDS),
    "OGB masks": (("train", "valid", "test"), MASK),
    "GCN": (("idx_train", "idx_val", "idx_test"), IDS),
    "DGL": (("train_nid", "val_nid", "test_nid"), IDS),
    "split_idx": (("split_train", "split_valid", "split_test"), IDS),
    "joined": (("trainmask", "valmask", "testmask"), MASK),
    "bytes": (
        ("train_mask", "val_mask", "test_mask"),
        {part: mask.astype(np.uint8) for part, mask in MASK.items()},
    ),
    "mixed": (("train_idx", "val_idx", "test_index"), IDS),
}


@pytest.mark.parametrize("case", SPLITS)
def test_splits_under_usual_names(tmp_path, case):
    names, values = SPLITS[case]
    found = same(
        tmp_path,
        good(**dict(zip(names, values.values(), strict=True))),
        good(**{f"{part}_idx": ids for part, ids in IDS.items()}),
    )
    assert found.facts["published_splits"] == 1


def test_several_splits_as_rows_as_columns_and_one_part_of_them_all(tmp_path):
    rows = good(**{f"{part}_masks": masks for part, masks in TWO.items()})
    columns = {"train_mask": TWO["train"].T, "val_mask": TWO["valid"].T, "test_mask": TWO["test"].T}
    assert same(tmp_path, good(**columns), rows).facts["published_splits"] == 2
    shared = {"train_mask": np.eye(6, dtype=bool)[:, :2], "val_mask": np.eye(6, dtype=bool)[:, 2:4]}
    repeated = {"train_masks": np.eye(6, dtype=bool)[:2], "valid_masks": np.eye(6, dtype=bool)[2:4]}
    last = np.eye(6, dtype=bool)[5]
    found = same(
        tmp_path,
        good(**shared, test_mask=last),
        good(**repeated, test_masks=np.stack([last, last])),
    )  # WikiCS
    assert found.array("split_test").tolist() == [5, 5]


def test_as_many_splits_as_nodes(tmp_path):
    """Documented masks have a row a split, PyG's a column."""
    rng = np.random.default_rng(0)
    part = np.array([rng.permutation(6) % 3 for _ in range(6)])
    rows = {f"{name}_masks": part == at for at, name in enumerate(("train", "valid", "test"))}
    columns = {f"{name}_mask": (part == at).T for at, name in enumerate(("train", "val", "test"))}
    same(tmp_path, good(**columns), good(**rows))


@pytest.mark.parametrize(
    ("names", "documented"),
    [
        ({"edge_weights": WEIGHT}, {"edge_weight": WEIGHT}),
        ({"weight": WEIGHT[:, None]}, {"edge_weight": WEIGHT}),
        ({"x": None, "feat": DENSE["x"]}, DENSE),
        (
            {
                "x": None,
                "node_feat": DENSE["x"],
                "y": None,
                "node_label": np.array([0, 1, 0, 1, -1, 0]),
            },
            DENSE,
        ),
        (
            {
                "x": None,
                "Features": DENSE["x"],
                "y": None,
                "labels": np.array([[0], [1], [0], [1], [-1], [0]]),
            },
            DENSE,
        ),
        ({"num_nodes": None, "num_nodes_list": np.array([6])}, {}),
    ],
)
def test_arrays_under_usual_names(tmp_path, names, documented):
    same(tmp_path, good(**names), good(**documented))


def test_what_is_left_out_is_said(tmp_path):
    path = tmp_path / "graph.npz"
    np.savez(
        path, **good(), edge_type=np.zeros(4), node_names=np.array(list("abcdef")), num_classes=2
    )
    found = describe(f"npz:{path}")
    assert found.left_out == ("edge_type", "node_names", "num_classes")
    assert found.reading == ""


def test_keys_move_only_where_more_is_read_than_before(tmp_path):
    """What an earlier version passed over must not be found in its artifacts."""
    values = {"graph.undirected": True, "features.reduce": 0}
    path = tmp_path / "graph.npz"
    np.savez(path, **good(edge_weights=WEIGHT, **{f"idx_{part}": ids for part, ids in IDS.items()}))
    reading = describe(f"npz:{path}").reading
    assert reading == "edge_weight=edge_weights;test=idx_test;train=idx_train;valid=idx_valid"
    assert STAGE.resolve(values, {"source": {"reading": reading}}) != STAGE.resolve(
        values, {"source": {}}
    )
    np.savez(path, **good(edge_weight=WEIGHT, **{f"{part}_idx": ids for part, ids in IDS.items()}))
    assert describe(f"npz:{path}").reading == ""


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", ("train", "")),
        ("val-mask", ("valid", "mask")),
        ("idx_val", ("valid", "idx")),
        ("split_idx_train", ("train", "idx")),
        ("test_split", ("test", "")),
        ("valid_masks", ("valid", "mask")),
        ("trainable", None),
        ("latest", None),
        ("test_accuracy", None),
        ("values", None),
    ],
)
def test_names_of_splits(name, part):
    assert split_name(name) == part


def test_every_other_name_is_refused_with_the_nearest():
    def refuse(name, text, fix=None):
        return BadInput(f"{name}: {text}", fix=fix)

    for name, near in {
        "edge_indx": "edge_index",
        "labes": "labels",
        "trian_idx": "train_idx",
        "xdata": "x_data",
    }.items():
        with pytest.raises(
            BadInput, match=f"{name}: expected a known name.*nearest is {near}; fix: name it {near}"
        ):
            take(["y", name], refuse, lambda _: False, "remove {name}")


# --- declared sizes


def member(shape, dtype="<f4", data=b""):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return content.getvalue() + data


def archive(path, members, compression=zipfile.ZIP_DEFLATED):
    base = io.BytesIO()
    np.savez(base, **{name: values for name, values in good().items() if name not in members})
    path.write_bytes(base.getvalue())
    with zipfile.ZipFile(path, "a", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)


LIES = {
    "rows that are not there": {"x": member((1 << 40, 64), data=bytes(64))},
    "rows over 2^64 bytes": {"x": member((1 << 60, 1 << 10), data=bytes(64))},
    "fewer than there are": {"x": member((6, 2), data=bytes(6 * 3 * 4))},
    "negative": {"x": member((-6, -3), data=bytes(72))},
    "edges": {"edge_index": member((2, 1 << 40), "<i8", bytes(64))},
    "of a name left out": {"vocab": member((1 << 40,), "<U9", bytes(36))},
}


@pytest.mark.parametrize("case", LIES)
def test_declared_sizes_are_checked_before_anything_is_read(tmp_path, case):
    path = tmp_path / "graph.npz"
    archive(path, LIES[case])
    with pytest.raises(
        BadInput,
        match=f"{next(iter(LIES[case]))}: expected a readable array, found a damaged one .its",
    ):
        describe(f"npz:{path}")


def test_a_compression_that_numpy_does_not_write(tmp_path):
    path = tmp_path / "graph.npz"
    archive(path, {"x": member((6, 1 << 20), data=bytes(6 << 22))}, zipfile.ZIP_BZIP2)
    assert path.stat().st_size < 1 << 14
    with pytest.raises(BadInput, match="x: expected a readable array, found a damaged one"):
        describe(f"npz:{path}")


def test_a_directory_that_declares_more_than_deflate_can_hold(tmp_path):
    path = tmp_path / "graph.npz"
    content = member((6, 1 << 20), data=bytes(6 << 22))
    archive(path, {"x": content})
    sound = path.read_bytes()
    forged = sound.replace(len(content).to_bytes(4, "little"), (1 << 31).to_bytes(4, "little"))
    assert forged != sound
    path.write_bytes(forged)
    with pytest.raises(BadInput, match="bytes that declare to hold 2,147,483,648"):
        describe(f"npz:{path}")


def test_other_files_and_members_that_stand_there_twice(tmp_path):
    path = tmp_path / "graph.npz"
    np.savez(path, **good())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("README.txt", "hello")
    with pytest.raises(
        BadInput,
        match=r"README.txt: expected arrays alone, found another file; fix: zip -d graph.npz",
    ):
        describe(f"npz:{path}")
    np.savez(path, **good())
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("y.npy", member((6,), data=bytes(24)))
    with pytest.raises(BadInput, match="y: expected this member once, found it twice"):
        describe(f"npz:{path}")
