import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.options import Schedule
from stockpot.stages.soup import learned, published, simple
from stockpot.stages.soup import paired_test as honest
from stockpot.stages.soup.calibrate import recalibrate
from stockpot.stages.soup.cross_fit import cook
from stockpot.stages.soup.kept_batches import LEAST, Batches, divide, first_layer_once, step_bytes
from stockpot.stages.soup.loss_barrier import SLACK, Barrier, barriers
from stockpot.stages.soup.methods import Methods
from stockpot.stages.soup.ranking import Ranking
from stockpot.stages.soup.scorer import Outcome, Scorer
from stockpot.stages.soup.stack import GRANULARITIES, Stack, groups
from stockpot.stages.train.evaluate import open_steps
from stockpot.stages.train.model import build_model
from stockpot.stages.train.state import read_state, write_state
from tests.stages.soup.soups import Plain, deep, draws, linear, problem, scorer_of, simplex, step
from tests.stages.steps import packs
from tests.stages.train.test_train import CONFIG

READ = {"normalization": "sym", "mass": "none", "self_loops": True}


def table(rng, t, n):
    return rng.dirichlet(np.ones(n), size=t)


# --- tables of weights


@given(st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=20)
def test_a_mean_of_equal_ingredients_is_that_ingredient_bit_by_bit(count, seed):
    model, states, _ = problem(deep, count=1, seed=seed, dtype=torch.float32)
    stack = Stack(states * count, model)
    soup = stack.state(stack.blend(range(count)), model)
    assert all(torch.equal(soup[k], states[0][k]) for k in soup)


def test_one_weight_alone_is_that_ingredient_and_names_count_not_positions():
    model, states, _ = problem(deep, dtype=torch.float32)
    turned = [dict(reversed(s.items())) if i % 2 else s for i, s in enumerate(states)]
    stack, other = Stack(states, model), Stack(turned, model)
    for i, state in enumerate(states):
        assert all(torch.equal(stack.state(stack.pick(i), model)[k], v) for k, v in state.items())
    alpha = table(np.random.default_rng(0), len(stack.names), 4)
    a, b = stack.state(alpha, model), other.state(alpha, model)
    assert all(torch.equal(a[k], b[k]) for k in a)
    for t, name in enumerate(stack.names):
        expected = sum(w * s[name].double() for w, s in zip(alpha[t], states, strict=True))
        torch.testing.assert_close(a[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_layers_and_tensors_are_told_by_their_names():
    names = [
        "module.convs.0.lin.weight",
        "module.convs.0.bias",
        "module.convs.10.bias",
        "module.head.weight",
        "eps",
    ]
    assert groups(names, "global")[1].tolist() == [0] * 5
    labels, of = groups(names, "layer")
    assert labels == ["module.convs.0", "module.convs.10", "module.head", "eps"]
    assert of.tolist() == [0, 0, 1, 2, 3]
    assert groups(names, "tensor")[0] == names


@pytest.mark.parametrize("build", [linear, deep])
def test_gradients_are_finite_differences(build):
    model, states, steps = problem(build)
    scorer = scorer_of(model, states, steps)
    t, n = len(scorer.stack.names), 4
    alpha = table(np.random.default_rng(1), t, n)
    loss, d, by_scale = scorer.gradient(alpha, [0, 2], scale=1.3)

    def f(a, scale=1.3):
        return scorer.gradient(a, [0, 2], scale=scale)[0]

    h = 1e-5
    for i in range(t):
        for j in range(n):
            bump = np.zeros((t, n))
            bump[i, j] = h
            assert (f(alpha + bump) - f(alpha - bump)) / (2 * h) == pytest.approx(
                d[i, j], rel=1e-6, abs=1e-9
            )
    assert (f(alpha, 1.3 + h) - f(alpha, 1.3 - h)) / (2 * h) == pytest.approx(by_scale, rel=1e-6)
    only = scorer.gradient(alpha, [0, 2], members=[1, 3], scale=1.3)
    assert only[0] == loss
    assert np.array_equal(only[1][:, [1, 3]], d[:, [1, 3]])
    assert not only[1][:, [0, 2]].any()
    plain = scorer.gradient(alpha, [0, 2])[0]
    assert plain == pytest.approx(
        Outcome.joined(Outcome.of(*scorer.logits(r)) for r in (0, 2)).loss, rel=1e-12
    )


def test_gradients_are_those_of_autograd_through_all_ingredients(tmp_path):
    model, states, steps = problem(deep)
    for i, state in enumerate(states):
        write_state(tmp_path / f"{i}", state, {})
    mapped = [read_state(tmp_path / f"{i}")[0] for i in range(4)]
    t = 4
    alpha = table(np.random.default_rng(2), t, 4)
    _, d, _ = scorer_of(model, states, steps).gradient(alpha, [1])
    _, out_of_core, _ = scorer_of(model, mapped, steps).gradient(alpha, [1])
    np.testing.assert_allclose(
        d, out_of_core, rtol=1e-12, atol=1e-15
    )  # files are aligned otherwise
    leaf = torch.tensor(alpha, requires_grad=True)
    names = list(dict(model.named_parameters()))
    mixed = {
        k: torch.tensordot(leaf[i], torch.stack([s[k] for s in states]), 1)
        for i, k in enumerate(names)
    }
    logits = torch.func.functional_call(model, mixed, (steps[1].x, ()))
    functional.cross_entropy(logits, steps[1].y, ignore_index=-1).backward()
    np.testing.assert_allclose(d, leaf.grad.numpy(), rtol=1e-10, atol=1e-13)


# --- learning


@pytest.mark.parametrize("seed", range(3))
def test_learned_weights_of_a_convex_problem_reach_its_minimum(seed):
    model, states, steps = problem(linear, seed=seed, count=5)
    scorer = scorer_of(model, states, steps)
    of = groups(scorer.stack.names, "global")[1]
    records = list(range(6))

    def loss(w):
        return scorer.gradient(np.tile(w, (2, 1)), records)[0]

    best = minimize(
        loss,
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    start = scorer.stack.blend(range(5))
    found = learned.learn(start, of, lambda a, r: scorer.gradient(a, r)[1], draws(6), steps=150)
    assert found.sum(1) == pytest.approx(1)
    assert (found >= 0).all()
    assert loss(found[0]) <= best.fun + 2e-3
    # Signed weights may leave the simplex, and only gain by it.
    free = minimize(lambda w: loss(w / w.sum()), best.x + 1e-3)
    signed = learned.learn_signed(
        found,
        of,
        range(5),
        lambda a, r: scorer.gradient(a, r)[1],
        lambda a: scorer.stack.distances(a, of),
        draws(6),
        steps=150,
    )
    assert signed.sum(1) == pytest.approx(1)
    assert loss(signed[0]) <= loss(found[0]) + 1e-6
    assert loss(signed[0]) <= free.fun + 1e-2


def test_logits_of_linear_models_tell_the_best_soup():
    model, states, steps = problem(linear, count=4)
    scorer = scorer_of(model, states, steps)
    labelled = [s.y >= 0 for s in steps]
    logits = []
    for i in range(4):
        scorer.put(scorer.stack.pick(i))
        logits.append(torch.cat([scorer.logits(r)[0][labelled[r]] for r in range(6)]))
    w = learned.convex_start(
        torch.stack(logits), torch.cat([s.y[m] for s, m in zip(steps, labelled, strict=True)])
    )

    def loss(w):
        return scorer.gradient(np.tile(w, (2, 1)), range(6))[0]

    best = minimize(
        loss,
        np.full(4, 0.25),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    )
    assert loss(w) <= best.fun + 2e-3


@given(st.integers(1, 4), st.integers(2, 6), st.floats(0.01, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_the_lean_to_even_weights_is_the_gradient_of_a_divergence(rows, n, prior, seed):
    weights = np.random.default_rng(seed).dirichlet(np.ones(n), rows) * 0.98 + 0.02 / n

    def penalty(w):
        return prior * (w * np.log(w * n)).sum(1).mean()

    found, step = learned.lean(weights, prior), 1e-6
    for g in range(rows):
        for i in range(n):
            moved = weights.copy()
            moved[g, i] += step
            back = weights.copy()
            back[g, i] -= step
            # A softmax drops what is the same for all of a row.
            assert (penalty(moved) - penalty(back)) / (2 * step) - prior / rows == pytest.approx(
                found[g, i], abs=1e-4 * prior
            )


def test_a_strong_prior_keeps_weights_even_and_a_weak_one_does_not():
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.integers(0, 3, 60))
    logits = torch.from_numpy(rng.normal(size=(4, 60, 3)).astype(np.float32))
    logits[1] += 2 * functional.one_hot(y, 3)
    assert learned.convex_start(logits, y)[1] > 0.9
    assert learned.convex_start(logits, y, 100.0) == pytest.approx([0.25] * 4, abs=0.02)


@given(st.integers(0, 50))
@settings(max_examples=20)
def test_a_finer_table_with_equal_rows_is_the_coarser_one(seed):
    """The gradient of a group is the sum of its tensors': one step of the global rung from
    all-equal losses."""
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(5, 3))
    start = np.full((5, 3), 1 / 3)
    for granularity in GRANULARITIES:
        of = groups([f"a.{i // 2}.w{i}" for i in range(5)], granularity)[1]
        found = learned.learn(start, of, lambda a, r: d, draws(1), steps=1)
        for g in set(of.tolist()):
            summed = d[of == g].sum(0)
            tangent = summed - summed.mean()
            moved = found[of == g][0] - 1 / 3
            assert (found[of == g] == found[of == g][0]).all()
            assert (
                np.sign(moved[np.abs(tangent).argmax()])
                == -np.sign(tangent[np.abs(tangent).argmax()])
            ).all()


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 60), st.integers(0, 9))
def test_portions_hand_out_every_record_once_a_round(labelled, least, seed):
    records = list(range(len(labelled)))
    found, seen = learned.portions(labelled, records, least, seed), []
    while len(seen) < len(records):
        part = next(found)
        seen += part
        assert sum(labelled[i] for i in part) >= least or len(seen) == len(records)
    assert sorted(seen) == records


def test_portions_are_drawn_anew_in_every_round_and_alike_for_a_seed():
    def rounds(seed):
        found = learned.portions([1] * 40, range(40), 1, seed)
        return [[next(found)[0] for _ in range(40)] for _ in range(3)]

    drawn = rounds(0)
    assert all(sorted(one) == list(range(40)) for one in drawn)
    assert len({tuple(one) for one in (*drawn, *rounds(1), range(40))}) == 7
    assert rounds(0) == drawn


def test_dropout_is_off_while_weights_are_learned():
    def dropping():
        return [nn.Linear(4, 6), nn.Dropout(0.9), nn.Linear(6, 3)]

    model, states, steps = problem(dropping)
    model.train()
    scorer = scorer_of(model, states, steps)
    alpha = table(np.random.default_rng(3), 4, 4)
    first, second = scorer.gradient(alpha, [0]), scorer.gradient(alpha, [0])
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
    assert not model.training


# --- as published


def test_the_published_start_is_nearly_uniform_and_its_scale_runs_away():
    seen = []

    def gradient(alpha, beta, draw):
        seen.append((alpha.copy(), beta))
        return 0.0, np.zeros_like(alpha), 0.38  # dL/dbeta of logits 1.2 times too large

    found = published.learn_published((8, 10), gradient, range(9), rate=10.0, period=4)
    assert np.abs(seen[0][0] * 10 - 1).max() < 0.15  # softmax of a softmax
    assert seen[1][1] == pytest.approx(
        1 - 3.8
    )  # negative after one step: alpha's gradient turns around
    assert found.sum(1) == pytest.approx(1)
    assert [published.restart(e, 3) for e in range(4)] == pytest.approx([1, 0.75, 0.25, 1])


def test_published_learning_lowers_the_loss_where_its_rate_suits():
    model, states, steps = problem(linear, count=4)
    scorer = scorer_of(model, states, steps)
    losses = []

    def gradient(alpha, beta, draw):
        found = scorer.gradient(alpha, draw, scale=beta)
        losses.append(found[0])
        return found

    published.learn_published((2, 4), gradient, [range(6)] * 40, rate=1.0, period=4)
    assert losses[-1] < losses[0]


# --- searches


@given(st.floats(-0.5, 1.5), st.integers(4, 12))
def test_golden_section_finds_the_minimum_of_a_parabola(at, evaluations):
    calls = []

    def f(r):
        calls.append(r)
        return (r - at) ** 2

    found = simple.golden(f, evaluations)
    assert len(calls) == evaluations
    assert abs(found - min(max(at, 0), 1)) <= 0.618 ** (evaluations - 1) + 1e-9
    assert (found - at) ** 2 == min((r - at) ** 2 for r in calls)


def rank_by(target):
    """Accuracy that falls with the distance from a known best soup."""
    return lambda w: (-float(np.abs(w - target).sum()), 0.0)


@given(st.integers(2, 6), st.integers(0, 30))
def test_interpolation_never_falls(n, seed):
    target = simplex(n, seed).one
    order = list(np.random.default_rng(seed).permutation(n))
    w, path = simple.gis_grid(order, n, rank_by(target), grid=20)
    assert path == sorted(path)
    assert w.sum() == pytest.approx(1)
    assert w.min() >= 0
    w, path = simple.gis_search(
        order, n, lambda w: float(((w - target) ** 2).sum()), rank_by(target)
    )
    assert path == sorted(path)
    assert w.sum() == pytest.approx(1)


def test_ties_keep_the_soup():
    for search in (
        lambda: simple.gis_grid([2, 0, 1], 3, lambda w: (0.5, 0.0)),
        lambda: simple.gis_search([2, 0, 1], 3, lambda w: 1.0, lambda w: (0.5, 0.0)),
        lambda: simple.greedy([2, 0, 1], 3, lambda w: (0.5, 0.0)),
    ):
        assert search()[0].tolist() == [0, 0, 1]


def test_greedy_takes_what_raises_accuracy_and_nothing_else():
    w, members = simple.greedy([2, 1, 0, 3], 4, rank_by(np.array([0.5, 0, 0.5, 0])))
    assert members == [2, 0]
    assert w.tolist() == [0.5, 0, 0.5, 0]


# --- division


def test_effective_number_of_ingredients():
    alpha = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, -0.5, 0, 0]])
    assert honest.n_eff(alpha) == pytest.approx([1, 4, 2])


@given(st.lists(st.integers(0, 60), min_size=1, max_size=20), st.integers(0, 5))
def test_validation_is_divided_by_whole_records_or_not_at_all(labelled, seed):
    if not sum(labelled):
        with pytest.raises(BadInput, match="valid split: expected labelled nodes"):
            divide(labelled, seed)
        return
    parts = divide(labelled, seed)
    if parts.divided:
        assert sorted(parts.fit + parts.select) == list(range(len(labelled)))
        sums = [sum(labelled[i] for i in part) for part in (parts.fit, parts.select)]
        assert min(sums) >= LEAST
        assert abs(sums[0] - sums[1]) <= max(labelled)
    else:
        assert parts.fit == parts.select == tuple(range(len(labelled)))
    assert divide(labelled, seed) == parts


# --- what a model may bring


@pytest.mark.parametrize("name", ["gcn", "sage", "gin", "gat"])
@pytest.mark.parametrize("hidden", [4, 64])
def test_first_layer_sums_computed_once_change_no_result(name, hidden):
    model = build_model({**CONFIG, **READ, "model": name, "hidden": hidden}, seed=1).eval()
    for made in open_steps(packs()["valid"], model, Schedule(shuffle=False), training=True):
        kept = first_layer_once(model, made)
        assert (kept is made) == (name == "gat")
        found = []
        for one in (made, kept):
            model.zero_grad()
            logits = model(one.x, one.adjs)
            functional.cross_entropy(logits, one.y, ignore_index=-1).backward()
            found.append((logits.detach(), [p.grad.clone() for p in model.parameters()]))
        torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-5)
        for a, b in zip(found[0][1], found[1][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_records_that_do_not_fit_are_made_anew():
    model, _, steps = problem(linear)
    asked = []

    class Counted:
        def __len__(self):
            return len(steps)

        def __getitem__(self, i):
            asked.append(i)
            return steps[i]

    size = step_bytes(steps[0])
    batches = Batches(model, Counted(), 2 * size)
    for _ in range(3):
        for i in range(len(batches)):
            assert torch.equal(batches[i].x, steps[i].x)
    assert sorted(batches.kept) == [0, 1]
    assert batches.kept_bytes == 2 * size
    assert asked.count(0) == asked.count(1) == 1
    assert asked.count(5) == 3


def norms():
    return [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)]


def test_recalibration_is_pytorchs_update_bn_and_brings_accuracy_back():
    model, _, steps = problem(norms, dtype=torch.float32)
    recalibrate(model, steps)
    good = {k: v.clone() for k, v in model.named_buffers()}
    twin = Plain(*norms())
    twin.load_state_dict(model.state_dict())
    twin.net[3] = nn.Dropout(0.0)
    torch.optim.swa_utils.update_bn([s.x for s in steps], twin.net)
    for name, buffer in twin.named_buffers():
        torch.testing.assert_close(good[name], buffer)
    assert not model.training
    assert model.net[1].momentum == 0.1
    x = torch.cat([s.x for s in steps])
    right = model(x, ()).argmax(1)
    model.net[1].running_var.mul_(100)
    model.net[1].running_mean.add_(3)
    assert (model(x, ()).argmax(1) == right).float().mean() < 0.9
    recalibrate(model, steps)
    assert torch.equal(model(x, ()).argmax(1), right)


def test_statistics_are_measured_integers_kept_and_a_single_model_left_alone():
    model, states, steps = problem(norms, dtype=torch.float32)
    for i, state in enumerate(states):
        state["net.1.running_var"] = torch.full((6,), 1.0 + i)
        state["net.1.num_batches_tracked"] = torch.tensor(10 * (i + 1))
    scorer = scorer_of(model, states, steps, calibration=lambda: steps)
    scorer.put(scorer.stack.pick(2))
    found = scorer.stack.state(scorer.stack.pick(2), model)
    assert all(torch.equal(found[k], states[2][k]) for k in found)
    even = scorer.stack.blend(range(4))
    scorer.put(even)
    found = scorer.stack.state(even, model)
    assert found["net.1.num_batches_tracked"] == len(
        steps
    )  # counted while measuring, not a mean of 10 .. 40
    hidden = functional.linear(
        torch.cat([s.x for s in steps]), found["net.0.weight"], found["net.0.bias"]
    )
    torch.testing.assert_close(found["net.1.running_mean"], hidden.mean(0), rtol=1e-4, atol=1e-5)
    without = scorer_of(model, states, steps)
    without.put(without.stack.blend([1, 1, 3]))
    assert model.state_dict()["net.1.num_batches_tracked"] in (20, 40)  # of one ingredient, whole


def test_buffers_come_from_the_ingredient_with_most_of_the_parameters():
    """Of six tensors it has two, the matrices: two thirds of the numbers."""
    model, states, steps = problem(norms, dtype=torch.float32)
    for i, state in enumerate(states):
        state["net.1.running_var"] = torch.full((6,), 1.0 + i)
    scorer = scorer_of(model, states, steps)
    alpha = np.zeros((len(scorer.stack.names), 4))
    for row, p in zip(alpha, scorer.stack.parameters.values(), strict=True):
        row[2 if p.dim() > 1 else 1] = 1.0
    assert alpha.sum(0)[1] > alpha.sum(0)[2]
    scorer.put(alpha)
    assert torch.equal(model.state_dict()["net.1.running_var"], states[2]["net.1.running_var"])


def test_tied_weights_stay_tied_and_have_one_weight():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x, adjs):
            return self.b(self.a(x).tanh())

    models = [Tied().double() for _ in range(3)]
    states = [{k: v.detach().clone() for k, v in m.state_dict().items()} for m in models]
    _, _, steps = problem(linear)
    scorer = scorer_of(models[0], states, steps)
    assert scorer.stack.names == ["a.weight"]
    alpha = np.array([[0.2, 0.3, 0.5]])
    _, d, _ = scorer.gradient(alpha, [0])
    h = 1e-5
    for i in range(3):
        bump = np.eye(3)[i : i + 1] * h
        difference = scorer.gradient(alpha + bump, [0])[0] - scorer.gradient(alpha - bump, [0])[0]
        assert difference / (2 * h) == pytest.approx(d[0, i], rel=1e-5)
    soup = scorer.stack.state(alpha, models[0])
    assert set(soup) == {"a.weight", "b.weight"}
    assert torch.equal(soup["a.weight"], soup["b.weight"])
    models[0].load_state_dict(soup)
    assert models[0].b.weight is models[0].a.weight


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (
            lambda s: s.update({"net.0.weight": s["net.0.weight"] * float("nan")}),
            BadInput,
            "ingredient 1: tensor net.0.weight: expected finite numbers, found 12 of 12",
        ),
        (
            lambda s: s.update({"net.0.bias": torch.zeros(4, dtype=torch.float64)}),
            Conflict,
            (
                r"ingredient 1 and ingredient 0 differ in net.0.bias: expected torch.float64 "
                r"\(3,\), found .* \(4,\)"
            ),
        ),
        (
            lambda s: s.update({"net.0.bias": s["net.0.bias"].float()}),
            Conflict,
            "found torch.float32",
        ),
        (lambda s: s.pop("net.0.bias"), Conflict, "ingredient 1 misses tensor net.0.bias"),
        (
            lambda s: s.update({"more": torch.zeros(1)}),
            Conflict,
            "ingredient 1 has, unlike the model, a tensor more",
        ),
    ],
)
def test_what_cannot_be_mixed_is_refused(change, kind, words):
    model, states, _ = problem(linear)
    change(states[1])
    with pytest.raises(kind, match=words):
        Stack(states, model)


# --- all of it


@pytest.mark.parametrize(
    ("middle", "soupable"),
    [(2.0, True), (3.0, True), (3 + SLACK / 2, True), (3 + 2 * SLACK, False), (np.nan, False)],
)
def test_a_barrier_stands_above_the_worse_end(middle, soupable):
    for ends in ((1.0, 3.0), (3.0, 1.0)):
        assert Barrier(ends, middle).soupable is soupable
    assert Barrier((1.0, 3.0), 2.5).height == 0.5


def test_an_ingredient_behind_a_barrier_is_left_out():
    """A unit swapped in a hidden layer is the same function in another basin."""
    model, states, steps = problem(deep, count=3, spread=0.02, per=60)
    states[0] = {k: v * 3 for k, v in states[0].items()}
    scorer = scorer_of(model, [states[0]] * 3, steps)
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    swapped = dict(states[0])
    swapped["net.0.weight"], swapped["net.0.bias"] = (
        swapped["net.0.weight"][order],
        swapped["net.0.bias"][order],
    )
    swapped["net.2.weight"] = swapped["net.2.weight"][:, order]
    scorer = scorer_of(model, [states[0], swapped, states[0]], steps)
    found = barriers(scorer, 0, [0, 1, 2])
    assert found[1].ends[0] == pytest.approx(found[0].ends[0])
    assert [b.soupable for b in found] == [True, False, True]
    assert found[1].height > 0.05
    assert found[2].height == pytest.approx(0)
    cooked = cook(scorer_of(model, [states[0], swapped], steps))
    assert cooked.chosen == "best"
    assert list(cooked.soups) == ["best", "uniform", "greedy"]
    assert "1 of 2 ingredients lie behind a barrier" in cooked.remarks[0]


def test_noisy_copies_of_the_truth_gain_and_every_method_is_made():
    model, states, steps = problem(linear, count=8, spread=0.6, records=10, per=100)
    cooked = cook(scorer_of(model, states, steps))
    methods = cooked.facts["methods"]
    assert list(methods) == ["best", "uniform", "greedy", "gis", "learned", "signed"]
    assert cooked.chosen != "best"
    assert methods[cooked.chosen]["valid_accuracy"] > methods["best"]["valid_accuracy"]
    assert methods[cooked.chosen]["corrected_p_value"] <= honest.LEVEL
    assert methods["learned"]["fit_loss"] < methods["uniform"]["fit_loss"]
    for found in methods.values():
        assert np.sum(found["alpha"]["weights"], 1) == pytest.approx(1)
    assert set(cooked.seconds) == set(cooked.peaks) == set(methods)


@pytest.mark.parametrize("method", ["auto", "signed", "partition"])
def test_two_runs_are_equal(method):
    found = [cook(scorer_of(*problem(deep, spread=0.1, per=60)), method=method) for _ in range(2)]
    assert found[0].facts == found[1].facts
    for name, made in found[0].soups.items():
        assert np.array_equal(made.alpha, found[1].soups[name].alpha)


def test_a_validation_split_too_small_to_divide_falls_back_with_a_word():
    model, states, steps = problem(linear, records=2, per=18)
    cooked = cook(scorer_of(model, states, steps))
    assert list(cooked.soups) == ["best", "uniform", "greedy"]
    assert "too small to divide" in cooked.remarks[0]
    assert "are left out" in cooked.remarks[0]
    asked = cook(scorer_of(model, states, steps), method="learned")
    assert asked.chosen == "learned"
    assert "too small to divide" in asked.remarks[0]


def test_one_ingredient_is_every_soup():
    model, states, steps = problem(deep, count=1)
    for method in ("auto", "gis", "learned", "signed", "partition"):
        cooked = cook(scorer_of(model, states, steps), method=method)
        assert all(np.array_equal(made.alpha, np.ones((4, 1))) for made in cooked.soups.values()), (
            method
        )
        assert "one ingredient" in cooked.remarks[0]


def test_the_ensemble_and_the_logits_of_records_belong_to_their_nodes():
    model, states, steps = problem(deep, count=3)
    cooked = cook(scorer_of(model, states, steps))
    right = total = 0
    for r in range(len(steps)):
        mean = sum(
            torch.func.functional_call(model, s, (steps[r].x, ())).softmax(1) for s in states
        )
        known = steps[r].y >= 0
        right += int((mean.argmax(1) == steps[r].y)[known].sum())
        total += int(known.sum())
    assert cooked.facts["ensemble"]["valid_accuracy"] == pytest.approx(right / total)


def test_lines_of_the_landscape_go_from_the_soup_to_the_best_ingredients():
    model, states, steps = problem(deep, count=3)
    cooked = cook(scorer_of(model, states, steps))
    every = range(len(steps))  # fewer outputs than a race: it runs on all
    start = cooked.chosen if cooked.chosen != "best" else "uniform"
    names = [name for name, _ in model.named_parameters()]
    soup = {n: sum(w * s[n] for w, s in zip(row, states, strict=True))
            for n, row in zip(names, cooked.soups[start].alpha, strict=True)}  # fmt: skip
    assert [line["from"] for line in cooked.facts["landscape"]] == [start] * 3
    for line in cooked.facts["landscape"]:
        end = states[int(line["to"].split()[1])]
        for at, loss in zip(line["at"], line["loss"], strict=True):
            mixed = {n: (1 - at) * soup[n] + at * end[n] for n in names}
            total = sum(
                float(
                    torch.nn.functional.cross_entropy(
                        torch.func.functional_call(model, mixed, (steps[r].x, ())),
                        steps[r].y,
                        ignore_index=-1,
                        reduction="sum",
                    )
                )
                for r in every
            )
            known = sum(int((steps[r].y >= 0).sum()) for r in every)
            assert loss == pytest.approx(total / known)
    best = cooked.facts["landscape"][0]["to"]
    losses = [i["valid_accuracy"] for i in cooked.facts["ingredients"]]
    assert losses[int(best.split()[1])] == max(losses)


def test_methods_are_judged_by_halves_they_have_not_seen_and_their_own_soup_is_made_on_all():
    model, states, steps = problem(deep, count=3, spread=0.1, per=60)
    scorer = scorer_of(model, states, steps)
    cooked = cook(scorer)
    parts = divide([int((s.y >= 0).sum()) for s in steps])
    every = range(len(steps))
    assert sorted(parts.fit + parts.select) == list(every)
    ranking = Ranking(scorer_of(model, states, steps), lambda _: None)

    def fitted(records):
        return Methods(scorer_of(model, states, steps), ranking, records, 0)

    def on(alpha, records):
        soup = scorer.stack.state(alpha, model)
        return [
            Outcome.of(torch.func.functional_call(model, soup, (steps[r].x, ())), steps[r].y)
            for r in records
        ]

    for name, made in cooked.soups.items():
        first, second = fitted(parts.fit).make(name).alpha, fitted(parts.select).make(name).alpha
        found = cooked.facts["methods"][name]
        judged = Outcome.joined(on(first, parts.select) + on(second, parts.fit))
        seen = Outcome.joined(on(first, parts.fit) + on(second, parts.select))
        assert (found["cross_fitted_accuracy"], found["cross_fitted_loss"]) == (
            judged.accuracy,
            pytest.approx(judged.loss),
        )
        assert (found["fit_accuracy"], found["fit_loss"]) == (
            seen.accuracy,
            pytest.approx(seen.loss),
        )
        assert np.array_equal(made.alpha, fitted(every).make(name).alpha)
        assert found["valid_accuracy"] == Outcome.joined(on(made.alpha, every)).accuracy
    best = max(
        cooked.facts["ingredients"], key=lambda one: (one["valid_accuracy"], -one["valid_loss"])
    )
    assert cooked.facts["methods"]["best"]["valid_accuracy"] == best["valid_accuracy"]


def test_a_step_without_labels_gives_no_gradient():
    model, states, steps = problem(linear)
    blind = step(steps[0].x, torch.full_like(steps[0].y, -1))
    scorer = Scorer(model, Stack(states, model), Batches(model, [blind], 1 << 20))
    loss, d, _ = scorer.gradient(scorer.stack.blend(range(4)), [0])
    assert loss == 0
    assert not d.any()
