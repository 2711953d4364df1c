"""A load plan executed gives the features that gathering row by row gives, from exactly the rows it
planned to read."""

import json

import numpy as np
import pytest
import torch

from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.records import Records
from stockpot.stages.loadplan import STAGE
from stockpot.stages.loadplan.load_plan import ARRAYS, LoadPlan
from stockpot.stages.loadplan.size import cache_rows
from stockpot.stages.order import STAGE as ORDER
from tests.belady_tools import planned_reads
from tests.loaders import read_steps, record_batches
from tests.memory import MemoryReader, run_stage
from tests.packs import packed

KINDS = {
    "fp32": {},
    "directed": {"directed": True, "weighted": True},
    "bits": {"binary": True, "sparse": True},
    "sparse": {"binary": True, "sparse": True, "codec": "lossless", "features": 900},
    "coded": {"codec": "pq2"},
    "tiers": {"codec": "sq2", "tier": (0.3, 4)},
}


def reader_of(reader, digest="4" * 32):
    made = MemoryReader(reader.arrays, reader.facts, reader.root, key=reader.key, digest=digest)
    made.parents = reader.parents
    return made


def planned(root, *, method="overlap", window=0, cache=0.5, rounds=1, **options):
    """(pack, order, plan) of a small graph, features gathered."""
    pack, inputs = packed(
        root, gather=True, records={"records": 9, "outputs": 60, "rounds": rounds}, **options
    )
    given = {"records": inputs["records"], "graph": inputs["graph"]}
    order = run_stage(
        ORDER,
        ORDER.resolve({"order.method": method, "order.window": window, "order.mix": 1}, {}),
        given,
        root / "order",
    )
    inputs = {"records": reader_of(pack), "order": order, "graph": inputs["graph"]}
    params = STAGE.resolve(
        {"order.cache": cache}, {role: one.facts for role, one in inputs.items()}
    )
    plan = run_stage(STAGE, params, inputs, root / "plan")
    order.digest, plan.digest = "5" * 32, "6" * 32
    return inputs["records"], order, plan


def steps_of(pack, order, plan=None, **options):
    return read_steps(pack, order, loads=plan, **({"layers": 2, "prefetch": 0} | options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_step", [1, 3])
def test_features_are_those_of_the_plain_gather(tmp_path, kind, per_step):
    pack, order, plan = planned(tmp_path, **KINDS[kind])
    plain = steps_of(pack, order, plan, per_step=per_step)
    assert plain.plan(0) == steps_of(pack, order, per_step=per_step).plan(0)
    held = steps_of(pack, order, plan, per_step=per_step, prefetch=2, coded=True)
    for epoch in (0, 3):
        held.set_epoch(epoch)
        mine, theirs = list(held), [plain.make(planned) for planned in plain.plan(epoch)]
        assert len(mine) == len(theirs) == len(held)
        for a, b in zip(mine, theirs, strict=True):
            assert torch.equal(a.n_id, b.n_id)
            assert torch.equal(a.x, b.x)
    assert held.rows_read == 2 * sum(plan.facts["read"])
    assert held.rows_read < 2 * sum(plan.facts["rows"])


@pytest.mark.parametrize(
    ("method", "window", "rounds"), [("overlap", 3, 1), ("shuffle", 0, 2), ("label", 0, 2)]
)
def test_epochs_use_the_planned_orders_in_turn(tmp_path, method, window, rounds):
    pack, order, plan = planned(tmp_path, method=method, window=window, rounds=rounds)
    epochs = plan.facts["epochs"]
    assert epochs == (rounds if method == "label" else 4)
    whole = Records.from_reader(pack)
    for seed in (0, 1):
        steps = steps_of(pack, order, plan, seed=seed)
        seen = []
        for epoch in range(2 * epochs):
            steps.set_epoch(epoch)
            before = steps.rows_read
            seen.append([records[0] for records, _ in steps.plan(epoch)])
            assert {i // 9 for i in seen[-1]} == {epoch % rounds}
            for i, step in zip(seen[-1], steps, strict=True):
                assert torch.equal(
                    step.x, torch.from_numpy(whole[i].codes.view("<f4"))[: len(step.x)]
                )
            assert steps.rows_read - before == plan.facts["read"][(epoch + seed * rounds) % epochs]
        assert seen[:epochs] == seen[epochs:]
        assert len({tuple(one) for one in seen}) == epochs


def test_the_plan_reads_what_the_best_policy_reads(tmp_path):
    pack, _, plan = planned(tmp_path, method="shuffle", cache=90)
    records = Records.from_reader(pack)
    n_id = [records[i].n_id for i in range(len(records))]
    ptr = np.cumsum([0, *map(len, n_id)])
    for p in range(plan.facts["epochs"]):
        order = plan.array(f"order-{p:02d}")
        assert sorted(order.tolist()) == list(range(9))
        expected = planned_reads(np.concatenate(n_id), ptr, order, 200, 90)
        assert np.array_equal(np.diff(plan.array(f"read_ptr-{p:02d}")), expected)
        assert plan.array(f"slot-{p:02d}").max() < 90


@pytest.mark.parametrize("first", [1, 4, 8, 9])
def test_a_resumed_epoch_reads_what_is_held_by_then(tmp_path, first):
    pack, order, plan = planned(tmp_path, cache=70)
    full = [step.x for step in steps_of(pack, order, plan)]
    part = steps_of(pack, order, plan)
    walk = iter(part)
    for _ in range(first):
        next(walk)
    state = json.loads(json.dumps(part.state_dict()))
    rest = steps_of(pack, order, plan)
    rest.load_state_dict(state)
    found = [step.x for step in rest]
    assert all(
        torch.equal(a, b) for a, b in zip(found, full[first % 9 :], strict=True)
    )  # after the last: all again
    assert rest.rows_read <= plan.facts["read"][0]
    nodes, slots = LoadPlan.from_reader(plan).epoch(0, 0).resident(first)
    assert len(set(nodes.tolist())) == len(nodes) == len(set(slots.tolist()))
    with pytest.raises(Conflict, match="order_key"):
        steps_of(pack, order).load_state_dict(state)


def test_other_ways_to_read_gather_the_same_rows(tmp_path):
    pack, order, plan = planned(tmp_path)
    full = list(steps_of(pack, order, plan))
    alone = steps_of(pack, order, plan)
    assert all(torch.equal(alone[i].x, full[i].x) for i in (4, 0, 8))
    for rank in range(2):
        ranks = steps_of(pack, order, plan, rank=rank, world_size=2)
        assert all(torch.equal(a.x, b.x) for a, b in zip(ranks, full[rank::2], strict=True))
        assert ranks.rows_read == 0
    walks = [iter(alone), iter(alone)]  # each holds rows of its own
    for k in range(9):
        assert all(torch.equal(next(walk).x, full[k].x) for walk in walks)
    file = steps_of(pack, order, plan, shuffle=False)
    assert sorted(map(float, (s.x.sum() for s in file))) == sorted(
        map(float, (s.x.sum() for s in full))
    )


def test_batches_of_a_script_follow_the_plan(tmp_path):
    pack, _, plan = planned(tmp_path)
    options = {"store_key": "k", "split": "train", "loads": LoadPlan.from_reader(plan)}
    batches = record_batches(Records.from_reader(pack), **options)
    whole = Records.from_reader(pack)
    for (ids, _), batch in zip(batches.plan(0), batches, strict=True):
        assert np.array_equal(batch.x.numpy(), whole[ids[0]].codes.view("<f4"))
    assert batches.rows_read == plan.facts["read"][0]


def test_the_same_inputs_give_the_same_plan(tmp_path):
    found = [planned(tmp_path / str(k), window=2)[2] for k in range(2)]
    assert found[0].arrays.keys() == {f"{name}-{p:02d}" for name in ARRAYS for p in range(4)}
    for name, values in found[0].arrays.items():
        assert values.tobytes() == found[1].arrays[name].tobytes()


def test_a_plan_of_other_records_is_refused(tmp_path):
    pack, order, _ = planned(tmp_path / "a")
    plan = planned(tmp_path / "b", seed=1)[2]
    with pytest.raises(Conflict, match=r"is not record 1 of the epoch"):
        list(steps_of(pack, order, plan))
    two = planned(tmp_path / "c", rounds=2)[2]
    with pytest.raises(Conflict, match="it has 2 rounds"):
        list(steps_of(pack, order, two))


def facts(**changes):
    packed = {"gather_bytes": 1, "max_rows": 300, "num_features": 128} | changes
    return {"records": packed, "graph": {"num_nodes": 1000}, "order": {"method": "label"}}


def test_a_cache_below_the_largest_record_is_refused_with_the_size_that_serves():
    with pytest.raises(
        BadInput, match="a cache of 100 rows does not hold the largest record, of 300 rows"
    ) as error:
        STAGE.resolve({"order.cache": 0.1}, facts())
    assert "the smallest useful size is 300" in error.value.message
    assert "--set order.cache=300" in error.value.fix
    assert STAGE.resolve({"order.cache": 300.0}, facts()).cache == 300
    packed = facts()
    del packed["records"]["gather_bytes"]
    with pytest.raises(BadInput, match="found features packed beside every row") as error:
        STAGE.resolve({"order.cache": 0.5}, packed)
    assert "features.layout=gather" in error.value.fix


@pytest.mark.parametrize("value", [-0.1, 1.5, "0%", "101%", "x%", "lots", "0", "-5", ""])
def test_sizes_that_mean_nothing_are_refused(value):
    with pytest.raises(
        BadInput, match=r"order\.cache: expected a share of the nodes, rows or bytes"
    ):
        cache_rows(value, 1000, 512)


def test_sizes():
    assert [cache_rows(v, 1000, 512) for v in (0.3, "30 %", 300, 300.0, "153600", "153.6kB")] == [
        300
    ] * 6
    assert (
        cache_rows("10GB", 1000, 512)
        == cache_rows(1, 1000, 512)
        == cache_rows(10**6, 1000, 512)
        == 1000
    )
