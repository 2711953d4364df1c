"""The planner knows every key that can be known and projects the rest; each recipe key moves what
it should."""

import json
import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from stockpot.execution.run import Runner
from stockpot.execution.task import FINISH, Task, execute, open_inputs
from stockpot.planning import dag
from stockpot.planning.budget import WORKER_BYTES, Budget, granted, measure, refuse
from stockpot.planning.plan import Planner
from stockpot.planning.recipe import KEYS, from_tables, load
from stockpot.planning.registry import STAGES
from stockpot.planning.status import plan_document, plan_text
from stockpot.stages.errors import BadInput, OverBudget
from stockpot.stages.guess import Guess
from stockpot.stages.ingest.source import describe, single_file
from stockpot.stages.ingest.source_counts import source_counts
from stockpot.stages.show.plain import human_bytes
from stockpot.stages.stage import Cost, Shard
from stockpot.store.digests import StatCache
from stockpot.store.fingerprints import Seen
from stockpot.store.keys import plain
from stockpot.store.store import Store
from tests.graphs import write_npz
from tests.pipeline import fakes

TABLE = Path(__file__).with_name("key_table.toml")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    monkeypatch.setenv("FAKE_STAGES", str(tmp_path))
    with fakes.installed():
        yield tmp_path


def planner(folder, source, **tables):
    tables = {
        "train": {"ingredients": 2},
        **tables,
        "dataset": {"source": f"npz:{source}", **tables.get("dataset", {})},
    }
    recipe = from_tables("toy", tables)
    return Planner(
        recipe, Store(folder / "store"), StatCache(folder / "stat.json"), Seen(folder / "seen.json")
    )


def build_here(plans, store):
    """Build a planned node in this process, without workers."""
    stage = STAGES[plans.node.stage]
    shards = stage.shards(plans.params, open_inputs(store, plans.inputs))
    names = tuple(shard.name for shard in shards)
    for shard in (*shards, Shard(FINISH)):
        params = plain(plans.params)
        execute(
            Task(
                str(store.root),
                plans.node.id,
                stage.name,
                plans.key,
                params,
                plans.inputs,
                shard,
                names,
                stage.exact,
            )
        )


def build_all(plan, *stages):
    for node in plan.nodes:
        if node.stage in stages:
            build_here({p.node.id: p for p in plan.plan([node.id])}[node.id], plan.store)


def test_keys_become_known_as_inputs_are_committed(fake):
    plan = planner(fake, fakes.write_source(fake))
    states = {p.node.id: (p.state, p.reason, p.key is not None) for p in plan.plan()}
    assert states["ingest"] == ("build", "not built yet", True)
    assert states["split"] == ("after", "after ingest", False)
    assert states["pack:train"] == (
        "after",
        "after ingest, partition, influence, quantize, hag",
        False,
    )
    build_all(plan, "ingest")
    states = {p.node.id: (p.state, p.reason, p.key is not None) for p in plan.plan()}
    assert states["ingest"] == ("cached", "", True)
    assert states["split"] == ("build", "not built yet", True)
    assert states["pack:train"][1] == "after partition, influence, quantize, hag"


def test_planning_writes_nothing_but_the_stat_cache(fake):
    source = fakes.write_source(fake)
    planner(fake, source).plan()
    assert sorted(p.name for p in fake.iterdir()) == ["stat.json", "toy.npz"]


def test_the_key_is_the_content_and_not_the_path(fake):
    (fake / "elsewhere").mkdir()
    first = planner(fake, fakes.write_source(fake)).plan(["ingest"])[0]
    second = planner(fake, fakes.write_source(fake / "elsewhere")).plan(["ingest"])[0]
    assert first.key == second.key
    np.savez(fake / "toy.npz", edge_index=np.zeros((2, 3), np.int64), num_nodes=np.int64(5))
    assert planner(fake, fake / "toy.npz").plan(["ingest"])[0].key != first.key


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("npz:none.npz", "expected a file at"),
        ("cora", '"wordnet", "npz:PATH"'),
        ("cora", 'found "cora"'),
        ("npz:", "expected"),
        ("synthetic:comunities", "nearest is communities"),
    ],
)
def test_sources(source, words):
    with pytest.raises(BadInput, match=r"dataset\.source") as caught:
        describe(source)
    assert words in str(caught.value)


def test_a_guess_tells_whether_it_was_used():
    guess = Guess({"sure": 1, "guessed": 2}, {"sure"})
    assert guess["sure"] == 1
    assert not guess.touched
    assert guess.get("guessed") == 2
    assert guess.touched


def counts_of(path):
    return source_counts(single_file(f"npz:{path}", path))


def test_counts_come_from_headers(tmp_path):
    counts = counts_of(write_npz(tmp_path / "g.npz", nodes=50, degree=4, features=7, classes=3))
    assert counts["num_nodes"] == 50
    assert counts["num_edges_stored"] == 100
    assert (counts["features"], counts["num_features"], counts["num_classes"]) == ("dense", 7, 3)
    masks = np.zeros((2, 50), bool)
    masks[:, :10] = True
    changes = {
        f"{s}_masks": np.roll(masks, 10 * at, axis=1)
        for at, s in enumerate(("train", "valid", "test"))
    }
    counts = counts_of(write_npz(tmp_path / "m.npz", nodes=50, degree=4, replace=changes))
    assert counts["splits"] == {"train": 10, "valid": 10, "test": 10}
    (tmp_path / "no.npz").write_bytes(b"not a zip file")
    assert counts_of(tmp_path / "no.npz") is None


def test_refusal_names_the_worst_first():
    budget, large = Budget(WORKER_BYTES + 1000, 2), Cost(0, 0, 9_000_000_000)
    refuse(budget, [("a", Cost(0, 0, 1000))])
    with pytest.raises(OverBudget) as caught:
        refuse(
            budget,
            [("small", Cost(0, 0, 2_000_000_000)), ("fine", Cost(0, 0, 10)), ("large", large)],
        )
    text = str(caught.value)
    assert text.index("large") < text.index("small")
    assert "fine" not in text
    assert (
        f"resources.memory={human_bytes(9_000_000_000 + WORKER_BYTES, up=True)}".replace(" ", "")
        in text
    )
    need = (
        next(part for part in text.split() if part.startswith("resources.memory="))
        .strip(",")
        .split("=")[1]
    )
    refuse(
        measure(from_tables("x", {}, [f"resources.memory={need}"]).resources), [("large", large)]
    )


def test_refusal_proposes_what_the_stage_names():
    tasks = [("partition", Cost(0, 0, 10**10, mend="--set partition.method=stream"))]
    with pytest.raises(OverBudget, match=r", or --set partition\.method=stream$"):
        refuse(Budget(10**9, 2), tasks)
    with pytest.raises(OverBudget, match=r"method=stream and smaller records \(batches"):
        refuse(Budget(10**9, 2), [*tasks, ("pack", Cost(0, 0, 9 * 10**9))])


def test_budget():
    resources = from_tables("x", {}, ["resources.memory=2GB", "resources.workers=3"]).resources
    assert measure(resources).memory_bytes == 2_000_000_000
    assert measure(resources).workers == 3
    automatic = measure(from_tables("x", {}).resources)
    assert automatic.memory_bytes > 10**8
    assert automatic.cores >= 1
    assert human_bytes(999) == "999 B"
    assert human_bytes(2_340_000_000) == "2.3 GB"
    assert human_bytes(9_410_000_000, up=True) == "9.5 GB"


def test_a_task_is_granted_what_is_free_between_its_least_and_its_most():
    cost = Cost(0, 0, 1000, least=400)
    assert [granted(cost, free) for free in (0, 399, 700, 5000)] == [400, 400, 700, 1000]
    assert [granted(Cost(0, 0, 1000), free) for free in (0, 5000)] == [1000, 1000]


def test_a_plan_needs_counts_and_no_data(tmp_path, monkeypatch):
    """Everything is projected from published counts; a run says what is missing before anything
    starts."""
    monkeypatch.chdir(tmp_path)
    recipe = load(Path(__file__).parents[3] / "data/ogbn-papers100M.toml", [])
    plan = Planner(recipe, Store(tmp_path / "store"), StatCache(tmp_path / "stat.json"), Seen(None))
    planned = plan.plan()
    assert (planned[0].state, planned[0].reason, planned[0].key) == (
        "after",
        "its data is not there yet",
        None,
    )
    assert planned[0].facts["num_edges_stored"] == 1_615_685_872
    assert all(p.cost is not None and p.cost.peak > 0 for p in planned)
    assert "missing in" in str(plan.absent)
    document, text = (
        plan_document(planned, Budget(1, 1), plan.absent),
        plan_text(planned, Budget(1, 1), plan.absent),
    )
    assert document["absent"] == str(plan.absent)
    assert text.splitlines()[-1].startswith(
        "the data is not there yet; projections rest on published counts"
    )
    with pytest.raises(BadInput, match="missing in"):
        Runner(plan, plan.store, Budget(10**15, 2), None).run()
    assert not (tmp_path / "store").exists()


def test_a_plan_of_a_generator_larger_than_any_machine(tmp_path):
    recipe = load(Path(__file__).parents[3] / "data/mag240m-like.toml", [])
    plan = Planner(recipe, Store(tmp_path / "store"), StatCache(tmp_path / "stat.json"), Seen(None))
    planned = plan.plan()
    assert planned[0].key is not None
    assert plan.absent is None
    assert all(p.cost is not None for p in planned)


# --- the real stages


def test_everything_is_projected_before_anything_is_built(tmp_path):
    plan = planner(tmp_path, write_npz(tmp_path / "g.npz", nodes=200))
    planned = plan.plan()
    assert [p.node.id for p in planned if p.cost is None] == []
    for p in planned:
        assert p.cost.peak > 0, p.node.id
        assert p.cost.written > 0, p.node.id
    with pytest.raises(OverBudget):
        refuse(Budget(WORKER_BYTES, 2), [(p.node.id, p.cost) for p in planned])


def test_a_node_with_nothing_to_build_is_in_no_plan_and_its_readers_do_without(tmp_path):
    source = write_npz(tmp_path / "g.npz", nodes=200)
    plain, coded = (
        planner(tmp_path, source),
        planner(tmp_path, source, features={"lossless_up_to": 100}),
    )
    ids, judged = ([p.node.id for p in plan.plan()] for plan in (plain, coded))
    assert [name for name in judged if name not in ids] == ["judge", "codebook", "codeloss"]
    assert {p.node.id: p.reason for p in plain.plan()}["quantize"] == "after ingest"
    reasons = {p.node.id: p.reason for p in coded.plan()}
    assert (reasons["judge"], reasons["codebook"]) == (
        "after ingest, split",
        "after ingest, judge, if needed",
    )
    build_all(plain, "ingest")
    planned = {p.node.id: p for p in plain.plan()}
    assert planned["quantize"].state == "build"
    assert set(planned["quantize"].inputs) == {"graph"}
    assert planned["quantize"].cost is not None
    assert [node.id for node in dag.needed(plain.nodes, {"ingest"})] == [
        node.id for node in plain.nodes
    ]
    left = {node.id: node for node in dag.needed(plain.nodes, {"ingest", "quantize"})}
    assert not {"judge", "codebook"} & set(left)
    assert "codeloss" in left
    assert "codeloss" not in {
        n.id for n in dag.needed(plain.nodes, {"ingest", "quantize", "pack:valid", "soup"})
    }
    assert left["quantize"].inputs == {"graph": "ingest"}


def test_products_are_planned_where_a_judge_may_want_them(tmp_path):
    source = write_npz(tmp_path / "g.npz", nodes=200)
    auto = planner(tmp_path, source, features={"propagate": "auto"})
    planned = {p.node.id: p for p in auto.plan()}
    assert planned["hops"].cost.peak > 0
    assert planned["propagate"].reason == "after ingest, hops"
    assert planned["propagate"].params.hops == 2
    named = {p.node.id: p for p in planner(tmp_path, source, features={"propagate": 2}).plan()}
    # What may be is planned for as what is.
    for name in ("propagate", "quantize", "pack:train", "train:0"):
        assert planned[name].cost == named[name].cost
    wide = write_npz(tmp_path / "w.npz", nodes=200, features=1100)
    left = planner(tmp_path, wide, features={"propagate": "auto"})
    assert not {"hops", "propagate"} & {p.node.id for p in left.plan()}


@pytest.mark.parametrize(
    "source", ["ogb:ogbn-products", "ogb:ogbn-arxiv", "pyg:Planetoid/Cora", "pyg:Planetoid/PubMed"]
)
@pytest.mark.parametrize("up_to", ["2GB", 0])
def test_codes_are_projected_from_documented_counts(tmp_path, monkeypatch, source, up_to):
    """Whatever the columns, before a byte is there: Cora has 1,433 of them, given dense."""
    monkeypatch.chdir(tmp_path)
    recipe = from_tables(
        "toy", {"dataset": {"source": source}, "features": {"lossless_up_to": up_to}}
    )
    plan = Planner(recipe, Store(tmp_path / "store"), StatCache(tmp_path / "stat.json"), Seen(None))
    planned = {p.node.id: p for p in plan.plan()}
    assert ("judge" in planned and planned["judge"].params is not None) == (up_to == 0)
    assert planned["quantize"].cost.written > 0
    assert planned["pack:train"].cost.written > 0


def test_edge_weights_are_projected(tmp_path):
    plain = planner(tmp_path, write_npz(tmp_path / "g.npz", nodes=200)).plan()
    weights = {"edge_weight": np.ones(600, np.float32)}
    weighted = planner(tmp_path, write_npz(tmp_path / "w.npz", nodes=200, replace=weights)).plan()
    for one, other in zip(plain, weighted, strict=True):
        if one.node.stage == "influence":
            assert other.cost.peak == one.cost.peak + 4 * 2 * 600  # both directions of an edge
        if one.node.stage == "pack":
            assert other.cost.written > one.cost.written


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("batches.alpha=1.5", "batches.alpha"),
        ("batches.rounds=0", "batches.rounds"),
        ("batches.aux_mass=2", "batches.aux_mass"),
        ("batches.top_k=0", "batches.top_k"),
        ("features.codec=pq9000", "pq9000"),
        ("train.model=mlp", "mlp"),
        ("train.ranks=0", "train.ranks"),
        ("train.dropout=1.0", "train.dropout"),
        ("train.layers=0", "train.layers"),
        ("soup.holdout=1.5", "soup.holdout"),
        ("order.window=-1", "order.window"),
        ("order.mix=0", "order.mix"),
    ],
)
def test_unsupported_values_are_refused_before_anything_runs(tmp_path, override, word):
    source = f"npz:{write_npz(tmp_path / 'g.npz', nodes=200)}"

    def plan():  # a number is refused by its range when the recipe is read, a name by the plan
        recipe = from_tables("toy", {"dataset": {"source": source}}, [override])
        Planner(recipe, Store(tmp_path / "s"), StatCache(tmp_path / "c"), Seen(None)).plan()

    with pytest.raises(BadInput, match=word):
        plan()


@pytest.mark.parametrize(
    ("overrides", "words", "mend"),
    [
        (["train.model=sign"], "features.propagate: .* found 0", "features.propagate=3"),
        (
            ["train.model=sgc", "features.propagate=auto"],
            "features.propagate: auto judges models that read edges",
            "features.propagate=3",
        ),
        (
            ["train.model=sage", "features.propagate=auto", "features.propagate_by=ppr"],
            "features.propagate: auto judges products by the matrix that the model reads",
            "features.propagate=2",
        ),
        (
            ["train.model=sgc", "batches.method=propagate"],
            "features.propagate: .* found 0",
            "features.propagate=3",
        ),
        (
            ["batches.method=propagate", "features.propagate=2"],
            "records have no edges, and train.model 'gcn' reads some",
            "batches.method=node, or --set train.model=sign",
        ),
        (
            ["batches.method=propagate", "hag.enabled=always"],
            "cannot serve batches.method 'propagate': its records have no edges",
            "hag.enabled=auto",
        ),
        (
            ["train.model=sign", "features.propagate=2", "hag.enabled=always"],
            "cannot serve train.model 'sign': it reads no edge",
            "hag.enabled=auto",
        ),
    ],
)
def test_rows_and_edges_that_do_not_go_together_are_refused_at_once(
    tmp_path, overrides, words, mend
):
    source = f"npz:{write_npz(tmp_path / 'g.npz', nodes=200)}"
    recipe = from_tables("toy", {"dataset": {"source": source}}, overrides)
    with pytest.raises(BadInput, match=words) as error:
        Planner(recipe, Store(tmp_path / "s"), StatCache(tmp_path / "c"), Seen(None)).plan()
    assert mend in error.value.fix
    first = mend.split(",")[0]
    mended = [o for o in overrides if o.split("=")[0] != first.split("=")[0]] + [first]
    recipe = from_tables("toy", {"dataset": {"source": source}}, mended)
    plan = Planner(recipe, Store(tmp_path / "s"), StatCache(tmp_path / "c"), Seen(None))
    if overrides[:2] != ["batches.method=propagate", "hag.enabled=always"]:  # has no model of rows
        plan.plan()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_guess_of_rows_is_what_they_are(tmp_path, ranks):
    """What is planned of records without edges before any is built, and of their model."""
    planned = {
        p.node.id: p
        for p in planner(
            tmp_path,
            write_npz(tmp_path / "g.npz", nodes=400),
            batches={"method": "propagate", "outputs": 50},
            features={"propagate": 2, "codec": "fp32"},
            train={"model": "sign", "layers": 2, "hidden": 8, "ranks": ranks},
            infer={"top_k": 32},
        ).plan()
    }
    assert "partition" not in planned
    packed, records = planned["pack:train"].facts, planned["influence:train"].facts
    assert (records["records"], records["outputs"], records["rows"]) == (4, 200, 200)
    assert (packed["rows"], packed["edges"], packed["max_edges"], packed["K"]) == (200, 0, 0, 64)
    assert packed["edgeless"]
    model = planned["train:0"]
    assert (model.params.hops, model.facts["hidden"]) == (2, 24)
    weights = 3 * (16 * 8 + 8) + 2 * 24 + 24 * 8 + 8 + 2 * 8 + 8 * 4 + 4
    assert weights <= model.facts["num_parameters"] <= 2 * weights


CHANGES = {
    "dataset.split.train": 0.6,
    "dataset.split.valid": 0.2,
    "dataset.split.seed": 1,
    "dataset.split_index": 1,
    "graph.undirected": False,
    "graph.self_loops": False,
    "graph.normalization": "rw",
    "graph.mass": "row",
    "features.reduce": 4,
    "features.propagate": 2,
    "features.propagate_by": "ppr",
    "features.codec": "fp16",
    "features.lossless_up_to": 0,
    "features.max_accuracy_drop": 0.1,
    "features.tier_share": 0.1,
    "features.tier_bytes": 4,
    "features.layout": "packed",
    "partition.method": "kaminpar",
    "partition.parts": 9,
    "batches.method": "random",
    "batches.alpha": 0.3,
    "batches.eps": 1e-3,
    "batches.top_k": 8,
    "batches.outputs": 32,
    "batches.mix": 2,
    "batches.rounds": 2,
    "batches.aux_ratio": 2.0,
    "batches.aux_mass": 0.5,
    "batches.orientation": "reference",
    "batches.fanouts": [5, 5, 5],
    "batches.kappa": 2,
    "batches.importance_sampling": -1,
    "batches.layer_dependency": True,
    "batches.seeds": "community",
    "order.method": "shuffle",
    "order.window": 4,
    "order.mix": 2,
    "order.cache": 1.0,
    "hag.enabled": False,
    "hag.capacity": 0.5,
    "train.model": "sage",
    "train.per_step": 2,
    "train.layers": 2,
    "train.hidden": 32,
    "train.heads": 2,
    "train.dropout": 0.1,
    "train.lr": 0.1,
    "train.weight_decay": 0.1,
    "train.schedule": "constant",
    "train.epochs": 5,
    "train.patience": 5,
    "train.ingredients": 3,
    "train.warmup": 2,
    "train.vary": 2.0,
    "train.keep": "last",
    "train.validate": 0.1,
    "train.ema": 0.9,
    "train.precision": "bf16",
    "train.ranks": 2,
    "train.exchange": "independent",
    "train.storage_gbs": 2.0,
    "train.interconnect_gbs": 2.0,
    "train.seed": 7,
    "soup.method": "uniform",
    "soup.holdout": 0.5,
    "soup.epochs": 7,
    "soup.rate": 2.0,
    "soup.period": 3,
    "soup.parts": 16,
    "soup.drawn": 2,
    "student.teacher": "soup",
    "student.hops": 1,
    "student.neighbours": False,
    "student.hidden": 64,
    "student.epochs": 7,
    "student.dropout": 0.4,
    "student.noise": 0.4,
    "infer.by": "student",
    "infer.split": "all",
    "infer.top_k": 4,
    "infer.full_graph": False,
    "resources.memory": "64GB",
    "resources.workers": 1,
}
BASE = {
    "batches": {"outputs": 64, "mix": 4},
    "features": {"layout": "gather"},
    "train": {"ingredients": 2, "epochs": 200, "patience": 30},
}
"""What the keys are changed in; sizes are set, or `auto` would follow the sizes of the splits."""
WITHIN = {
    name: {"method": "batch"}
    for name in ("batches.aux_ratio", "batches.aux_mass", "batches.orientation")
}
SAMPLED = ("fanouts", "kappa", "importance_sampling", "layer_dependency", "seeds")
WITHIN |= {f"batches.{name}": {"method": "labor", "fanouts": [9, 9, 9]} for name in SAMPLED}
WITHIN |= {name: {"method": "overlap"} for name in ("order.window", "order.mix")}
WITHIN |= {"features.max_accuracy_drop": {"lossless_up_to": 0}}
WITHIN |= {"features.propagate_by": {"propagate": 2}}
WITHIN |= {
    "features.tier_share": {"codec": "sq2"},
    "features.tier_bytes": {"codec": "sq2", "tier_share": 0.5},
}
WITHIN |= {
    f"soup.{name}": {"method": "partition"}
    for name in ("epochs", "rate", "period", "parts", "drawn")
}
WITHIN |= {
    f"train.{name}": {"ranks": 2} for name in ("exchange", "storage_gbs", "interconnect_gbs")
}
"""What else stands in the key's section, before and after, where the key is looked at only then."""
ROWS = {"features": {"layout": "gather", "propagate": 1}}
BESIDE = {"infer.by": ROWS}
BESIDE |= {
    f"student.{name}": {**ROWS, "infer": {"by": "student"}}
    for name in ("teacher", "hops", "neighbours", "hidden", "epochs", "dropout", "noise")
}
"""What else stands in other sections."""
FIXED = {
    "dataset.source": "enters by content",
    "train.device": "auto is what this machine has",
    "resources.scheduler": "only local in this version",
}


def resolved(plan):
    """Node id -> its parameters and inputs: what a recipe key can change in a key directly."""
    return {
        p.node.id: (
            json.dumps(None if p.params is None else asdict(p.params), sort_keys=True),
            dict(p.node.inputs),
        )
        for p in plan.plan()
    }


def test_every_recipe_key_moves_what_the_table_says(tmp_path):
    """`key_table.toml`: recipe key -> nodes whose own part of the key it changes; others follow by
    digest."""
    rng = np.random.default_rng(0)
    masks = {f"{s}_masks": np.zeros((2, 200), bool) for s in ("train", "valid", "test")}
    for index in range(2):
        for mask, ids in zip(
            masks.values(), np.split(rng.permutation(200), [100, 150]), strict=True
        ):
            mask[index, ids] = True
    source = write_npz(tmp_path / "g.npz", nodes=200)
    masked = write_npz(tmp_path / "m.npz", nodes=200, replace=masks)
    assert set(CHANGES) | set(FIXED) == set(KEYS)
    found = {}
    for key, value in CHANGES.items():
        file = masked if key == "dataset.split_index" else source
        section, *inner = key.split(".")
        base = {**BASE, **BESIDE.get(key, {})}
        base[section] = {**base.get(section, {}), **WITHIN.get(key, {})}
        before = resolved(planner(tmp_path, file, **base))
        table = {inner[-1]: value} if len(inner) == 1 else {inner[0]: {inner[1]: value}}
        after = resolved(planner(tmp_path, file, **{**base, section: {**base[section], **table}}))
        assert value != KEYS[key].default
        names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        found[key] = names
    expected = tomllib.loads(TABLE.read_text())["moves"]
    assert found == expected, "\n".join(f'"{k}" = {json.dumps(v)}' for k, v in found.items())


def test_of_the_training_only_its_model_moves_the_judge(tmp_path):
    """Codes are chosen by `train.model` at a fixed width, depth and length: no other key recodes
    anything."""
    source, base = (
        write_npz(tmp_path / "g.npz", nodes=200),
        {**BASE, "features": {"lossless_up_to": 0, "propagate": 1}},
    )
    before, moved = resolved(planner(tmp_path, source, **base))["judge"], set()
    for key, value in CHANGES.items():
        section, *inner = key.split(".")
        if section in ("features", "dataset"):
            continue
        table = {inner[-1]: value} if len(inner) == 1 else {inner[0]: {inner[1]: value}}
        within = {**base.get(section, {}), **WITHIN.get(key, {}), **table}
        if resolved(planner(tmp_path, source, **{**base, section: within})).get("judge") != before:
            moved.add(key)
    assert moved == {"train.model"}


def test_attention_and_models_of_ones_own_are_projected_by_the_edge(tmp_path, monkeypatch):
    source = write_npz(tmp_path / "g.npz", nodes=20_000)
    (tmp_path / "my_plan_nets.py").write_text(
        "raise RuntimeError('planning imports nothing of it')"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    peaks = {}
    for model in ("gcn", "gat", "my_plan_nets:build"):
        planned = planner(tmp_path, source, train={"model": model}).plan()
        peaks[model] = {
            p.node.stage: p.cost.peak for p in planned if p.node.stage in ("train", "infer")
        }
    for stage in ("train", "infer"):
        assert peaks["gcn"][stage] < peaks["gat"][stage] < peaks["my_plan_nets:build"][stage]
