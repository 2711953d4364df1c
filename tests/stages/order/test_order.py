import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.order import STAGE
from stockpot.stages.order.distance import distances, histograms
from stockpot.stages.order.epoch import epoch_order
from stockpot.stages.order.tour import _greedy, _two_opt, longest_tour, random_length, tour_length
from tests.memory import MemoryReader, run_stage

VALUES = {"order.method": "label", "order.window": 0, "order.mix": 1}


def skewed(records, classes, seed=0):
    counts = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), records) * 100 + 1
    return counts / counts.sum(1, keepdims=True)


def artifacts(records=10, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(-1, classes, 200).astype(np.int32)
    outputs = rng.permutation(200)[:150].astype(np.int32)
    ptr = np.concatenate(
        [[0], np.sort(rng.choice(np.arange(1, 150), records - 1, replace=False)), [150]]
    ).astype(np.int64)
    return {
        "records": MemoryReader(
            {"outputs": outputs, "out_ptr": ptr}, {"records": records, "outputs": 150}
        ),
        "graph": MemoryReader({"y": y}, {"num_classes": classes, "num_nodes": 200}),
    }


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(0, 99))
def test_distances_equal_the_pairwise_formula(records, classes, seed):
    shares = skewed(records, classes, seed)
    got = distances(shares)
    for a, b in itertools.product(range(records), repeat=2):
        p, q = shares[a], shares[b]
        expected = 0.0 if a == b else (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum() + 1e-5
        assert got[a, b] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_array_equal(got, got.T)


def test_histograms_are_smoothed_and_skip_unlabelled():
    got = histograms(np.array([0, 0, -1, 2, -1]), np.array([0, 3, 4, 5]), 3)
    np.testing.assert_allclose(
        got, [[3 / 5, 1 / 5, 1 / 5], [1 / 4, 1 / 4, 2 / 4], [1 / 3, 1 / 3, 1 / 3]]
    )


@pytest.mark.parametrize("records", [1, 2, 3, 4, 7, 40])
def test_tours_are_cycles_no_shorter_than_the_mean_of_random_ones(records):
    for seed in range(5):
        distance = distances(skewed(records, 5, seed))
        tour = longest_tour(distance)
        assert tour.dtype == np.int32
        assert sorted(tour.tolist()) == list(range(records))
        assert tour[0] == 0
        assert tour_length(tour, distance) >= random_length(distance) - 1e-9
        np.testing.assert_array_equal(tour, longest_tour(distance))


def test_small_tours_are_nearly_the_longest():
    for seed in range(5):
        distance = distances(skewed(7, 4, seed))
        longest = max(
            tour_length(np.array([0, *rest]), distance)
            for rest in itertools.permutations(range(1, 7))
        )
        assert tour_length(longest_tour(distance), distance) >= 0.98 * longest


def test_the_longest_of_the_tours_from_several_starts_is_taken():
    later = 0
    for seed in range(8):
        distance = distances(skewed(24, 4, seed))
        lengths = []
        for start in range(0, 24, 3):
            tour = _greedy(distance, start)
            _two_opt(tour, distance)
            lengths.append(tour_length(tour, distance))
        assert tour_length(longest_tour(distance), distance) == pytest.approx(max(lengths))
        later += lengths[0] < max(lengths) - 1e-9
    assert later > 2


def test_of_records_as_far_apart_the_first_comes_next():
    labels = np.repeat(
        [0, 1, 2, 0, 1, 2, 0, 1], 5
    )  # three kinds of records, all pairs of kinds alike
    distance = distances(histograms(labels, np.arange(0, 41, 5), 3))
    assert len(np.unique(distance[0])) == 3
    assert _greedy(distance, 0).tolist() == list(range(8))
    assert _greedy(distance, 4).tolist() == [4, 0, 1, 2, 3, 5, 6, 7]


def test_random_length_is_the_mean_over_all_cycles():
    distance = distances(skewed(6, 4))
    every = [
        tour_length(np.array([0, *rest]), distance) for rest in itertools.permutations(range(1, 6))
    ]
    assert random_length(distance) == pytest.approx(np.mean(every))


@pytest.mark.parametrize("method", ["label", "sample", "shuffle"])
def test_every_epoch_holds_every_record_once(method):
    for records in (0, 1, 2, 3, 30):
        distance = distances(skewed(records, 5)) if records else np.zeros((0, 0))
        tour = longest_tour(distance)
        for seed, epoch in itertools.product(range(3), range(4)):
            order = epoch_order(method, tour, distance, records, seed, epoch)
            assert order.dtype == np.int32
            assert sorted(order.tolist()) == list(range(records))
            np.testing.assert_array_equal(
                order, epoch_order(method, tour, distance, records, seed, epoch)
            )


def test_label_walks_the_tour_and_every_seed_and_epoch_enters_it_elsewhere():
    distance = distances(skewed(30, 5))
    tour = longest_tour(distance)
    orders = [
        epoch_order("label", tour, None, 30, seed, epoch)
        for seed in range(4)
        for epoch in range(10)
    ]
    for order in orders:
        assert tour_length(order, distance) == pytest.approx(tour_length(tour, distance))
    assert len({order.tobytes() for order in orders}) > 20  # of 60 that there are
    next_in_tour = dict(zip(tour.tolist(), np.roll(tour, -1).tolist(), strict=True))
    forwards = {next_in_tour[int(order[0])] == order[1] for order in orders}
    assert forwards == {True, False}


@pytest.mark.parametrize("method", ["label", "overlap"])
def test_of_several_rounds_all_enter_their_tours_alike_until_they_come_again(method):
    """What load plans were made of before epochs entered tours elsewhere is what seed 0 draws
    first."""
    tour = np.random.default_rng(0).permutation(12).astype(np.int32)
    orders = [
        epoch_order(method, tour, None, 12, 0, epoch, rounds=3).tolist() for epoch in range(9)
    ]
    assert orders[0] == orders[1] == orders[2] != orders[3] == orders[4] == orders[5] != orders[6]
    if method == "overlap":
        assert orders[0] == tour.tolist()


def test_sample_prefers_distant_records_and_carries_the_last_over():
    distance = np.full((4, 4), 1e-5)
    np.fill_diagonal(distance, 0)
    distance[:2, 2:] = distance[2:, :2] = 1.0  # two kinds of records
    before = None
    for epoch in range(40):
        order = epoch_order("sample", None, distance, 4, 3, epoch)
        if (
            before is not None
            and {int(before), int(order[3])} != {0, 1}
            and {int(before), int(order[3])} != {2, 3}
        ):
            assert (before < 2) != (order[0] < 2) or before == order[3]
        assert (order[0] < 2) != (order[1] < 2) or (order[2] < 2) != (order[3] < 2)
        before = order[3]
    lengths = [
        distance[o[:-1], o[1:]].sum()
        for o in (epoch_order("sample", None, distance, 4, 3, e) for e in range(40))
    ]
    shuffled = [
        distance[o[:-1], o[1:]].sum()
        for o in (epoch_order("shuffle", None, None, 4, 3, e) for e in range(40))
    ]
    assert np.mean(lengths) > np.mean(shuffled)


def test_shuffle_and_sample_differ_by_epoch_and_seed():
    distance = distances(skewed(30, 5))
    for method in ("sample", "shuffle"):
        orders = {
            epoch_order(method, None, distance, 30, s, e).tobytes()
            for s in range(4)
            for e in range(4)
        }
        assert len(orders) == 16


@pytest.mark.parametrize("method", ["label", "sample", "overlap"])
def test_a_missing_array_or_method_is_refused(method):
    with pytest.raises(ValueError, match=method):
        epoch_order(method, None, None, 3, 0, 0)


@pytest.mark.parametrize("method", ["label", "sample", "shuffle"])
def test_the_artifact_holds_what_its_method_needs(tmp_path, method):
    inputs = artifacts()
    params = STAGE.resolve(
        {**VALUES, "order.method": method}, {role: one.facts for role, one in inputs.items()}
    )
    out = run_stage(STAGE, params, inputs, tmp_path)
    assert out.array("histogram").shape == (10, 4)
    assert out.has("distance") == (method != "shuffle")
    assert out.has("tour") == (method == "label")
    assert out.facts["method"] == method
    assert out.facts["records"] == 10
    if method == "label":
        assert out.facts["tour_length"] >= out.facts["random_length"]
    cost = STAGE.cost(params, {role: one.facts for role, one in inputs.items()})
    assert sum(a.nbytes for a in out.arrays.values()) == cost.written


@pytest.mark.parametrize("method", ["label", "sample", "shuffle"])
def test_every_round_has_an_order_of_its_own(tmp_path, method):
    whole = artifacts()
    ptr, outputs = (whole["records"].arrays[name] for name in ("out_ptr", "outputs"))
    mixed = np.random.default_rng(5).permutation(outputs)
    arrays = {
        "outputs": np.concatenate([outputs, mixed]),
        "out_ptr": np.concatenate([ptr, ptr[1:] + ptr[-1]]),
    }
    records = MemoryReader(arrays, {"records": 20, "outputs": 150, "rounds": 2})
    params = STAGE.resolve({**VALUES, "order.method": method}, {})
    given = {"records": records, "graph": whole["graph"]}
    out = run_stage(STAGE, params, given, tmp_path / "two")
    assert (out.facts["records"], out.facts["rounds"]) == (20, 2)
    lengths = []
    for r, own in enumerate((outputs, mixed)):
        alone = MemoryReader({"outputs": own, "out_ptr": ptr}, {"records": 10, "outputs": 150})
        one = run_stage(STAGE, params, {**given, "records": alone}, tmp_path / str(r))
        assert "rounds" not in one.facts
        np.testing.assert_array_equal(
            out.array("histogram")[10 * r : 10 * r + 10], one.array("histogram")
        )
        for name in ("tour", "distance"):
            assert out.has(name) == one.has(name)
            if one.has(name):
                np.testing.assert_array_equal(out.array(name)[r], one.array(name))
        lengths.append(one.facts["tour_length"])
    if method == "label":
        assert out.facts["tour_length"] == pytest.approx(np.mean(lengths))
    cost = STAGE.cost(params, {role: one.facts for role, one in given.items()})
    assert sum(a.nbytes for a in out.arrays.values()) == cost.written


def test_sample_draws_the_first_record_of_a_round_evenly():
    distance = distances(skewed(6, 4))
    orders = [epoch_order("sample", None, distance, 6, seed, 5, rounds=2) for seed in range(60)]
    assert all(sorted(order.tolist()) == list(range(6)) for order in orders)
    assert {int(order[0]) for order in orders} == set(range(6))
