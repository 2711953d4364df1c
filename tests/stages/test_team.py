"""Ranks find each other, agree on what they opened, and end together."""

import json

import pytest

from stages.errors import Conflict, StockpotError
from stages.exchange.team import led
from stages.train.evaluate import Score
from tests.coop_ranks import Opened, leaves, sums


def test_ranks_add_up():
    with led(3, sums, {}, device="cpu", start=5) as team:
        assert sums(team, inputs={}, start=5) == Score(18, 3, 1.5)


@pytest.mark.parametrize(
    ("how", "said"),
    [("signal", "rank 1: killed by SIGKILL"), ("error", "rank 1: exit status 1 (RuntimeError: no room left)")],
)
def test_a_rank_that_ends_ends_all_and_says_why(how, said):
    with pytest.raises(StockpotError) as caught, led(2, leaves, {}, device="cpu", how=how) as team:
        leaves(team, inputs={}, how=how)
    assert said in str(caught.value)
    assert "run the same command again" in caught.value.fix


def test_ranks_that_opened_another_store_are_refused(tmp_path):
    mine = Opened(tmp_path, {"key": "a" * 32, "digest": "b" * 32})
    (tmp_path / "manifest.json").write_text(json.dumps({"key": "c" * 32, "digest": "d" * 32}))
    with (
        pytest.raises(Conflict, match=f"rank 1 opened as train {'c' * 32} of digest {'d' * 32}, but rank 0 {'a' * 32}"),
        led(2, sums, {"train": mine}, device="cpu", start=0),
    ):
        pass


def test_a_rank_that_does_not_see_the_store_is_refused(tmp_path):
    mine = Opened(tmp_path, {"key": "a" * 32, "digest": "b" * 32})
    with (
        pytest.raises(Conflict, match=f"rank 1 opened as train nothing of digest none, but rank 0 {'a' * 32}"),
        led(2, sums, {"train": mine}, device="cpu", start=0),
    ):
        pass
