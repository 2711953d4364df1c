"""The DAG of a recipe: ids, wiring, order, and what is refused."""

import subprocess
import sys

import pytest

from stockpot.planning.dag import ancestors, build, select
from stockpot.planning.recipe import KEYS, from_tables
from stockpot.planning.registry import STAGES
from stockpot.stages.errors import BadInput
from stockpot.stages.node import NODES, SOURCE


def nodes(**tables):
    return {node.id: node for node in build(from_tables("x", tables))}


def test_ids_and_wiring():
    found = nodes(train={"ingredients": 2})
    assert list(found) == [
        "ingest",
        "split",
        "judge",
        "codebook",
        "quantize",
        "partition",
        "sizing",
        "influence:train",
        "influence:valid",
        "influence:test",
        "order",
        "hag",
        "pack:train",
        "pack:valid",
        "pack:test",
        "train:0",
        "train:1",
        "soup",
        "infer",
        "codeloss",
    ]
    assert found["ingest"].inputs == {"source": SOURCE}
    assert found["judge"].inputs == {"graph": "ingest", "split": "split"}
    assert found["codebook"].inputs == {"graph": "ingest"}
    assert found["codebook"].advice == found["quantize"].advice == {"judge": "judge"}
    assert found["quantize"].inputs == {"graph": "ingest", "codebook": "codebook"}
    assert found["influence:valid"].inputs == {"graph": "ingest", "split": "split"}
    assert found["influence:valid"].advice == found["train:1"].advice == {"sizing": "sizing"}
    assert found["influence:valid"].instance == {"split": "valid"}
    assert found["train:1"].inputs == {
        "train": "pack:train",
        "valid": "pack:valid",
        "order": "order",
    }
    assert found["train:1"].instance == {"index": 1}
    assert found["soup"].inputs == {
        "train": "pack:train",
        "valid": "pack:valid",
        "ingredient:0": "train:0",
        "ingredient:1": "train:1",
    }
    assert found["infer"].inputs["outputs"] == "pack:test"
    assert found["codeloss"].inputs == {"valid": "pack:valid", "soup": "soup", "graph": "ingest"}
    exact, lossy = nodes(features={"codec": "fp32"}), nodes(features={"codec": "sq4"})
    assert not {"judge", "codebook", "codeloss"} & set(exact)
    assert {"codebook", "codeloss"} <= set(lossy)
    assert "judge" not in lossy


def test_whoever_reads_features_reads_their_products():
    found = nodes(features={"propagate": 2, "codec": "sq4"})
    assert found["propagate"].inputs == {"graph": "ingest"}
    for name in ("codebook", "quantize", "codeloss"):
        assert found[name].inputs["propagated"] == "propagate"
    assert found["sizing"].advice == {"propagated": "propagate"}
    auto = nodes(features={"propagate": 1})
    assert auto["judge"].inputs == {"graph": "ingest", "propagated": "propagate", "split": "split"}
    assert "propagated" not in nodes()["quantize"].inputs


def test_hops_are_judged_where_they_are_automatic():
    found = nodes(features={"propagate": "auto"})
    assert found["hops"].inputs == {"graph": "ingest", "split": "split"}
    assert found["propagate"].inputs == {"graph": "ingest"}
    assert found["propagate"].advice == {"hops": "hops"}
    assert found["quantize"].inputs["propagated"] == "propagate"
    assert "hops" not in nodes(features={"propagate": 2})
    assert not {"hops", "propagate"} & set(nodes(features={"propagate": 0}))


def test_sets_of_inference_are_judged_by_the_chosen_model():
    """Records that a later stage advises: whoever reads them stands behind it."""
    found = nodes(infer={"top_k": "auto"})
    assert found["reach"].inputs["soup"] == "soup"
    assert found["reach"].inputs["codes"] == "quantize"
    assert found["influence:infer"].advice["reach"] == "reach"
    assert "reach" not in found["influence:test"].advice
    assert found["infer"].inputs["outputs"] == "pack:infer"
    order = list(found)
    for node in found.values():
        assert all(order.index(parent) < order.index(node.id) for parent in node.parents)
    assert order.index("soup") < order.index("influence:infer") < order.index("infer")
    assert "reach" not in nodes(infer={"top_k": 4})
    assert "reach" not in nodes()


SIZES = {"top_k": 16, "outputs": 64, "mix": 4}


@pytest.mark.parametrize("auto", [*SIZES, "mass"])
def test_sizes_are_measured_where_one_of_them_is_automatic(auto):
    batches = {name: value for name, value in SIZES.items() if name != auto}
    found = nodes(
        batches=batches, graph={} if auto == "mass" else {"mass": "none"}, train={"warmup": 1}
    )
    assert found["sizing"].inputs == {"graph": "ingest", "split": "split"}
    assert {found[name].advice["sizing"] for name in ("influence:test", "warmup", "train:0")} == {
        "sizing"
    }
    named = nodes(batches=SIZES, graph={"mass": "none"}, train={"warmup": 1})
    assert "sizing" not in named
    assert named["influence:test"].advice == named["warmup"].advice == named["train:0"].advice == {}


def test_records_of_rows_are_made_of_no_partition():
    found = nodes(batches={"method": "propagate"}, features={"propagate": 2, "codec": "fp32"})
    assert not {"partition", "sizing", "hag"} & set(found)
    assert found["influence:train"].inputs == {"graph": "ingest", "split": "split"}
    assert found["pack:train"].inputs == {
        "graph": "ingest",
        "records": "influence:train",
        "codes": "quantize",
    }
    assert found["order"].inputs["records"] == "influence:train"
    larger = nodes(batches={"method": "propagate"}, infer={"top_k": 32})
    assert "pack:infer" not in larger  # rows have no neighbours to keep
    shared = nodes(batches={"method": "propagate"}, train={"ranks": 64}, partition={"parts": 3})
    assert shared["exchange"].inputs == {"records": "pack:train"}


@pytest.mark.parametrize("method", ["batch", "cluster", "neighbor", "labor", "propagate"])
def test_other_methods_have_no_sizes_to_measure(method):
    assert "sizing" not in nodes(batches={"method": method})


def test_a_warm_up_is_one_artifact_that_all_ingredients_start_from():
    found = nodes(train={"ingredients": 2, "warmup": 3})
    assert found["warmup"].inputs == {
        "train": "pack:train",
        "valid": "pack:valid",
        "order": "order",
    }
    assert found["train:0"].inputs["start"] == found["train:1"].inputs["start"] == "warmup"


def test_parents_come_first():
    seen = set()
    for node in build(
        from_tables("x", {"infer": {"split": "all"}, "batches": {"method": "cluster"}})
    ):
        assert set(node.parents) <= seen
        seen.add(node.id)


@pytest.mark.parametrize("method", ["batch", "cluster"])
def test_batches_of_parts_need_the_partition(method):
    assert nodes(batches={"method": method})["influence:train"].inputs["partition"] == "partition"


@pytest.mark.parametrize("infer", [{"split": "all"}, {"split": "ids.npy"}, {"top_k": 32}])
def test_inference_with_records_of_its_own(infer):
    found = nodes(infer=infer)
    assert found["infer"].inputs["outputs"] == "pack:infer"
    assert found["pack:infer"].inputs["records"] == "influence:infer"
    assert found["influence:infer"].inputs.get("nodes") == (
        NODES if infer.get("split") == "ids.npy" else None
    )
    assert "pack:test" in found


def test_the_same_top_k_needs_no_other_records():
    assert "pack:infer" not in nodes(infer={"top_k": 16}, batches={"top_k": 16})


def test_select_and_ancestors():
    every = build(from_tables("x", {"train": {"ingredients": 2}}))
    assert select(every, []) == [node.id for node in every]
    assert select(every, ["train"]) == ["train:0", "train:1"]
    assert select(every, ["train:1"]) == ["train:1"]
    assert [n.id for n in ancestors(every, ["order"])] == [
        "ingest",
        "split",
        "sizing",
        "influence:train",
        "order",
    ]
    with pytest.raises(
        BadInput, match="stage warmup: not part of this recipe; expected one of ingest, split"
    ):
        select(every, ["warmup"])


def test_shared_sums_advise_the_packs_and_serve_the_whole_graph_only_where_asked_for():
    auto, never, always = (nodes(hag={"enabled": value}) for value in ("auto", "never", "always"))
    assert auto["hag"].inputs == {"graph": "ingest", "records": "influence:train"}
    assert {auto[f"pack:{split}"].advice["hag"] for split in ("train", "valid", "test")} == {"hag"}
    assert "hag" in auto["pack:valid"].parents
    assert "hag" not in auto["pack:valid"].inputs
    assert "hag" not in never
    assert never["pack:valid"].advice == {}
    assert "hag" not in auto["infer"].inputs
    assert always["infer"].inputs["hag"] == "hag:graph"
    assert nodes(hag={"enabled": True})["infer"].inputs["hag"] == "hag:graph"
    assert "hag:graph" not in nodes(hag={"enabled": "always"}, infer={"full_graph": False})
    refused = {
        "gat": "differ by edge",
        "my.nets:build": "called with the edges",
        "sage-lstm": "in order",
        "sign": "reads no edge",
    }
    for model, words in refused.items():
        with pytest.raises(BadInput, match=f"hag.enabled: .*{words}"):
            nodes(hag={"enabled": "always"}, train={"model": model})
        without = nodes(train={"model": model})
        assert "hag" not in without
        assert without["pack:train"].advice == {}


def test_ranks_that_train_together_know_who_sends_what():
    together = nodes(train={"ranks": 2, "warmup": 1})
    assert together["exchange"].inputs == {"records": "pack:train"}
    assert {together[name].inputs["exchange"] for name in ("warmup", "train:0")} == {"exchange"}
    assert "exchange" not in nodes()
    assert (
        nodes(train={"ranks": 2}, batches={"method": "labor"})["train:0"].inputs["exchange"]
        == "exchange"
    )


def test_a_cache_is_planned_for_all_who_train():
    planned = nodes(order={"cache": "10%"}, train={"warmup": 1})
    assert planned["loadplan"].inputs == {
        "records": "pack:train",
        "order": "order",
        "graph": "ingest",
    }
    assert {planned[name].inputs["loads"] for name in ("warmup", "train:0")} == {"loadplan"}
    assert "loadplan" not in nodes()
    with pytest.raises(BadInput, match=r"one process follows a load plan, found train\.ranks = 2"):
        nodes(order={"cache": 0.1}, train={"ranks": 2})


@pytest.mark.parametrize(
    "tables",
    [
        {"train": {"ingredients": 0}},
        {"infer": {"top_k": -1}},
        {"train": {"ranks": 65}},
        {"train": {"ranks": 3}, "partition": {"parts": 2}},
        {"batches": {"kappa": 0}},
    ],
)
def test_refused(tables):
    with pytest.raises(BadInput, match="expected"):
        nodes(**tables)


def test_a_student_is_built_where_inference_is_by_it():
    assert "student" not in nodes(features={"propagate": 1})
    planned = nodes(features={"propagate": 1}, infer={"by": "student"}, train={"ingredients": 2})
    assert planned["student"].inputs == {
        "graph": "ingest",
        "split": "split",
        "codes": "quantize",
        "soup": "soup",
        "ingredient:0": "train:0",
        "ingredient:1": "train:1",
    }
    assert planned["infer"].inputs["student"] == "student"
    with pytest.raises(BadInput, match=r"above 0, found 0; fix: --set features\.propagate=2"):
        nodes(infer={"by": "student"})


def test_stages_read_keys_that_exist_and_have_the_roles_they_are_given():
    known = set(KEYS) | {"dataset.split"}
    for name, stage in STAGES.items():
        assert stage.name == name
        assert set(stage.reads) <= known, name
    tables = {
        "infer": {"split": "ids.npy", "by": "student"},
        "features": {"propagate": 1},
        "batches": {"method": "cluster"},
        "train": {"warmup": 1},
    }
    for node in nodes(**tables).values():
        roles = STAGES[node.stage].roles
        for role in node.inputs:
            assert role in roles or f"{role.split(':')[0]}*" in roles, (node.id, role)


def test_describing_imports_nothing_heavy():
    code = "import sys, stockpot.planning.dag\n"
    code += "print([m for m in ('torch', 'numba', 'zarr', 'scipy', 'dask') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
