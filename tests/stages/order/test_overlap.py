"""Order by shared rows, against plain sets."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.order import STAGE, overlap
from stockpot.stages.order.epoch import epoch_order
from stockpot.stages.order.overlap import overlap_chain, sampled_share
from stockpot.stages.sample.reuse import lru_misses
from tests.memory import MemoryReader, run_stage

NODES = 20
RECORDS = st.lists(
    st.lists(st.integers(0, NODES - 1), unique=True, max_size=8), min_size=1, max_size=12
)


def arrays(records):
    n_id = np.concatenate(
        [np.zeros(0, np.int32), *(np.array(sorted(r), np.int32) for r in records)]
    )
    return n_id, np.concatenate([[0], np.cumsum([len(r) for r in records])]).astype(np.int64)


def slow_chain(records):
    left, score, chain = set(range(1, len(records))), [0.0] * len(records), [0]
    while left:
        rows = set(records[chain[-1]])
        score = [0.8 * s + len(rows & set(r)) for s, r in zip(score, records, strict=True)]
        chain.append(max(left, key=lambda r: (score[r], -r)))
        left.remove(chain[-1])
    return chain


@settings(deadline=None)
@given(RECORDS)
def test_greedy_goes_where_most_rows_are_shared_unless_the_file_does_better(records):
    n_id, n_ptr = arrays(records)
    chain, name = overlap_chain(n_id, n_ptr)
    greedy, used = slow_chain(records), len(np.unique(n_id))
    assert chain.dtype == np.int32

    def misses(order):
        ids, ptr = arrays([records[r] for r in order])
        return lru_misses(
            np.searchsorted(np.unique(n_id), ids).astype(np.int32), ptr, used, int(0.1 * used)
        )

    best = misses(range(len(records))) <= misses(greedy)
    assert name == ("file" if best else "greedy")
    assert chain.tolist() == (list(range(len(records))) if best else greedy)


def test_of_records_that_share_as_many_rows_the_first_comes_next(monkeypatch):
    monkeypatch.setattr(
        overlap, "_misses", lambda group, ptr, chain, groups: -np.abs(np.diff(chain)).sum()
    )
    rng = np.random.default_rng(0)
    ties = 0
    for _ in range(40):
        records = [rng.choice(6, 3, replace=False).tolist() for _ in range(8)]
        shared = sorted(len(set(records[0]) & set(r)) for r in records[1:])
        ties += shared[-1] == shared[-2]
        chain, name = overlap_chain(*arrays(records))
        assert chain.tolist() == (slow_chain(records) if name == "greedy" else list(range(8)))
    assert ties > 10


def regions(count=40, wide=30, seed=0):
    """Records that are runs of a line, dealt at random: the best chain walks along it."""
    starts = 10 * np.random.default_rng(seed).permutation(count)
    return [list(range(s, s + wide)) for s in starts], starts


def test_records_along_a_line_are_walked_along_it():
    records, starts = regions()
    chain, name = overlap_chain(*arrays(records))
    assert name == "greedy"
    steps = np.abs(np.diff(starts[chain]))
    assert (steps == 10).sum() >= len(steps) - 1  # to one end, and once across to the other


def test_a_sample_of_the_nodes_orders_nearly_as_well(monkeypatch):
    rng = np.random.default_rng(0)
    records = [
        np.unique(rng.integers(100 * s, 100 * s + 1000, 600)).tolist() for s in rng.permutation(60)
    ]
    n_id, n_ptr = arrays(records)

    def shared(chain):
        return sum(len(set(records[a]) & set(records[b])) for a, b in pairwise(chain))

    monkeypatch.setattr(overlap, "_CHUNK", 1000)
    every, sampled = (shared(overlap_chain(n_id, n_ptr, share)[0]) for share in (1.0, 0.2))
    assert sampled > 0.9 * every > 3 * shared(range(60))
    assert sampled_share(1 << 20, 100) == 1.0
    assert sampled_share(1 << 30, 100) == 1 / 64


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 50), st.integers(0, 9), st.integers(0, 9))
def test_windows_keep_neighbours_and_differ_by_epoch(records, window, seed, epoch):
    tour = np.random.default_rng(1).permutation(records).astype(np.int32)
    order = epoch_order("overlap", tour, None, records, seed, epoch, window=window)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(records))
    if window == 0 and (seed, epoch) == (0, 0):
        assert np.array_equal(order, tour)
    window = window or records
    place = np.argsort(tour)
    steps = np.abs(np.diff(place[order]))
    broken = ((steps != 1) & (steps != records - 1)).sum()
    assert broken <= -(-records // window) - 1


def test_the_extremes_of_a_window_are_a_shuffle_and_the_tour_entered_anywhere():
    tour = np.arange(30, dtype=np.int32)
    shuffled = [epoch_order("overlap", tour, None, 30, 0, e, window=1) for e in range(20)]
    assert len({order.tobytes() for order in shuffled}) == 20
    assert np.mean([(np.abs(np.diff(order)) == 1).mean() for order in shuffled]) < 0.2
    for window in (0, 30):
        whole = [epoch_order("overlap", tour, None, 30, 0, e, window=window) for e in range(20)]
        ways = [tuple(set(np.diff(order) % 30)) for order in whole]
        assert set(ways) == {(1,), (29,)}  # forwards in some epochs, backwards in others
        assert len({order.tobytes() for order in whole}) > 10


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 12), st.integers(1, 6), st.integers(0, 9))
def test_runs_side_by_side_give_a_record_each_in_turn(records, window, mix, seed):
    tour = np.random.default_rng(2).permutation(records).astype(np.int32)
    order = epoch_order("overlap", tour, None, records, seed, 0, window=window, mix=mix)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(records))
    one = epoch_order("overlap", tour, None, records, seed, 0, window=window).tolist()
    if window == 0:
        runs = [part.tolist() for part in np.array_split(one, mix)]
    elif records % window:
        return  # where the short run of the walk stands is not known here
    else:
        runs = [one[k : k + window] for k in range(0, records, window)]
    left, expected = list(runs), []
    while left:
        group, left = [list(run) for run in left[:mix]], left[mix:]
        while any(group):
            expected += [run.pop(0) for run in group if run]
    assert order.tolist() == expected


@pytest.mark.parametrize("rounds", [1, 2])
def test_the_stage_chains_each_round(tmp_path, rounds):
    found = [regions(seed=r)[0] for r in range(rounds)]
    n_id, n_ptr = arrays([record for part in found for record in part])
    count = 40 * rounds
    outputs = {"outputs": np.arange(count, dtype=np.int32), "out_ptr": np.arange(count + 1)}
    facts = {"records": count, "outputs": 40, "rows": len(n_id), "num_nodes": 500}
    facts |= {"rounds": rounds} if rounds > 1 else {}
    inputs = {
        "records": MemoryReader({"n_id": n_id, "n_ptr": n_ptr, **outputs}, facts),
        "graph": MemoryReader({"y": np.zeros(500, np.int32)}, {"num_classes": 3, "num_nodes": 500}),
    }
    params = STAGE.resolve({"order.method": "overlap", "order.window": 4, "order.mix": 2}, {})
    out = run_stage(STAGE, params, inputs, tmp_path)
    assert [out.facts[name] for name in ("method", "window", "mix", "chain")] == [
        "overlap",
        4,
        2,
        "greedy",
    ]
    assert out.facts["overlap"] > 0.6
    assert not out.has("distance")
    tours = out.array("tour").reshape(rounds, 40)
    for tour, records in zip(tours, found, strict=True):
        assert np.array_equal(tour, overlap_chain(*arrays(records))[0])
    cost = STAGE.cost(params, {role: one.facts for role, one in inputs.items()})
    assert sum(a.nbytes for a in out.arrays.values()) == cost.written
