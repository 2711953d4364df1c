"""The cost model, the floor that says no, and the choice between them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import check
from stockpot.stages.hag.hag_choice import choose, find
from stockpot.stages.hag.product_cost import Counts, Rates, fit, gain
from stockpot.stages.hag.search.prepared import Settings, prepared
from stockpot.stages.hag.search.search import search
from stockpot.stages.hag.search.shape import Shape, outline
from tests.stages.hag.test_hag_search import csr, graph, rows_of

RATES = Rates(2e-9, 5e-11, 1e-8, 1e-10, 5e-6)


@settings(max_examples=150)
@given(
    rows_of(), st.integers(2, 4), st.sampled_from([3, 2048]), st.integers(-1, 3), st.integers(-1, 4)
)
def test_no_hag_reads_less_than_the_floor(found, min_count, limit, keep, depth):
    rows, columns = found
    indptr, indices = csr(rows)
    how = Settings(min_count, None, limit)
    floor = prepared(indptr, indices, columns, how).fewest_reads(how)
    merges = search(indptr, indices, columns, settings=how)
    assert outline(merges, Shape(keep=keep, depth=depth)).reads >= floor - 1e-9


@given(st.integers(10, 40), st.floats(0.05, 0.5), st.integers(0, 100))
def test_the_floor_under_random_graphs(n, density, seed):
    indptr, indices = graph(n, density, seed)
    how = Settings()
    assert outline(search(indptr, indices), Shape()).reads >= prepared(
        indptr, indices, None, how
    ).fewest_reads(how)


def test_rates_are_found_again_from_times():
    rng = np.random.default_rng(0)
    measured = []
    for _ in range(12):
        counts = Counts(
            int(rng.integers(1e3, 1e6)), int(rng.integers(1e2, 1e5)), int(rng.integers(0, 10))
        )
        width = int(rng.choice([64, 256, 512, 1024]))
        measured.append((counts, width, RATES.seconds(counts, width)))
    found = fit(measured)
    for counts, width, seconds in measured:
        assert found.seconds(counts, width) == pytest.approx(seconds, rel=1e-6)
    with pytest.raises(BadInput, match="5 rates cannot be fitted to 4 products"):
        fit(measured[:4])


def test_no_rate_is_negative():
    noisy = [
        (Counts(r, w, k), 64, t)
        for r, w, k, t in [
            (10, 5, 0, 1.0),
            (20, 5, 0, 0.5),
            (40, 9, 1, 1.0),
            (9, 9, 2, 3),
            (7, 1, 3, 1),
        ]
    ]
    found = fit(noisy)
    assert min(found.read, found.read_byte, found.write, found.write_byte, found.level) >= 0


def test_gain_is_a_ratio_of_seconds_over_all_widths():
    only_reads = Rates(0, 1e-9, 0, 0, 0)
    assert gain(only_reads, Counts(30, 1, 0), Counts(10, 99, 9), (64, 256)) == pytest.approx(3)
    assert gain(Rates(0, 0, 0, 0, 0), Counts(3, 1, 0), Counts(1, 1, 0), (64,)) == 1


def clique(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n + 1) * n, np.tile(np.arange(n), n)


def test_a_clique_pays_and_a_path_is_not_searched(monkeypatch):
    indptr, indices = clique(50)
    found = find(indptr, indices, rates=RATES, row_bytes=(64,))
    check(found.hag, indptr, indices)
    assert found.possible >= found.predicted > 2
    path = csr([[max(0, i - 1), min(99, i + 1)] for i in range(100)])
    monkeypatch.setattr(
        "stockpot.stages.hag.hag_choice.search_prepared", lambda *_, **__: pytest.fail("searched")
    )
    found = find(*path, rates=RATES, row_bytes=(64,))
    assert found.hag is None
    assert found.possible < 1.2


def test_a_gain_that_is_too_small_is_declined_unless_asked_for():
    indptr, indices = graph(40, 0.2, 5)
    rates = Rates(1e-9, 0, 0, 0, 1e-6)
    auto = find(indptr, indices, rates=rates, row_bytes=(64,), least=1.2)
    always = find(indptr, indices, rates=rates, row_bytes=(64,), least=0)
    assert auto.hag is None
    assert always.hag is not None
    assert always.predicted < 1.2


def test_costly_levels_give_a_flat_hag_and_costly_rows_a_small_one():
    merges = search(*graph(60, 0.4, 2))
    free, level, row = (
        choose(merges, rates, (64,))[0]
        for rates in (
            Rates(1e-9, 0, 0, 0, 0),
            Rates(1e-9, 0, 0, 0, 1e-6),
            Rates(1e-9, 0, 1e-8, 0, 0),
        )
    )
    assert level.levels < free.levels
    assert row.nodes < free.nodes


@pytest.mark.parametrize("capacity", [0, 0.05, 0.1, 1])
def test_capacity_counts_twin_rows_and_merges(capacity):
    indptr, indices = graph(40, 0.4, 7, loops=True)
    found = find(
        indptr, indices, rates=RATES, row_bytes=(64,), least=0, settings=Settings(capacity=capacity)
    )
    assert found.hag.num_aggregations <= capacity * 40
    check(found.hag, indptr, indices)
