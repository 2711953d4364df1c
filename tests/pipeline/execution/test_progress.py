"""Progress counts what is left to do, says how long it takes, and is never all before it is."""

import io

import pytest

from stockpot.execution import progress
from stockpot.execution.progress import Fraction, Pace, Plain, display, share
from stockpot.store.attempt import FINISH


@pytest.mark.parametrize(
    ("finished", "shards", "running", "done"),
    [
        (0, 4, {}, 0.0),
        (1, 4, {"a": Fraction(1, 2)}, 0.95 * 1.5 / 4),
        (4, 4, {}, 0.95),
        (1, 1, {FINISH: Fraction(1, 2)}, 0.975),
        (0, 1, {"a": Fraction(9, 9)}, 0.95),
        (0, 1, {"a": Fraction(9, 0)}, 0.0),
        (0, 0, {}, 0.95),
        (0, 0, {FINISH: Fraction(1, 1)}, 0.99),
        (9, 2, {"a": Fraction(5, 1), FINISH: Fraction(7, 1)}, 0.99),
    ],
)
def test_a_share_is_of_what_is_left_and_never_all(finished, shards, running, done):
    assert share(finished, shards, running) == pytest.approx(done)


def test_time_to_go_is_reckoned_from_what_this_run_did():
    pace = Pace()
    assert pace.to_go(0.5, 100.0) == ""  # a checkpoint: done before, at no pace of this run
    assert pace.to_go(0.51, 100.5) == ""
    assert pace.to_go(0.6, 110.0) == "40 s to go"
    assert pace.to_go(0.6, 120.0) == "30 s to go"  # nothing new is known: the time runs
    assert pace.to_go(0.6, 151.0) == ""  # and is over
    assert pace.to_go(0.5, 160.0) == ""
    assert pace.to_go(0.6, 1100.0) == "67 min to go"
    assert pace.to_go(0.61, 10_100.0) == "9.8 h to go"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_lines_and_bars_say_how_many_artifacts_are_left(stream, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    show = display(stream)
    if isinstance(show, Plain):
        show.every_s = 1.0
    show.expect(0, 2)
    show.start("train:0", 1)
    for at in range(5):
        now[0] = 10.0 * at
        show.update("train:0", 0, {"train": Fraction(at, 10, "epochs")})
        if not isinstance(show, Plain):
            show._progress.refresh()
    show.expect(1, 2)
    show.stop("train:0", 40.0)
    show.stop("train:1", None, "")
    show.close()
    text = stream.getvalue()
    assert "4/10 epochs, 65 s to go" in text
    assert "train:0            done in 40.0 s" in text
    assert "train:1            failed\n" in text
    assert ("1 of 2" in text) is isinstance(show, Plain) or "1 of 2 artifacts" in text
    assert "100%" not in text
