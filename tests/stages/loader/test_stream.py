import json
import threading

import numpy as np
import psutil
import pytest
import torch

from stockpot.stages.errors import BadInput, Conflict, Corrupt
from stockpot.stages.order import STAGE as ORDER
from stockpot.stages.order.epoch_order import Order
from tests.loaders import read_steps, record_steps
from tests.memory import MemoryReader, run_stage
from tests.packs import features, packed


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return packed(
        tmp_path_factory.mktemp("pack"), records={"outputs": 84, "records": 14}, shard_bytes=20000
    )


@pytest.fixture(scope="module")
def pack(made):
    return made[0]


@pytest.fixture(scope="module")
def order():
    rng = np.random.default_rng(0)
    distance = rng.random((14, 14))
    tour = rng.permutation(14).astype(np.int32)
    return MemoryReader(
        {"tour": tour, "distance": distance + distance.T}, {"method": "label"}, key="o" * 32
    )


def steps_of(pack, **options):
    return read_steps(pack, **({"layers": 2, "adj": "norm"} | options))


def ids(steps):
    return [tuple(step.input_id.tolist()) for step in steps]


def loaders():
    return [t for t in threading.enumerate() if t.name == "stockpot-prefetch"]


@pytest.mark.parametrize("per_step", [1, 3])
def test_a_step_holds_its_nodes_features_and_labels(made, per_step):
    pack, inputs = made
    x, y = features(inputs["graph"]), inputs["graph"].arrays["y"]
    seen = []
    for step in steps_of(pack, per_step=per_step, layers=3):
        np.testing.assert_array_equal(step.x.numpy(), x[step.n_id.numpy()])
        np.testing.assert_array_equal(step.y.numpy(), y[step.n_id.numpy()[: step.batch_size]])
        assert step.x.dtype == torch.float32
        assert step.y.dtype == step.n_id.dtype == step.input_id.dtype == torch.int64
        ends = np.cumsum(step.num_sampled_nodes)
        assert len(ends) == 4
        assert ends[-1] == len(step.x)
        assert step.num_sampled_nodes[0] == step.batch_size
        for k, adj in enumerate(step.adjs):
            assert tuple(adj.csr.shape) == (ends[2 - k], ends[3 - k])
            assert adj.csr.layout == adj.t_csr.layout == torch.sparse_csr
            assert torch.equal(adj.csr.to_dense().T, adj.t_csr.to_dense())
        seen += step.input_id.tolist()
    assert sorted(seen) == list(range(84))


def test_a_step_brings_the_transposes_asked_for(made):
    pack, _ = made
    whole = next(iter(steps_of(pack, layers=3, shuffle=False)))
    for kind in ("none", "inner", "places"):
        step = next(iter(steps_of(pack, layers=3, shuffle=False, transposes=kind)))
        there = [adj.t_csr is not None for adj in step.adjs]
        assert there == {"none": [False] * 3, "inner": [False, True, True]}.get(kind, [True] * 3)
        for mine, full in zip(step.adjs, whole.adjs, strict=True):
            assert torch.equal(mine.csr.to_dense(), full.csr.to_dense())
            assert mine.t_csr is None or torch.equal(mine.t_csr.to_dense(), full.t_csr.to_dense())
            assert (mine.places is None) == (kind != "places")
            if mine.places is not None:
                assert torch.equal(mine.csr.values()[mine.places.long()], mine.t_csr.values())


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("stop", ["before", "middle", "end"])
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("per_step", [1, 4])
def test_first_and_rest_are_the_whole(pack, order, prefetch, stop, epoch, per_step):
    def fresh():
        return steps_of(pack, order=order, per_step=per_step, prefetch=prefetch, seed=3)

    whole = fresh()
    whole.set_epoch(epoch)
    full = ids(whole)
    count = {"before": 0, "middle": 2, "end": len(full)}[stop]
    first = fresh()
    first.set_epoch(epoch)
    taken = []
    if count:
        for step in first:
            taken.append(tuple(step.input_id.tolist()))
            if len(taken) == count:
                break
    state = json.loads(json.dumps(first.state_dict()))
    assert (state["epoch"], state["step"]) == ((epoch + 1, 0) if stop == "end" else (epoch, count))
    rest = fresh()
    rest.load_state_dict(state)
    if stop != "end":
        rest.set_epoch(epoch)  # the epoch it stands in keeps its place
        assert taken + ids(rest) == full
    assert ids(rest) == ids(whole) != full  # the next epoch
    assert not loaders()


def test_a_training_goes_on_where_its_inputs_were_rebuilt_under_other_keys(pack, order):
    def other(reader, digest=None):
        twin = MemoryReader(
            reader.arrays, reader.facts, reader.root, key="2" * 32, digest=digest or reader.digest
        )
        assert twin.key != reader.key
        return twin

    state = steps_of(pack, order=order).state_dict()
    steps_of(other(pack), order=other(order)).load_state_dict(state)
    for changed in ({"reader": other(pack, "e" * 32)}, {"order": other(order, "e" * 32)}):
        with pytest.raises(Conflict, match=f"_key is .*, but '{'e' * 32}' here"):
            steps_of(changed.pop("reader", pack), **({"order": order} | changed)).load_state_dict(
                state
            )


def test_resumed_twice_in_one_epoch(pack):
    full = ids(steps_of(pack, seed=1))
    taken, state = [], steps_of(pack, seed=1).state_dict()
    for count in (3, 4, 100):
        part = steps_of(pack, seed=1)
        part.load_state_dict(json.loads(json.dumps(state)))
        for k, step in enumerate(part, 1):
            taken.append(tuple(step.input_id.tolist()))
            if k == count:
                break
        state = part.state_dict()
    assert taken == full
    assert (state["epoch"], state["step"]) == (1, 0)


def place(steps):
    state = steps.state_dict()
    return state["epoch"], state["step"]


def epochs_of(pack, count, **options):
    """The steps of each of the first epochs, by number."""
    steps = steps_of(pack, **options)
    found = []
    for epoch in range(count):
        steps.set_epoch(epoch)
        found.append(ids(steps))
    return found


@pytest.mark.parametrize("prefetch", [0, 2])
def test_every_iteration_is_the_next_epoch(pack, prefetch):
    expected = epochs_of(pack, 6)
    assert len({tuple(one) for one in expected}) == 6
    steps = steps_of(pack, prefetch=prefetch)
    iter(steps)  # nobody reads it: no epoch is taken
    assert [ids(steps), ids(steps)] == expected[:2]
    for _ in zip(range(3), steps, strict=False):
        pass
    assert place(steps) in {(2, 3), (2, 4)}  # zip may have asked for one more
    assert ids(steps) == expected[3]  # what was left in the middle is not gone back to
    assert place(steps) == (4, 0)
    steps.set_epoch(1)
    assert place(steps) == (1, 0)
    assert [ids(steps), ids(steps)] == expected[1:3]


def test_of_two_iterations_at_once_each_is_an_epoch_and_the_later_one_is_the_state(pack):
    expected = epochs_of(pack, 3)
    steps = steps_of(pack)
    pairs = [
        [tuple(step.input_id.tolist()) for step in pair] for pair in zip(steps, steps, strict=True)
    ]
    assert [list(one) for one in zip(*pairs, strict=True)] == expected[:2]
    steps.set_epoch(0)
    first, second = iter(steps), iter(steps)
    next(first), next(second), next(first), next(first)
    assert place(steps) == (1, 1)
    steps.set_epoch(2)
    next(first), next(second)
    assert place(steps) == (2, 0)
    assert ids(steps) == expected[2]


def test_after_its_last_step_an_epoch_is_over(pack):
    """Lightning asks for no more once it has the last step; a rank without steps has no last
    one."""
    steps = steps_of(pack, per_step=7)
    iterator = iter(steps)
    assert place(steps) == (0, 0)
    next(iterator)
    assert place(steps) == (0, 1)
    next(iterator)
    assert place(steps) == (1, 0)
    assert list(iterator) == []
    assert place(steps) == (1, 0)
    idle = steps_of(pack, per_step=14, rank=1, world_size=2)
    assert len(idle) == 0
    assert [list(idle), list(idle)] == [[], []]
    assert place(idle) == (2, 0)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"per_step": 2}, "per_step"),
        ({"seed": 1}, "seed"),
        ({"order": None}, "order_key"),
        ({"shuffle": False}, "order_key"),
        ({"world_size": 3}, "world_size"),
    ],
)
def test_a_state_of_other_options_is_refused_naming_both(pack, order, change, name):
    state = steps_of(pack, order=order).state_dict()
    other = steps_of(pack, **({"order": order} | change))
    with pytest.raises(
        Conflict, match=f"its {name} is {state[name]!r}, but {other.state_dict()[name]!r} here"
    ):
        other.load_state_dict(state)


FIELDS = (
    "format",
    "store_key",
    "order_key",
    "split",
    "seed",
    "epoch",
    "step",
    "per_step",
    "world_size",
)
VALUES = (None, "1", True, False, 1.0, 0.0, -1, 15, 2**31, 10**30, float("nan"), [1], {})


@pytest.mark.parametrize("name", FIELDS)
def test_a_state_with_a_field_that_is_missing_or_out_of_range_is_refused_by_name(pack, name):
    steps = steps_of(pack, seed=1)
    state = steps.state_dict()
    assert tuple(state) == FIELDS
    good = [2**31 - 1] if name == "epoch" else [14] if name == "step" else []
    good += [15] if name == "epoch" else []
    for value in (*VALUES, *good):
        changed = steps_of(pack, seed=1)
        before = changed.state_dict()
        if value in good and type(value) is int:
            changed.load_state_dict(state | {name: value})
            continue
        with pytest.raises(
            Conflict, match=rf"loader state: (its|expected) {name} .*; fix: "
        ) as refused:
            changed.load_state_dict(state | {name: value})
        assert "\n" not in str(refused.value)
        assert changed.state_dict() == before
    del state[name]
    with pytest.raises(Conflict, match=rf"loader state: (its|expected) {name} .*None"):
        steps.load_state_dict(state)


@pytest.mark.parametrize("state", [None, [], "state", 3])
def test_what_is_no_state_is_refused(pack, state):
    with pytest.raises(Conflict, match=r"expected what state_dict\(\) returned, found"):
        steps_of(pack).load_state_dict(state)


@pytest.mark.parametrize("epoch", [-1, True, 1.0, "1", None, 2**31])
def test_an_epoch_out_of_range_is_refused(pack, epoch):
    with pytest.raises(
        BadInput, match="epoch: expected a whole number from 0, below 2147483648, found"
    ):
        steps_of(pack).set_epoch(epoch)


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"rank": 3, "world_size": 15}, "drop_last=False"),
        ({"per_step": 5, "world_size": 3}, "per_step=4"),
        ({"per_step": 15}, "per_step=14"),
    ],
)
def test_more_ranks_than_whole_steps_are_refused(pack, options, fix):
    steps = steps_of(pack, drop_last=True, **options)
    for ask in (len, list, lambda s: s.plan(0)):
        with pytest.raises(
            BadInput,
            match=f"14 records an epoch for per_step .*: no step would be left; fix: {fix}",
        ):
            ask(steps)
    assert len(steps_of(pack, **options)) in (0, 1)


def test_epochs_differ_and_repeat(pack, order):
    for options in ({}, {"order": MemoryReader(order.arrays, {"method": "sample"}, key="s")}):
        steps = steps_of(pack, **options)
        epochs = []
        for epoch in (0, 1, 0):
            steps.set_epoch(epoch)
            epochs.append(ids(steps))
        assert epochs[0] == epochs[2] != epochs[1]
        assert sorted(epochs[0]) == sorted(epochs[1])
    expected = np.random.default_rng((0, 1)).permutation(14)
    steps = steps_of(pack)
    assert [records for (records,), _ in steps.plan(1)] == expected.tolist()
    assert [
        records for (records,), _ in steps_of(pack, shuffle=False, order=order).plan(5)
    ] == list(range(14))


def test_the_order_artifact_decides(pack, order):
    from stockpot.stages.order.epoch import epoch_order

    tour, distance = order.arrays["tour"], order.arrays["distance"]
    for method in ("label", "sample", "shuffle"):
        reader = MemoryReader(order.arrays, {"method": method}, key="o")
        found = [r for (r,), _ in steps_of(pack, order=reader, seed=2).plan(4)]
        assert found == epoch_order(method, tour, distance, 14, 2, 4).tolist()
    short = Order("short", "label", tour[:5])
    with pytest.raises(Conflict, match=r"orders 5 records, but 1+ has 14"):
        record_steps(
            steps_of(pack).store, store_key="1" * 32, split="train", order=short, layers=1
        ).plan(0)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("per_step", [1, 3])
def test_ranks_share_the_steps(pack, drop_last, per_step):
    alone = steps_of(pack, per_step=per_step, drop_last=drop_last).plan(1)
    world = [
        steps_of(pack, per_step=per_step, drop_last=drop_last, rank=r, world_size=4)
        for r in range(4)
    ]
    plans = [steps.plan(1) for steps in world]
    assert [len(p) for p in plans] == [len(steps) for steps in world]
    records = [plans[k % 4][k // 4][0] for k in range(sum(map(len, plans)))]
    assert records == [r for r, _ in alone][: len(records)]
    if drop_last:
        assert len({len(p) for p in plans}) == 1
        assert all(len(r) == per_step for r in records)
    else:
        assert len(records) == len(alone)
    outputs = world[0].store.num_outputs
    for k, (_, total) in enumerate(plans[0]):
        together = [p[k][0] for p in plans if k < len(p)]
        assert total == sum(int(outputs[list(r)].sum()) for r in together)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_errors_arrive_where_the_step_would_have(pack, prefetch):
    calls = []

    def fail(step):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("third step")
        return step

    iterator = iter(steps_of(pack, transform=fail, prefetch=prefetch))
    assert next(iterator).batch_size == next(iterator).batch_size == 6
    with pytest.raises(RuntimeError, match="third step"):
        next(iterator)
    assert not loaders()


def test_an_early_break_leaves_no_thread(pack):
    for _ in range(20):
        for _step in steps_of(pack, prefetch=4):
            break
    iterator = iter(steps_of(pack, prefetch=1))
    next(iterator)
    assert loaders()
    iterator.close()
    assert not loaders()


def test_no_more_is_prepared_than_asked_for(pack):
    begun = []
    iterator = iter(steps_of(pack, prefetch=2, transform=lambda s: begun.append(1) or s))
    next(iterator)
    deadline = threading.Event()
    deadline.wait(0.2)
    assert len(begun) <= 3  # one handed out, two ready or at work
    iterator.close()


def test_damage_while_streaming_is_a_typed_error(tmp_path):
    pack, _ = packed(tmp_path)
    path = pack.path("shard-00000.arrow")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=r"shard-00000\.arrow: record"):
        list(steps_of(pack))
    assert not loaders()


def test_other_types_and_transforms(pack):
    step = next(iter(steps_of(pack, dtype=torch.float64, transform=lambda s: (s, "seen"))))
    assert step[1] == "seen"
    assert step[0].x.dtype == step[0].adjs[0].csr.dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"per_step": 0}, "per_step: expected a whole number from 1, found 0"),
        ({"layers": 1.5}, "layers: expected"),
        ({"rank": 2, "world_size": 2}, "rank: expected 0 <= rank < world_size"),
        ({"rank": -1}, "rank: expected a whole number from 0, found -1"),
        ({"rank": True, "world_size": 2}, "rank: expected a whole number from 0, found True"),
        ({"world_size": 0}, "world_size: expected a whole number from 1, found 0"),
        ({"world_size": 2.0}, "world_size: expected a whole number from 1, found 2.0"),
        ({"adj": "gcn"}, "adj: expected plain"),
        ({"transposes": "first"}, "transposes: expected none | inner | all | places, found first"),
    ],
)
def test_options_outside_their_range(pack, options, match):
    with pytest.raises(BadInput, match=match):
        steps_of(pack, **options)


def test_memory_stays_flat_over_epochs(pack):
    steps = steps_of(pack, per_step=2)

    def epochs(count):
        for epoch in range(count):
            steps.set_epoch(epoch)
            for _ in steps:
                pass
        return psutil.Process().memory_info().rss

    before = epochs(10)
    after = epochs(50)
    assert after - before < 8 << 20, f"grew by {(after - before) / 1e6:.1f} MB"


@pytest.fixture(scope="module")
def turns(tmp_path_factory):
    """Three rounds of 7 records, in several files, and their order."""
    records = {"outputs": 42, "records": 7, "rounds": 3}
    pack, inputs = packed(tmp_path_factory.mktemp("turns"), records=records, shard_bytes=20000)
    assert pack.facts["shards"] > 1
    assert (pack.facts["rounds"], pack.facts["records"], pack.facts["outputs"]) == (3, 21, 126)
    values = {"order.method": "label", "order.window": 0, "order.mix": 1}
    given = {"records": inputs["records"], "graph": inputs["graph"]}
    orders = {}
    for method in ("label", "sample", "shuffle"):
        params = ORDER.resolve({**values, "order.method": method}, {})
        orders[method] = run_stage(ORDER, params, given, tmp_path_factory.mktemp(method))
    return pack, orders


@pytest.mark.parametrize("method", ["label", "sample", "shuffle", None, "file"])
@pytest.mark.parametrize("per_step", [1, 2])
def test_an_epoch_reads_its_round_and_every_output_once(turns, method, per_step):
    pack, orders = turns
    options = {
        "order": orders.get(method),
        "shuffle": method != "file",
        "per_step": per_step,
        "seed": 1,
    }
    steps = steps_of(pack, **options)
    assert len(steps) == -(-7 // per_step)
    plans = [steps.plan(epoch) for epoch in range(7)]
    for epoch, plan in enumerate(plans):
        assert len(plan) == len(steps)
        records = sorted(r for step, _ in plan for r in step)
        first = epoch % 3 * 7
        assert records == list(range(first, first + 7))
        assert sum(outputs for _, outputs in plan) == 42
        assert plan == steps_of(pack, **options).plan(epoch)
    for epoch in range(3):
        steps.set_epoch(epoch)
        assert sorted(i for step in ids(steps) for i in step) == list(range(42))
    assert (plans[0] == plans[3]) == (method == "file")
    assert [len(p) for p in (steps_of(pack, **options, drop_last=True).plan(4),)] == [7 // per_step]
    world = [steps_of(pack, **options, rank=r, world_size=2).plan(5) for r in range(2)]
    assert sorted(r for plan in world for step, _ in plan for r in step) == list(range(14, 21))


@pytest.mark.parametrize("method", ["label", "sample", "shuffle"])
@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_resume_in_the_middle_of_a_later_round(turns, method, epoch):
    pack, orders = turns

    def fresh():
        return steps_of(pack, order=orders[method], per_step=2, seed=3)

    whole, first, rest = fresh(), fresh(), fresh()
    for steps in (whole, first):
        steps.set_epoch(epoch)
    taken = []
    for step in first:
        taken.append(tuple(step.input_id.tolist()))
        if len(taken) == 2:
            break
    rest.load_state_dict(json.loads(json.dumps(first.state_dict())))
    rest.set_epoch(epoch)
    assert taken + ids(rest) == ids(whole)
    for steps in (rest, whole):
        steps.set_epoch(epoch + 1)
    assert ids(rest) == ids(whole)


def test_an_order_of_other_rounds_is_refused(turns, order, pack):
    with pytest.raises(Conflict, match=r"it has 1 rounds, but 0+ has 3"):
        steps_of(turns[0], order=order).plan(0)
    with pytest.raises(Conflict, match=r"it has 3 rounds, but 0+ has 1"):
        steps_of(pack, order=turns[1]["label"]).plan(0)
