"""What judges a soup never made it, and no soup depends on which others were asked for."""

import numpy as np
import pytest
import torch

from stockpot.stages.soup import cross_fit as kitchen
from stockpot.stages.soup import methods
from stockpot.stages.soup.cross_fit import cook
from stockpot.stages.soup.kept_batches import PIECES, Batches, Parts, divide
from stockpot.stages.soup.methods import Made, Methods
from stockpot.stages.soup.parts import record_parts
from stockpot.stages.soup.planning import METHODS
from stockpot.stages.soup.published import SgdParams
from stockpot.stages.soup.ranking import Ranking
from stockpot.stages.soup.scorer import Outcome, Scorer
from stockpot.stages.soup.stack import GRANULARITIES
from tests.stages.soup.soups import deep, linear, problem, scorer_of, step


def labelled(steps):
    return [int((s.y >= 0).sum()) for s in steps]


def relabelled(steps, records, seed=0):
    """The same steps with labels drawn at random, and other rows, on some of the records."""
    draw = torch.Generator().manual_seed(seed)
    out = list(steps)
    for r in records:
        y = torch.where(steps[r].y >= 0, torch.randint(0, 3, steps[r].y.shape, generator=draw), -1)
        out[r] = step(torch.randn(steps[r].x.shape, generator=draw, dtype=steps[r].x.dtype), y)
    return out


@pytest.mark.parametrize("name", METHODS)
def test_a_soup_of_one_half_does_not_know_the_other(name):
    """Labels and features of the half that judges are replaced: the soup made on the other stays,
    bit by bit."""
    model, states, steps = problem(deep, count=4, spread=0.15, per=60)
    parts = divide(labelled(steps))
    found = []
    for given in (steps, relabelled(steps, parts.select)):
        scorer = scorer_of(model, states, given)
        half = Methods(
            scorer,
            Ranking(scorer, lambda _: None),
            parts.fit,
            0,
            SgdParams(epochs=6, parts=2, drawn=1),
        )
        found.append((half.make(name).alpha, half.order, [b.to_json() for b in half.barriers]))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_the_halves_are_filtered_each_by_itself(monkeypatch):
    """Every search for barriers runs on the records its soups are fitted to, from the best
    ingredient on them."""
    model, states, steps = problem(deep, count=4, spread=0.3, per=60, seed=3)
    asked = []
    plain = methods.barriers

    def seen(scorer, best, records):
        asked.append((best, tuple(sorted(records))))
        return plain(scorer, best, records)

    monkeypatch.setattr(methods, "barriers", seen)
    scorer = scorer_of(model, states, steps)
    cook(scorer)
    parts = divide(labelled(steps))
    ranking = Ranking(scorer, lambda _: None)
    every = tuple(range(len(steps)))  # fewer outputs than a race takes

    def best_on(records):
        return max(range(4), key=lambda i: ranking.of(i, records).rank)

    assert asked == [(best_on(records), records) for records in (parts.fit, parts.select, every)]


@pytest.mark.parametrize("build", [linear, deep])
def test_every_soup_is_the_same_whichever_others_were_made(build):
    model, states, steps = problem(build, count=3, spread=0.2, per=50)
    together = cook(scorer_of(model, states, steps))
    assert list(together.soups) == list(METHODS[:6])
    for name in METHODS[1:6]:
        alone = cook(scorer_of(model, states, steps), method=name)
        assert np.array_equal(alone.soups[name].alpha, together.soups[name].alpha), name
        same = [
            {
                k: v
                for k, v in c.facts["methods"][name].items()
                if k not in ("corrected_p_value", "same_as")
            }
            for c in (alone, together)
        ]
        assert same[0] == same[1]


def test_only_the_choice_among_several_is_corrected():
    model, states, steps = problem(linear, count=4, spread=0.6, per=60)
    together = cook(scorer_of(model, states, steps)).facts
    assert together["chosen_by"] == "validation"
    assert together["looks"] == 5
    for name, found in together["methods"].items():
        if name == "best":
            assert found["corrected_p_value"] is None
            continue
        own = min(1.0, 2 * min(found["p_value"], found["loss_p_value"]))
        assert own <= found["corrected_p_value"] <= min(1.0, 5 * own)
    alone = cook(scorer_of(model, states, steps), method="gis").facts
    assert (alone["chosen"], alone["chosen_by"], alone["looks"]) == ("gis", "recipe", 0)
    assert alone["methods"]["gis"]["corrected_p_value"] is None
    one = cook(scorer_of(model, states[:1], steps)).facts
    assert (one["chosen"], one["chosen_by"]) == ("best", "nothing")


# --- the ladder


def ladder(monkeypatch, losses):
    """A half whose learned tables have these losses on the other: {granularity: loss}, the start's
    under None."""
    model, states, steps = problem(deep, count=3, spread=0.05, per=80)
    scorer = scorer_of(model, states, steps)
    fitted = Methods(scorer, Ranking(scorer, lambda _: None), range(len(steps)), 0)
    fitted.members = fitted.order
    tables, tried = {}, []

    def learned_by(self, granularity):
        tried.append((granularity, tuple(self.records)))
        tables[granularity] = np.full((4, 3), 1 / 3) + len(tried) * 1e-9
        return tables[granularity]

    plain = Scorer.outcome

    def outcome(self, alpha, records):
        for granularity, table in tables.items():
            if np.array_equal(alpha, table):
                return Outcome(np.ones(1, bool), np.full(1, losses[granularity], np.float32))
        if not tables:
            plain(self, alpha, records)
        return Outcome(np.ones(1, bool), np.full(1, losses[None], np.float32))

    monkeypatch.setattr(Methods, "learned_by", learned_by)
    monkeypatch.setattr(Scorer, "outcome", outcome)
    return fitted, tried


@pytest.mark.parametrize(
    ("losses", "rung", "tried"),
    [
        ((1.0, 0.9, 0.8, 0.7), "tensor", 3),
        (
            (1.0, 0.9, 0.95, 0.1),
            "global",
            2,
        ),  # it stops where the loss rises, whatever would follow
        ((1.0, 0.9, 0.9, 0.1), "global", 2),  # and at a tie
        ((1.0, 0.9, 0.8, 0.85), "layer", 3),
        (
            (1.0, 1.1, 0.1, 0.1),
            None,
            1,
        ),  # nothing learned is better than the start: the start it is
        ((1.0, 1.0, 0.1, 0.1), None, 1),
    ],
)
def test_the_ladder_is_climbed_while_the_loss_falls(monkeypatch, losses, rung, tried):
    fitted, seen = ladder(monkeypatch, dict(zip((None, *GRANULARITIES), losses, strict=True)))
    assert fitted.rung == rung
    assert [granularity for granularity, _ in seen] == list(GRANULARITIES[:tried])
    inner = divide(fitted.labelled, 0, fitted.records)
    assert {records for _, records in seen} == {inner.fit}
    assert set(inner.fit) | set(inner.select) == set(fitted.records)
    seen.clear()
    made = fitted.learned()
    assert made.granularity == (rung or "global")
    assert seen == ([] if rung is None else [(rung, tuple(fitted.records))])


def test_records_too_few_to_halve_carry_one_weight_a_model():
    model, states, steps = problem(deep, count=3, spread=0.05, records=2, per=18)
    scorer = scorer_of(model, states, steps)
    fitted = Methods(scorer, Ranking(scorer, lambda _: None), [0, 1], 0)
    assert fitted.rung == "global"


# --- validation in few records


def test_a_single_record_is_judged_in_halves_of_its_outputs():
    model, states, steps = problem(linear, count=4, spread=0.6, records=1, per=900)
    batches = Batches(model, steps, 1 << 30)
    assert len(batches) == PIECES
    masks = torch.stack([batches[i].y >= 0 for i in range(len(batches))])
    assert torch.equal(masks.sum(0), (steps[0].y >= 0).long())  # each labelled output in one piece
    assert all(count > 100 for count in masks.sum(1).tolist())
    assert all(torch.equal(batches[i].y[masks[i]], steps[0].y[masks[i]]) for i in range(PIECES))
    assert len(batches.kept) == 1  # read once
    cooked = cook(scorer_of(model, states, steps))
    assert cooked.facts["parts"]["divided"]
    assert sum(cooked.facts["parts"]["labelled"]) == cooked.facts["labelled"] == int(masks.sum())
    assert list(cooked.soups) == list(METHODS[:6])
    scorer = scorer_of(model, states, steps)
    scorer.put(cooked.soups["uniform"].alpha)
    whole = Outcome.of(model(steps[0].x, ()).detach(), steps[0].y)
    assert cooked.facts["methods"]["uniform"]["valid_accuracy"] == whole.accuracy


@pytest.mark.parametrize(("records", "pieces"), [(1, 4), (2, 4), (3, 6), (4, 4), (9, 9)])
def test_many_records_are_read_whole(records, pieces):
    model, _, steps = problem(linear, records=records)
    batches = Batches(model, steps, 1 << 30)
    assert len(batches) == pieces
    assert sum(labelled([batches[i] for i in range(pieces)])) == sum(labelled(steps))


def test_where_validation_cannot_be_divided_nothing_fitted_is_chosen():
    model, states, steps = problem(linear, count=6, spread=0.6, records=2, per=18)
    cooked = cook(scorer_of(model, states, steps))
    assert not cooked.facts["parts"]["divided"]
    assert cooked.chosen in ("best", "uniform")
    assert kitchen.UNFITTED == ("best", "uniform")


def test_who_may_be_chosen():
    """None that is less accurate than the best ingredient where both were fitted; undivided, none
    that was fitted."""

    def scored(right):
        outcome = Outcome(np.arange(10) < right, np.zeros(10, np.float32))
        return kitchen._Scored(outcome, outcome, outcome)

    every = {"best": scored(5), "uniform": scored(5), "greedy": scored(6), "gis": scored(4)}
    assert kitchen._eligible(every, Parts((0,), (1,), divided=True)) == [
        "best",
        "uniform",
        "greedy",
    ]
    assert kitchen._eligible(every, Parts((0,), (0,), divided=False)) == ["best", "uniform"]


# --- what has the same weights


def test_soups_of_the_same_weights_say_so():
    model, states, steps = problem(linear, count=3, spread=0.05, per=60)
    far = [states[0], *({k: v + 5 for k, v in s.items()} for s in states[1:])]
    facts = cook(scorer_of(model, far, steps)).facts
    best = facts["methods"]["best"]["members"][0]
    assert facts["methods"]["best"]["same_as"] == f"ingredient:{best}"
    assert facts["methods"]["greedy"]["same_as"] == f"ingredient:{best}"
    assert facts["methods"]["uniform"]["same_as"] is None
    two = cook(scorer_of(model, [states[0], states[0]], steps)).facts["methods"]
    assert two["uniform"]["same_as"] is None  # of equal models, but weighs both
    even, alone = Made(np.full((2, 2), 0.5)), Made(np.eye(2)[[0, 0]])
    soups = {"best": alone, "uniform": even, "greedy": even}
    assert [kitchen._same_as(name, soups) for name in soups] == ["ingredient:0", None, "uniform"]


# --- LS and PLS


def test_parts_of_records_have_equal_validation_and_near_records_together():
    """Records of two regions with very different numbers of outputs: balanced by outputs, cut
    between the regions."""
    ids = [
        np.arange(100 * region, 100 * region + 40) + 3 * i for region in (0, 9) for i in range(8)
    ]
    counts = [10] * 8 + [10] * 8
    part = record_parts(ids, counts, 2, 0)
    assert len(set(part[:8])) == len(set(part[8:])) == 1
    assert part[0] != part[8]
    heavy = [70, *[10] * 7, *[10] * 8]
    part = record_parts(ids, heavy, 2, 0)
    sums = [sum(c for c, p in zip(heavy, part, strict=True) if p == k) for k in (0, 1)]
    assert max(sums) / (sum(heavy) / 2) < 1.15  # by records alone it would be 140 of 220
    assert sorted(record_parts(ids, counts, 99, 0)) == list(range(16))


def test_records_that_share_more_nodes_are_in_one_part():
    """Every two records share one node; those of one group also 60 others: METIS must see how
    many."""
    common, groups = [0], {g: list(range(100 * (g + 1), 100 * (g + 1) + 60)) for g in range(2)}
    group = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1])
    ids = [np.array(common + groups[int(g)] + [1000 + i]) for i, g in enumerate(group)]
    part = record_parts(ids, [10] * 12, 2, 0)
    assert len(set(part[group == 0].tolist())) == len(set(part[group == 1].tolist())) == 1


def test_published_settings_decide_steps_rates_and_parts(monkeypatch):
    model, states, steps = problem(linear, count=3, spread=0.05, records=12, per=40)
    scorer = scorer_of(model, states, steps)
    ranking = Ranking(scorer, lambda _: None)
    calls = []
    monkeypatch.setattr(
        methods,
        "learn_published",
        lambda shape, gradient, draws, **options: (
            calls.append((draws, options)) or np.full(shape, 1 / shape[1])
        ),
    )
    plan = SgdParams(epochs=7, rate=2.5, period=3, parts=4, drawn=2)
    fitted = Methods(scorer, ranking, range(12), 0, plan)
    fitted.members = fitted.order
    fitted.published()
    fitted.partition()
    (whole, of_whole), (some, of_some) = calls
    assert of_whole == of_some == {"rate": 2.5, "period": 3, "seed": 0}
    assert whole == [list(range(12))] * 7
    assert len(some) == 7
    ids = [scorer.batches[r].n_id.numpy() for r in range(12)]
    part = record_parts(ids, ranking.labelled, 4, 0)
    for draw in some:
        drawn = {int(part[r]) for r in draw}
        assert len(drawn) == 2
        assert sorted(draw) == [r for r in range(12) if part[r] in drawn]
    calls.clear()
    fitted.schedule = SgdParams(
        epochs=3, parts=32, drawn=8
    )  # more parts than records: a quarter of the records
    fitted.partition()
    assert [len(draw) for draw in calls[0][0]] == [3] * 3
