"""A plain loop, torch's DataLoader and Lightning's Trainer read the same batches, epoch by
epoch."""

import gc
import itertools
import json
import multiprocessing
import pickle
import warnings

import pytest
import torch
from torch.utils.data import ChainDataset, DataLoader, IterableDataset

from stockpot import open_batches
from stockpot.stages.errors import BadInput, Conflict
from stockpot.stages.loader.dataset import _DATASETS
from tests.loaders import record_batches
from tests.memory import MemoryReader, run_stage
from tests.packs import packed

EPOCHS = 7
WAYS = {
    "one process": {"num_workers": 0},
    "two workers": {"num_workers": 2},
    "two workers that persist": {"num_workers": 2, "persistent_workers": True},
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("pack"), records={"outputs": 84, "records": 14})[0]


def batches(pack, **options):
    return open_batches(pack, **({"seed": 1, "per_step": 2} | options))


def ids(steps):
    return [tuple(batch.input_id.tolist()) for batch in steps]


@pytest.fixture(scope="module")
def expected(pack):
    """Batches of each epoch, by a plain loop."""
    plain = batches(pack)
    found = [ids(plain) for _ in range(EPOCHS)]
    assert len({tuple(epoch) for epoch in found}) == EPOCHS
    return found


def loader_of(dataset, way):
    return DataLoader(dataset, batch_size=None, **way)


@every_way
def test_every_iteration_is_the_next_epoch(pack, expected, way):
    loader = loader_of(batches(pack).dataset(), way)
    assert len(loader) == 7
    assert [ids(loader) for _ in range(3)] == expected[:3]


@every_way
def test_what_is_left_in_the_middle_is_an_epoch_too(pack, expected, way):
    dataset = batches(pack).dataset()
    loader = loader_of(dataset, way)
    for _, batch in zip(range(2), loader, strict=False):
        first = tuple(batch.input_id.tolist())
    assert first == expected[0][1]
    assert [ids(loader), ids(loader)] == expected[1:3]
    assert dataset.state_dict(7)["epoch"] == 3


@every_way
def test_epochs_are_chosen_and_states_loaded_also_for_workers_that_persist(pack, expected, way):
    dataset = batches(pack).dataset()
    loader = loader_of(dataset, way)
    assert ids(loader) == expected[0]
    dataset.set_epoch(4)
    assert [ids(loader), ids(loader)] == expected[4:6]
    state = json.loads(json.dumps(dataset.state_dict(3)))
    assert (state["epoch"], state["step"]) == (5, 3)
    for again in (dataset, batches(pack).dataset()):
        again.load_state_dict(state)
        again.set_epoch(5)  # it stands there: its place is kept
        loader = loader if again is dataset else loader_of(again, way)
        assert ids(loader) == expected[5][3:]
        assert ids(loader) == expected[6]
    plain = batches(pack)
    plain.load_state_dict(state)
    assert ids(plain) == expected[5][3:]


@pytest.mark.parametrize("workers", [0, 2])
def test_two_iterations_at_once_are_two_epochs(pack, expected, workers):
    loader = loader_of(batches(pack).dataset(), {"num_workers": workers})
    pairs = [
        [tuple(batch.input_id.tolist()) for batch in pair]
        for pair in zip(loader, loader, strict=True)
    ]
    assert [list(one) for one in zip(*pairs, strict=True)] == expected[:2]
    first = iter(loader)
    taken = [tuple(next(first).input_id.tolist())]
    second = ids(loader)
    assert taken + ids(first) == expected[2]
    assert second == expected[3]


def test_loaders_of_one_dataset_take_its_epochs_in_turn(pack, expected):
    dataset = batches(pack).dataset()
    ways = [WAYS["two workers that persist"], WAYS["one process"], WAYS["two workers"]]
    loaders = [loader_of(dataset, way) for way in ways]
    found = [ids(loader) for loader in itertools.islice(itertools.cycle(loaders), EPOCHS)]
    assert found == expected
    other = batches(pack).dataset()
    assert (
        ids(loader_of(other, WAYS["two workers"])) == expected[0]
    )  # each dataset has a place of its own


class Doubled(IterableDataset):
    """A user's own dataset around another."""

    def __init__(self, inner):
        self.inner = inner

    def __iter__(self):
        for batch in self.inner:
            yield batch
            yield batch


def test_a_dataset_inside_another_counts_on(pack, expected):
    for outer, times in (
        (Doubled(batches(pack).dataset()), 2),
        (ChainDataset([batches(pack).dataset()]), 1),
    ):
        loader = loader_of(outer, {"num_workers": 1})
        for epoch in range(2):
            assert ids(loader) == [one for one in expected[epoch] for _ in range(times)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_of_another_kind_are_told_what_serves(pack):
    dataset = batches(pack).dataset()

    class Hidden(IterableDataset):
        def __iter__(self):
            return iter(dataset)

    with pytest.raises(
        BadInput, match=r"expected a torch DataLoader that is given it.*fix: DataLoader\("
    ):
        ids(loader_of(Hidden(), {"num_workers": 1}))
    with pytest.raises(
        BadInput, match=r"found the index 0.*DataLoader\(batches\.dataset\(\), batch_size=None\)"
    ):
        ids(loader_of(batches(pack), {"num_workers": 0}))


def test_a_dataset_stands_where_its_batches_stood(pack, expected):
    plain = batches(pack)
    next(iter(plain))
    dataset = plain.dataset()
    plain.set_epoch(5)
    assert ids(dataset) == expected[1]
    assert ids(plain) == expected[5]


def test_a_copy_goes_its_own_way(pack, expected):
    dataset = batches(pack).dataset()
    ids(dataset)
    twin = pickle.loads(pickle.dumps(dataset))
    assert ids(twin) == ids(dataset) == expected[1]


def test_steps_that_an_epoch_has_not_are_refused(pack):
    dataset = batches(pack).dataset()
    for step in (-1, 8, True, 1.0):
        with pytest.raises(
            Conflict, match=f"expected step to be an integer from 0 to 7, found {step}"
        ):
            dataset.state_dict(step)
        with pytest.raises(Conflict, match="loader state: expected step"):
            dataset.load_state_dict(dataset.state_dict(0) | {"step": step})
    with pytest.raises(BadInput, match="epoch: expected a whole number"):
        dataset.set_epoch(-1)


def test_ranks_share_an_epoch_by_workers_too(pack, expected):
    found = [
        ids(loader_of(batches(pack, rank=r, world_size=2).dataset(), WAYS["two workers"]))
        for r in range(2)
    ]
    assert [len(one) for one in found] == [4, 3]
    assert [found[k % 2][k // 2] for k in range(7)] == expected[0]


@pytest.mark.parametrize("method", ["label", "sample", "overlap", "shuffle"])
@pytest.mark.parametrize("rounds", [1, 2])
def test_every_method_has_an_order_for_every_epoch_in_all_ways(tmp_path, method, rounds):
    from stockpot.stages.order import STAGE

    pack, inputs = packed(tmp_path, records={"outputs": 60, "records": 15, "rounds": rounds})
    values = {"order.method": method, "order.window": 0, "order.mix": 1}
    given = {"records": inputs["records"], "graph": inputs["graph"]}
    order = run_stage(STAGE, STAGE.resolve(values, {}), given, tmp_path / "order")

    def opened():
        from stockpot.stages.loader.records import Records
        from stockpot.stages.order.epoch_order import Order

        records, found = (
            Records.from_reader(pack),
            Order.from_reader(MemoryReader(order.arrays, order.facts)),
        )
        return record_batches(records, store_key="s", split="train", order=found, seed=3)

    plain = opened()
    expected = [ids(plain) for _ in range(4)]
    assert len({tuple(one) for one in expected}) == 4
    assert {tuple(sorted(sum(one, ()))) for one in expected} == {tuple(range(60))}
    loader = loader_of(opened().dataset(), WAYS["two workers"])
    assert [ids(loader) for _ in range(4)] == expected


def test_nothing_is_left_behind(pack):
    before = set(multiprocessing.active_children())
    for _ in range(3):
        iterator = iter(loader_of(batches(pack).dataset(), WAYS["two workers"]))
        next(iterator)
        del iterator
    gc.collect()
    assert not list(_DATASETS)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.long
@pytest.mark.parametrize("way", [WAYS["two workers"], WAYS["two workers that persist"]])
def test_workers_that_are_no_forks_count_on_too(pack, expected, way):
    loader = loader_of(batches(pack).dataset(), way | {"multiprocessing_context": "spawn"})
    assert [ids(loader) for _ in range(2)] == expected[:2]
    iterator = iter(loader)
    next(iterator)
    assert ids(loader) == expected[3]


def lightning():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import, and torchmetrics', of plans of their own
        import pytorch_lightning
    return pytorch_lightning


def trained(pack, train, folder, *, epochs, workers=None, checkpoint=None, every=None):
    """(batches that a Trainer handed to its model by epoch, validation batches of each epoch, the
    Trainer)."""
    pl = lightning()
    seen, checked = [], []

    class Net(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(7, 4)

        def training_step(self, batch):
            seen.append((self.current_epoch, tuple(batch.input_id.tolist())))
            logits = torch.sparse.mm(batch.adj_t, self.layer(batch.x))[: batch.batch_size]
            loss = torch.nn.functional.cross_entropy(
                logits, batch.y, ignore_index=-1, reduction="sum"
            )
            return loss / batch.num_outputs_step

        def validation_step(self, batch):
            checked.append(tuple(batch.input_id.tolist()))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    calls = (
        [pl.callbacks.ModelCheckpoint(folder, every_n_train_steps=every, save_top_k=-1)]
        if every
        else []
    )
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=bool(every),
        callbacks=calls,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    valid = open_batches(pack, shuffle=False, per_step=2)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # Lightning's, of torch's plans and of how many workers it would like
        trainer.fit(Net(), train, valid, ckpt_path=checkpoint)
    return [[b for e, b in seen if e == epoch] for epoch in range(epochs)], checked, trainer


class TestLightning:
    @pytest.mark.parametrize("way", [None, *WAYS.values()], ids=["plain", *WAYS])
    def test_a_trainer_reads_the_same_batches(self, pack, expected, tmp_path, way):
        train = batches(pack) if way is None else loader_of(batches(pack).dataset(), way)
        seen, checked, _ = trained(pack, train, tmp_path, epochs=3)
        assert seen == expected[:3]
        valid = ids(open_batches(pack, shuffle=False, per_step=2))
        assert checked[2:] == 3 * valid  # after two of the sanity check

    def test_a_trainer_goes_on_in_the_middle_of_an_epoch(self, pack, expected, tmp_path):
        """Lightning asks loaders for their state where they have one, and gives it back."""
        seen, _, _ = trained(pack, batches(pack), tmp_path, epochs=2, every=5)
        assert seen == expected[:2]
        (middle,) = tmp_path.glob("*step=10.ckpt")
        rest, _, _ = trained(pack, batches(pack), tmp_path, epochs=2, checkpoint=middle)
        assert rest == [[], expected[1][3:]]
