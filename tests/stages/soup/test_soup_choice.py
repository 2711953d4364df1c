"""The choice among soups: a paired test with its standard errors, corrected for the methods that
were looked at."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from stockpot.stages.soup import paired_test as honest
from stockpot.stages.soup.scorer import Outcome
from stockpot.stages.train.evaluate import Score


def drawn_outcome(rng, n, share, loss=1.0):
    return Outcome(rng.random(n) < share, (loss * rng.exponential(size=n)).astype(np.float32))


@given(st.integers(2, 200), st.integers(0, 1000))
@settings(max_examples=40)
def test_the_paired_tests_are_the_exact_sign_test_and_students(n, seed):
    rng = np.random.default_rng(seed)
    first, other = drawn_outcome(rng, n, 0.7), drawn_outcome(rng, n, 0.75)
    found = honest.paired(first, other)
    a, b = first.correct, other.correct
    wins, losses = int((b & ~a).sum()), int((a & ~b).sum())
    assert found.gain == pytest.approx(b.mean() - a.mean())
    assert found.error == pytest.approx(np.std(b.astype(float) - a, ddof=0) / n**0.5, abs=1e-12)
    expected = binomtest(wins, wins + losses, 0.5, "greater").pvalue if wins + losses else 1.0
    assert found.p_value == pytest.approx(expected)
    falls = first.losses.astype(float) - other.losses
    assert (found.loss_gain, found.loss_error) == pytest.approx(
        (falls.mean(), falls.std(ddof=1) / n**0.5), abs=1e-12
    )
    oracle = ttest_rel(
        first.losses.astype(float), other.losses.astype(float), alternative="greater"
    ).pvalue
    assert found.loss_p_value == pytest.approx(oracle, rel=1e-6)
    assert found.better_p_value == pytest.approx(min(1.0, 2 * min(expected, oracle)), rel=1e-6)


def test_losses_that_are_no_numbers_prove_nothing():
    good, bad = np.ones(5, np.float32), np.array([1, 1, np.inf, 1, np.nan], np.float32)
    right = np.ones(5, bool)
    for one, other in ((good, bad), (bad, good), (bad, bad)):
        assert honest.paired(Outcome(right, one), Outcome(right, other)).better_p_value == 1.0
    assert honest.paired(Outcome(right, good), Outcome(right, good)).better_p_value == 1.0
    assert (
        honest.paired(Outcome(right[:0], good[:0]), Outcome(right[:0], good[:0])).better_p_value
        == 1.0
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_by_its_definition(p_values):
    found = honest.holm(p_values)
    m = len(p_values)
    for level in (0.001, 0.01, 0.05, 0.2, 0.7):
        # Step down: the smallest is compared with level / m, the next with level / (m - 1), until
        # one is not below.
        rejected = set()
        for done, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
            if p_values[i] * (m - done) > level:
                break
            rejected.add(i)
        assert rejected == {i for i in range(m) if found[i] <= level}
    assert all(corrected >= p for corrected, p in zip(found, p_values, strict=True))


@given(
    st.lists(st.tuples(st.floats(0.3, 0.9), st.floats(0.1, 3)), min_size=1, max_size=6),
    st.integers(0, 1000),
)
@settings(max_examples=40)
def test_the_choice_is_never_below_the_simplest(drawn, seed):
    rng = np.random.default_rng(seed)
    outcomes = {f"m{i}": drawn_outcome(rng, 100, *one) for i, one in enumerate(drawn)}
    choice = honest.choose(outcomes)
    chosen = outcomes[choice.chosen]
    assert chosen.accuracy >= outcomes["m0"].accuracy
    if choice.chosen != "m0":
        assert choice.corrected[choice.chosen] <= honest.LEVEL
        if chosen.accuracy == outcomes["m0"].accuracy:
            assert chosen.loss < outcomes["m0"].loss
    assert honest.choose(dict.fromkeys(outcomes, outcomes["m0"])).chosen == "m0"


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_first_is_left_with_the_level_s_probability_where_nothing_is_better(correlation):
    """Five soups that are as good as the first: each alone would be taken in 5 % of the cases, five
    in up to 23 %."""
    rng = np.random.default_rng(1)
    left = trials = 250
    for _ in range(trials):
        common = rng.normal(size=200)
        outcomes = {}
        for name in "abcdef":
            noise = correlation**0.5 * common + (1 - correlation) ** 0.5 * rng.normal(size=200)
            outcomes[name] = Outcome(noise > -1, (2 - noise).astype(np.float32))
        left -= honest.choose(outcomes).chosen == "a"
    assert left / trials <= honest.LEVEL + 2 * (honest.LEVEL * (1 - honest.LEVEL) / trials) ** 0.5
    assert left  # and is left now and then: the level is used


@pytest.mark.parametrize(
    ("correct", "loss", "chosen"),
    [
        (70, 0.5, "other"),  # as accurate, clearly lower loss
        (70, 1.0, "simple"),  # a tie in both
        (70, 2.0, "simple"),
        (80, 1.0, "other"),  # clearly more accurate
        (73, 1.0, "simple"),  # more accurate, by no more than chance
        (80, 2.0, "simple"),  # the two disagree: the simpler
        (69, 0.5, "simple"),  # less accurate than the first: never
        (70, float("nan"), "simple"),
    ],
)
def test_accuracy_or_loss_decides_and_neither_may_be_worse(correct, loss, chosen):
    rng, right = np.random.default_rng(0), np.arange(100)
    simple = Outcome(right < 70, (1 + 0.1 * rng.normal(size=100)).astype(np.float32))
    other = Outcome(right < correct, (loss * (1 + 0.1 * rng.normal(size=100))).astype(np.float32))
    assert honest.choose({"simple": simple, "other": other}).chosen == chosen


def sets(n, *right):
    """Which of n outputs are right: those in these ranges."""
    return np.isin(np.arange(n), np.concatenate([np.arange(*one) for one in right]))


@pytest.mark.parametrize(("errors", "chosen"), [(1.0, "other"), (1.9, "other"), (2.1, "simple")])
def test_a_gain_in_accuracy_outweighs_a_loss_that_is_not_clearly_higher(errors, chosen):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    simple = Outcome(sets(100, (0, 70)), np.full(100, 5, np.float32))
    rise = 0.1 * errors  # one standard error of the mean of a hundred is 0.1
    other = Outcome(sets(100, (0, 85)), (5 + rise + noise).astype(np.float32))
    assert honest.paired(simple, other).worse == (chosen == "simple")
    assert honest.choose({"simple": simple, "other": other}).chosen == chosen


@pytest.mark.parametrize(
    ("right", "chosen"),
    [
        (((4, 80), (81, 84)), "loss"),  # of seven outputs that differ, one more is lost than won
        (((8, 80), (81, 82)), "accuracy"),  # of nine, seven more
    ],
)
def test_a_lower_loss_outweighs_accuracy_within_one_standard_error(right, chosen):
    rng = np.random.default_rng(0)
    losses = rng.normal(5, 1, size=(3, 100)).astype(np.float32)
    best = Outcome(sets(100, (0, 60)), losses[0])
    accuracy = Outcome(sets(100, (0, 80)), losses[1])
    loss = Outcome(sets(100, *right), losses[2] - np.float32(1))
    assert best.accuracy < loss.accuracy < accuracy.accuracy
    outcomes = {"best": best, "accuracy": accuracy, "loss": loss}
    assert honest.choose(outcomes).chosen == chosen


def shifted(rng, n, fall):
    """An outcome as accurate as any other of these, whose losses lie `fall` lower, with noise of
    one."""
    return Outcome(np.ones(n, bool), (5 - fall + rng.normal(size=n)).astype(np.float32))


def test_the_standard_error_decides_not_the_difference():
    """The same fall of the mean loss: clear among equal outputs, nothing among noisy ones."""
    rng, n = np.random.default_rng(0), 100
    base = rng.normal(size=n)
    right = np.ones(n, bool)
    simple = Outcome(right, (5 + base).astype(np.float32))
    noise = rng.normal(size=n)
    noise -= noise.mean()
    quiet = Outcome(right, (5 + base - 0.1 + 0.1 * noise).astype(np.float32))
    noisy = Outcome(right, (5 + base - 0.1 + 5 * noise).astype(np.float32))
    falls = [honest.paired(simple, other).loss_gain for other in (quiet, noisy)]
    assert falls == pytest.approx([0.1, 0.1], abs=1e-6)
    assert honest.choose({"simple": simple, "other": quiet}).chosen == "other"
    assert honest.choose({"simple": simple, "other": noisy}).chosen == "simple"


def test_more_looks_ask_for_more():
    """One soup alone passes; beside four others that are no better, the same soup does not."""
    rng, n = np.random.default_rng(3), 400
    simple, better = shifted(rng, n, 0.0), shifted(rng, n, 0.16)
    p = honest.paired(simple, better).better_p_value
    assert honest.LEVEL / 5 < p <= honest.LEVEL
    assert honest.choose({"simple": simple, "better": better}).chosen == "better"
    others = {f"other {i}": shifted(rng, n, -0.2) for i in range(4)}
    choice = honest.choose({"simple": simple, **others, "better": better})
    assert choice.chosen == "simple"
    assert choice.looks == 5
    assert choice.corrected["better"] == pytest.approx(5 * p)
    # A soup that equals another one is no further look.
    equal = {f"other {i}": better for i in range(4)}
    choice = honest.choose({"simple": simple, "better": better, **equal})
    assert (choice.chosen, choice.looks) == ("better", 1)
    assert list(choice.corrected.values()) == pytest.approx([p] * 5)
    assert honest.choose({"simple": simple, "same": simple}).corrected == {"same": 1.0}


def test_of_better_soups_the_simplest_is_kept_unless_one_is_clearly_better_still():
    rng, n = np.random.default_rng(0), 400
    simple = shifted(rng, n, 0.0)
    soups = {
        "uniform": shifted(rng, n, 0.5),
        "learned": shifted(rng, n, 0.52),
        "signed": shifted(rng, n, 1.2),
    }
    first_two = {name: soups[name] for name in ("uniform", "learned")}
    assert honest.choose({"best": simple, **first_two}).chosen == "uniform"
    assert honest.choose({"best": simple, **soups}).chosen == "signed"
    assert honest.choose({"best": simple, **soups}, ["best", "learned"]).chosen == "learned"
    assert honest.choose({"best": simple, **soups}, ["best"]).chosen == "best"
    assert honest.choose({"best": simple, **soups}, []).chosen == "best"


@pytest.mark.parametrize("kind", [Outcome, Score])
def test_of_equal_accuracy_the_lower_loss_ranks_higher_and_no_number_lowest(kind):
    def made(correct, loss):
        if kind is Score:
            return Score(correct, 4, 4 * loss)
        return Outcome(np.arange(4) < correct, np.full(4, loss, np.float32))

    ranks = [made(2, float("nan")).rank, made(2, 2.0).rank, made(2, 1.0).rank, made(3, 9.0).rank]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 4
