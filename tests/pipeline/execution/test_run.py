"""Every node ends committed once, whatever dies on the way."""

import dask

# Its defaults: were they loaded inside the block below, its end would drop them.
import distributed  # noqa: F401
import pytest

from stockpot.execution.cluster import start_local
from stockpot.execution.job import Job, RunError
from stockpot.execution.progress import Silent
from stockpot.execution.run import Runner
from stockpot.execution.workers import LocalWorkers
from stockpot.planning import dag
from stockpot.planning.budget import WORKER_BYTES, Budget
from stockpot.planning.plan import Planner
from stockpot.planning.recipe import from_tables
from stockpot.stages.errors import BadInput, NonDeterminism, OverBudget, StockpotError
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.store import Store
from tests.pipeline import fakes

BUDGET = Budget(memory_bytes=4_000_000_000, cores=2)


class Said(Silent):
    def __init__(self):
        self.lines, self.stopped, self.shards, self.expected = [], {}, {}, []

    def say(self, text):
        self.lines.append(text)

    def expect(self, done, total):
        self.expected.append((done, total))

    def start(self, node, shards):
        self.shards[node] = shards

    def stop(self, node, seconds, text=""):
        self.stopped[node] = (seconds, text)


@pytest.fixture(scope="module")
def cluster():
    """One cluster for all tests: starting processes is what takes long."""
    with dask.config.set({"distributed.worker.preload": ["tests.pipeline.fakes"]}):
        started = []

        def start(budget):
            if not started:
                started.append(start_local(2, budget.memory_bytes, budget.cores))
            return LocalWorkers(budget, 0, Kept(started[0]))

        yield start
        for one in started:
            one.close()


class Kept:
    """A cluster that outlives its run."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.submit, self.wait, self.scale = cluster.submit, cluster.wait, cluster.scale

    def close(self, *, now=False):
        while self.cluster._futures:
            self.cluster.wait(0.1)


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    """Workers read the folder's name from the environment they were started with."""
    folder = tmp_path_factory.mktemp("control")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_STAGES", str(folder))
        yield folder


@pytest.fixture
def world(control, tmp_path, cluster):
    for path in control.iterdir():
        path.unlink()
    with fakes.installed():
        yield World(control, tmp_path, cluster)


class World:
    def __init__(self, control, folder, start):
        self.control, self.folder, self.start = control, folder, start
        self.source = fakes.write_source(folder)
        self.store = Store(folder / "store")
        self.said = Said()

    def order(self, kind, name, count=1):
        (self.control / f"{kind}-{name}").write_text(str(count))

    def run(self, *targets, force=(), budget=BUDGET, start=None, **tables):
        tables = {
            "dataset": {"source": f"npz:{self.source}"},
            "train": {"ingredients": 2},
            **tables,
        }
        recipe = from_tables("toy", tables)
        seen = Seen(self.folder / "seen.json")
        planner = Planner(recipe, self.store, StatCache(self.folder / "stat.json"), seen)
        planner.force |= set(dag.select(planner.nodes, force)) if force else set()
        (self.control / "calls").write_text("")
        self.said.lines.clear()
        runner = Runner(
            planner, self.store, budget, self.said, lambda _: (start or self.start)(budget)
        )
        try:
            plans = runner.run(targets)
        finally:
            seen.save()
        self.built = runner.built
        return {name: plan.digest for name, plan in plans.items()}


def no_cluster(*_):
    raise AssertionError("nothing was to be built")


def everything():
    nodes = dag.build(from_tables("toy", {"train": {"ingredients": 2}}))
    return {node.id for node in nodes if node.stage not in fakes.NOTHING}


def test_everything_is_built_once_and_then_cached(world):
    digests = world.run()
    assert world.built == set(digests) == everything()
    assert len(fakes.calls()) == len(set(fakes.calls())) == 12 + 6 * 3
    assert world.run(start=no_cluster) == digests
    assert fakes.calls() == []
    assert not list((world.folder / "store/work").glob("*"))


def test_seconds_are_those_of_its_tasks_and_only_what_is_to_build_is_counted(world):
    world.run("pack")
    world.said.expected.clear()
    digests = world.run()
    left = len(world.built)
    assert world.said.expected[0] == (0, left)
    assert world.said.expected[-1] == (left, left)
    assert 0 < left < len(digests)
    for node in world.built:
        (manifest,) = (
            reader.manifest
            for stage, key in world.store.artifacts()
            if stage == node.partition(":")[0]
            and (reader := world.store.open(stage, key)).digest == digests[node]
        )
        seconds, _ = world.said.stopped[node]
        if (
            len(manifest["shards"]) == 2
        ):  # a shard and its finish, one after the other: nothing else is in it
            assert seconds == pytest.approx(manifest["seconds"])
        assert 0 < seconds <= manifest["seconds"] * (1 + 1e-9)


def test_seconds_of_tasks_side_by_side_are_counted_once_and_gaps_not_at_all():
    job = Job(None, {}, [], ran=[(10.0, 12.0), (11.0, 13.0), (11.5, 12.0), (20.0, 21.0)])
    assert job.seconds == 4.0


def test_an_error_is_said_once(world):
    world.order("fail", "train.0")
    world.order("refuse", "train.1")
    with pytest.raises(StockpotError) as caught:
        world.run()
    said = [text for _, text in (world.said.stopped["train:0"], world.said.stopped["train:1"])]
    assert said.count("") == 1  # the one that is raised
    assert all(text not in str(caught.value) for text in said if text)


def test_only_ancestors_of_the_named_stages(world):
    assert set(world.run("order")) == {"ingest", "split", "sizing", "influence:train", "order"}
    assert set(world.run("pack:train")) >= {"partition", "quantize", "pack:train"}
    assert not any(call.startswith("train") for call in fakes.calls())
    with pytest.raises(BadInput, match="stage packs: not part of this recipe"):
        world.run("packs", start=no_cluster)


def test_more_ingredients_add_only_theirs_and_what_follows(world):
    world.run()
    world.run(train={"ingredients": 3})
    assert world.built == {"train:2", "soup", "infer"}


def test_a_worker_that_dies_costs_one_more_call(world):
    world.order("die", "influence.train", 2)
    world.run("influence:train")
    assert len([call for call in fakes.calls() if call.startswith("influence.train/")]) == 5
    assert sum("its worker died" in line for line in world.said.lines) == 2


@pytest.mark.long
def test_a_worker_that_takes_long_to_come_back_comes_back(world):
    """Dask would give it up after 15 seconds, and wait for ever once it has given up all."""
    (world.control / "start").write_text("20")
    world.order("die", "split", 3)
    world.run("split")
    assert len([call for call in fakes.calls() if call.startswith("split/")]) == 4


def test_a_worker_that_dies_always_is_an_error(world):
    world.order("die", "split", 100)
    with pytest.raises(RunError, match="split, shard split-0: its worker process died 4 times"):
        world.run("split")
    assert len([call for call in fakes.calls() if call.startswith("split/")]) == 4


def test_other_nodes_go_on_after_a_failure(world):
    world.order("fail", "partition", 1)
    with pytest.raises(RunError, match="partition, shard partition-0: KeyError: 'a bug'") as caught:
        world.run()
    assert "Traceback" in caught.value.trace
    assert "order/order-0" in fakes.calls()
    assert not any(call.startswith("pack") for call in fakes.calls())
    world.run()
    assert "order" not in world.built
    assert "partition" in world.built


def test_a_stage_that_refuses_its_input_keeps_its_own_words(world):
    world.order("refuse", "ingest", 1)
    with pytest.raises(BadInput, match=r"^dataset: expected labels, found none; fix: add y$"):
        world.run()


def test_finished_shards_are_not_run_again(world):
    world.order("fail", "pack.valid", 1)
    with pytest.raises(RunError, match=r"pack:valid, shard"):
        world.run("pack:valid")
    before = [call for call in fakes.calls() if call.startswith("pack.valid/")]
    world.run("pack:valid")
    after = [call for call in fakes.calls() if call.startswith("pack.valid/")]
    assert 1 <= len(after) <= 2
    assert len(before) + len(after) <= 5


def test_force_does_not_take_what_a_stopped_run_left(world):
    world.order("fail", "pack.valid", 1)
    with pytest.raises(RunError):
        world.run("pack:valid")
    assert list((world.folder / "store/work").glob("*/shards/pack.valid-*.json"))
    world.run("pack:valid", force=["pack:valid"])
    assert len([call for call in fakes.calls() if call.startswith("pack.valid/")]) == 3
    assert any("work in progress was set aside" in line for line in world.said.lines)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_artifact_is_set_aside_and_built_anew(world, damage):
    digests = world.run("pack:train")
    folder = next((world.folder / "store/objects/influence").iterdir())
    chunk = next(
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "value" in str(path) and "c/" in str(path)
    )
    if damage == "flip":
        flip(chunk)
    elif damage == "truncate":
        chunk.write_bytes(chunk.read_bytes()[:-9])
    elif damage == "delete":
        chunk.unlink()
    else:
        flip(folder / "manifest.json")
    assert world.run("pack:train") == digests
    assert world.built == {"influence:train"}
    assert any("damaged" in line and "built anew" in line for line in world.said.lines)
    assert len(list((world.folder / "store/quarantine").iterdir())) == 1
    world.run("pack:train", start=no_cluster)


def test_damage_met_while_reading_is_mended_in_the_same_run(world):
    digests = world.run("pack:train")
    (
        world.folder / "seen.json"
    ).unlink()  # as for a second user: nobody looked at these files before
    folder = next((world.folder / "store/objects/influence").iterdir())
    flip(
        next(
            p
            for p in sorted(folder.rglob("*"))
            if p.is_file() and "sum" in str(p) and "c/" in str(p)
        )
    )
    assert world.run("pack:train", force=["pack:train"]) == digests
    assert world.built == {"influence:train", "pack:train"}


def test_force_builds_again_and_insists_on_the_same_bytes(world):
    digests = world.run("order")
    assert world.run("order", force=["split"]) == digests
    assert world.built == {"split"}
    assert any("forced" in line for line in world.said.lines)
    world.order("drift", "split", 1)
    with pytest.raises(NonDeterminism, match="split: built again by --force"):
        world.run("order", force=["split"])


def test_force_of_a_recorded_stage_may_change_it(world):
    digests = world.run("pack:train")
    world.order("drift", "partition", 1)
    again = world.run("pack:train", force=["partition"])
    assert again["partition"] != digests["partition"]
    assert {"partition", "pack:train"} <= world.built
    assert "ingest" not in world.built


def test_memory_is_refused_before_anything_runs(world):
    with pytest.raises(OverBudget) as caught:
        world.run(budget=Budget(WORKER_BYTES + fakes.PEAK - 1, 2), start=no_cluster)
    assert "ingest" in str(caught.value)
    assert "allowed" in str(caught.value)
    assert not (world.folder / "store").exists()
    assert set(world.run("split", budget=Budget(WORKER_BYTES + fakes.PEAK, 2))) == {
        "ingest",
        "split",
    }


def test_a_value_this_version_lacks_is_refused_before_anything_runs(world):
    with pytest.raises(BadInput, match="random"):
        world.run(start=no_cluster, batches={"method": "random"})
    assert not (world.folder / "store").exists()
