import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.split import STAGE
from stockpot.stages.split.stage import seeded_split
from tests.memory import MemoryReader, run_stage

DEFAULT = {"dataset.split": {"train": 0.5, "valid": 0.25, "seed": 0}, "dataset.split_index": 0}


def graph(y, splits=()):
    y = np.asarray(y, np.int32)
    arrays = {"y": y}
    for name in ("train", "valid", "test") if splits else ():
        ids = [np.asarray(s[name], np.int32) for s in splits]
        arrays[f"split_{name}"] = np.concatenate(ids)
        arrays[f"split_{name}_ptr"] = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return MemoryReader(
        arrays,
        {"num_nodes": len(y), "published_splits": len(splits), "unlabelled": int((y < 0).sum())},
    )


def split(reader, tmp_path, **changes):
    values = {**DEFAULT, **changes}
    params = STAGE.resolve(values, {"graph": reader.facts})
    return run_stage(STAGE, params, {"graph": reader}, tmp_path)


@given(
    y=st.lists(st.integers(-1, 3), min_size=12, max_size=60),
    train=st.sampled_from([0.1, 0.5, 0.6, 0.7]),
    valid=st.sampled_from([0.1, 0.2, 0.25]),
    seed=st.integers(0, 5),
)
def test_seeded_splits_part_the_labelled_nodes(y, train, valid, seed):
    y = np.array(y, np.int32)
    parts = seeded_split(y, train, valid, seed)
    labelled = np.flatnonzero(y >= 0)
    assert np.array_equal(np.sort(np.concatenate(parts)), labelled)
    for ids in parts:
        assert ids.dtype == np.int32
        assert (np.diff(ids) > 0).all()
    assert abs(len(parts[0]) - train * len(labelled)) < 1
    assert abs(len(parts[1]) - valid * len(labelled)) < 1 + 1e-9
    again = seeded_split(y, train, valid, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_shares_that_are_no_binary_fractions_cut_where_they_say():
    assert [len(p) for p in seeded_split(np.zeros(10, np.int32), 0.6, 0.2, 0)] == [6, 2, 2]
    assert [len(p) for p in seeded_split(np.zeros(10, np.int32), 0.7, 0.1, 0)] == [7, 1, 2]


def test_the_embedded_split_follows_the_same_rule():
    parts = seeded_split(np.zeros(117_659, np.int32), 0.5, 0.25, 0)
    assert [len(p) for p in parts] == [58_829, 29_415, 29_415]


def test_stage_seeded(tmp_path):
    artifact = split(graph([0, 1, -1, 0, 1, 1, 0, 0, 2]), tmp_path)
    assert artifact.facts == {"train": 4, "valid": 2, "test": 2, "origin": "seeded"}
    assert 2 not in np.concatenate([artifact.array(n) for n in ("train", "valid", "test")])
    other = split(
        graph([0, 1, -1, 0, 1, 1, 0, 0, 2]),
        tmp_path,
        **{"dataset.split": {"train": 0.5, "valid": 0.25, "seed": 1}},
    )
    assert not np.array_equal(artifact.array("train"), other.array("train"))


def test_stage_published(tmp_path):
    splits = [
        {"train": [0], "valid": [1], "test": [2, 3]},
        {"train": [1, 3], "valid": [0], "test": [2]},
    ]
    reader = graph([0, 1, 0, 1], splits)
    artifact = split(reader, tmp_path, **{"dataset.split_index": 1})
    assert {n: artifact.array(n).tolist() for n in ("train", "valid", "test")} == splits[1]
    assert artifact.facts["origin"] == "published"
    # Shares and seed do not matter to a published split, so they are not in its key.
    other = {"dataset.split": {"train": 0.9, "valid": 0.05, "seed": 7}, "dataset.split_index": 1}
    facts = {"graph": reader.facts}
    assert STAGE.resolve(other, facts) == STAGE.resolve(
        {**DEFAULT, "dataset.split_index": 1}, facts
    )


def test_shares_that_leave_nothing_to_test_are_refused(tmp_path):
    with pytest.raises(
        BadInput,
        match=r"expected train \+ valid below 1.*found 1; fix: --set dataset.split.train=0.5",
    ):
        split(
            graph([0] * 8),
            tmp_path,
            **{"dataset.split": {**DEFAULT["dataset.split"], "train": 0.75}},
        )


def test_split_index_out_of_range(tmp_path):
    with pytest.raises(
        BadInput, match=r"split_index: expected 0 to 0, the published splits, found 1"
    ):
        split(
            graph([0, 0, 0], [{"train": [0], "valid": [1], "test": [2]}]),
            tmp_path,
            **{"dataset.split_index": 1},
        )
    with pytest.raises(
        BadInput, match=r"split_index: expected 0, since the data set publishes no splits, found 2"
    ):
        split(graph([0] * 8), tmp_path, **{"dataset.split_index": 2})


def test_empty_and_unlabelled_parts_are_refused(tmp_path):
    with pytest.raises(
        BadInput,
        match="valid: expected at least one node, found an empty split of 2 labelled nodes",
    ):
        split(graph([0, 1]), tmp_path)
    with pytest.raises(
        BadInput, match=r"valid: expected at least one labelled node, found 1 nodes.*node 1"
    ):
        split(graph([0, -1, 0], [{"train": [0], "valid": [1], "test": [2]}]), tmp_path)


def test_cost_grows_with_the_nodes():
    params = STAGE.resolve(DEFAULT, {"graph": {"published_splits": 0}})
    small, large = (STAGE.cost(params, {"graph": {"num_nodes": n}}) for n in (10, 1000))
    assert small.peak < large.peak
