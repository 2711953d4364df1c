"""Ranks find each other, agree on what they opened, and end together."""

import json
import time

import pytest
import torch

from stockpot.stages.errors import Conflict, Corrupt, StockpotError
from stockpot.stages.processes.process_group import (
    TIMEOUT,
    Team,
    _of_connection,
    led,
    place_on_machine,
)
from stockpot.stages.train.evaluate import Score
from stockpot.stages.train.trainer import Progress, _agree
from tests.coop_ranks import Opened, leaves, sums


def test_ranks_add_up():
    with led(3, sums, {}, device="cpu", start=5) as team:
        assert sums(team, inputs={}, start=5) == Score(18, 3, 1.5)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("signal", "rank 1: killed by SIGKILL"),
        ("error", "rank 1: exit status 1 (RuntimeError: no room left)"),
    ],
)
def test_a_rank_that_ends_ends_all_and_says_why(how, said):
    with pytest.raises(StockpotError) as caught, led(2, leaves, {}, device="cpu", how=how) as team:
        leaves(team, inputs={}, how=how)
    assert type(caught.value) is StockpotError
    assert said in str(caught.value)
    assert "run the same command again" in caught.value.fix


def test_an_error_that_a_user_can_mend_is_raised_as_it_is():
    with (
        pytest.raises(Corrupt, match=r"^shard: a bit was flipped") as caught,
        led(2, leaves, {}, device="cpu", how="corrupt") as team,
    ):
        leaves(team, inputs={}, how="corrupt")
    assert caught.value.fix == "run it again"


def test_an_error_of_rank_0_is_not_blamed_on_others():
    with (
        pytest.raises(RuntimeError, match=r"^CUDA out of memory"),
        led(2, sums, {}, device="cpu", start=0),
    ):
        raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(("env", "local"), [({}, 3), ({"LOCAL_RANK": "1"}, 1)])
def test_where_a_launcher_says_nothing_of_machines_all_ranks_are_on_one(monkeypatch, env, local):
    for name, value in {"WORLD_SIZE": "4", "MASTER_ADDR": "localhost", **env}.items():
        monkeypatch.setenv(name, value)
    assert place_on_machine(3) == local
    monkeypatch.setenv("WORLD_SIZE", "1")  # one process of a launcher starts all ranks itself
    assert place_on_machine(3) == 3


@pytest.mark.parametrize(
    ("words", "of"), [("cannot restore the weights", False), ("TCPStore is gone", True)]
)
def test_only_lost_connections_are_blamed_on_other_ranks(words, of):
    assert _of_connection(RuntimeError(words)) is of


def test_a_rank_that_ends_before_it_joins_is_noticed_at_once(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    started = time.monotonic()
    with (
        pytest.raises(StockpotError, match=r"rank 1: exit status 1 \(json"),
        led(
            2,
            sums,
            {"train": Opened(tmp_path, {"key": "a" * 32, "digest": "b" * 32})},
            device="cpu",
            start=0,
        ),
    ):
        pass
    assert time.monotonic() - started < TIMEOUT.total_seconds() / 5


def test_each_rank_takes_the_gpu_of_its_place_on_its_machine():
    assert Team(5, 8, local=1).device("cuda") == "cuda:1"
    assert Team(5, 8, local=1).device("cpu") == "cpu"


def test_ranks_that_go_on_from_different_places_are_refused():
    class Two:
        def gathered(self, mine):
            return [(2, 5, "b"), mine]

    model = torch.nn.Linear(1, 1)
    with pytest.raises(
        Conflict, match="rank 1 goes on from epoch 0, step 0, but rank 0 from epoch 2, step 5"
    ):
        _agree(Two(), Progress(rate=0.1), model)


def test_ranks_that_opened_another_store_are_refused(tmp_path):
    mine = Opened(tmp_path, {"key": "a" * 32, "digest": "b" * 32})
    (tmp_path / "manifest.json").write_text(json.dumps({"key": "c" * 32, "digest": "d" * 32}))
    with (
        pytest.raises(
            Conflict,
            match=f"rank 1 opened as train {'c' * 32} of digest {'d' * 32}, but rank 0 {'a' * 32}",
        ),
        led(2, sums, {"train": mine}, device="cpu", start=0),
    ):
        pass


def test_a_rank_that_does_not_see_the_store_is_refused(tmp_path):
    mine = Opened(tmp_path, {"key": "a" * 32, "digest": "b" * 32})
    with (
        pytest.raises(
            Conflict, match=f"rank 1 opened as train nothing of digest none, but rank 0 {'a' * 32}"
        ),
        led(2, sums, {"train": mine}, device="cpu", start=0),
    ):
        pass
