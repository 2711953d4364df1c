"""A recipe that loads is complete and well typed; every slip is one line that names the key."""

import tomllib

import pytest

from stockpot.planning.recipe import (
    KEYS,
    Recipe,
    defaults_text,
    from_tables,
    load,
    parse_bytes,
    to_toml,
)
from stockpot.stages.errors import BadInput

DESIGN = """
[dataset]
source = "wordnet"
split = { train = 0.5, valid = 0.25, seed = 0 }
split_index = 0
[graph]
undirected = true
self_loops = true
normalization = "sym"
mass = "auto"
[features]
reduce = 0
propagate = 0
propagate_by = "auto"
codec = "auto"
max_accuracy_drop = 0.002
[partition]
method = "auto"
parts = "auto"
[batches]
method = "node"
alpha = 0.25
eps = 2e-4
top_k = "auto"
outputs = "auto"
mix = "auto"
rounds = 1
fanouts = [10, 10, 10]
kappa = 1
[order]
method = "label"
cache = 0.0
[hag]
enabled = "auto"
capacity = "auto"
[train]
model = "gcn"
per_step = 1
layers = 3
hidden = 256
dropout = 0.5
lr = 1e-3
weight_decay = 0.0
schedule = "plateau"
epochs = "auto"
patience = "auto"
ingredients = 8
validate = "auto"
seed = 0
device = "auto"
ranks = 1
[soup]
method = "auto"
holdout = 0.0
[infer]
by = "records"
split = "test"
top_k = 0
full_graph = true
[resources]
memory = "auto"
workers = "auto"
scheduler = "local"
"""


LATER = {
    "order": {"window": 2, "mix": 1},
    "features": {"lossless_up_to": "2GB", "layout": "auto", "tier_share": 0.0, "tier_bytes": 8},
    "train": {
        "heads": 4,
        "warmup": 0,
        "keep": "best",
        "vary": 1.0,
        "ema": 0.0,
        "precision": "fp32",
        "exchange": "auto",
        "storage_gbs": 1.0,
        "interconnect_gbs": 0.0,
    },
    "batches": {
        "aux_ratio": 3.0,
        "aux_mass": 0.0,
        "orientation": "transpose",
        "importance_sampling": 0,
        "layer_dependency": False,
        "seeds": "random",
    },
    "soup": {"epochs": "auto", "rate": "auto", "period": 4, "parts": 32, "drawn": 4},
    "student": {
        "teacher": "auto",
        "hops": 0,
        "neighbours": True,
        "hidden": 512,
        "epochs": "auto",
        "dropout": 0.2,
        "noise": 0.0,
    },
}
"""Keys that came after the contract, with their defaults."""


def test_defaults_are_the_contract():
    tables = tomllib.loads(DESIGN)
    found = Recipe("x").tables()
    for section, keys in LATER.items():
        assert {key: found[section].pop(key) for key in keys} == keys
    found = {section: keys for section, keys in found.items() if keys}
    assert found == tables
    assert {s: list(t) for s, t in found.items()} == {s: list(t) for s, t in tables.items()}


def test_defaults_text_and_toml_load_to_the_defaults():
    assert from_tables("x", tomllib.loads(defaults_text())) == Recipe("x")
    changed = from_tables(
        "x", {"train": {"lr": 1}, "batches": {"fanouts": [3]}, "dataset": {"split": {"seed": 4}}}
    )
    assert from_tables("x", tomllib.loads(to_toml(changed))) == changed
    assert changed.values()["train.lr"] == 1.0
    assert isinstance(changed.values()["train.lr"], float)
    for key in KEYS.values():
        assert key.about, key.name
        assert key.about in defaults_text()


def test_values_are_flat_with_nested_tables_whole_and_by_key():
    values = Recipe("x").values()
    assert values["dataset.split"] == {"train": 0.5, "valid": 0.25, "seed": 0}
    assert values["dataset.split.train"] == 0.5
    assert set(KEYS) <= set(values)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("batches.top_k=32", "batches", "top_k", 32),
        ("dataset.source=npz:/a/b c.npz", "dataset", "source", "npz:/a/b c.npz"),
        ('resources.memory="2GB"', "resources", "memory", "2GB"),
        ("resources.memory=2GB", "resources", "memory", "2GB"),
        ("batches.fanouts=[5, 5]", "batches", "fanouts", [5, 5]),
        ("train.lr=1", "train", "lr", 1.0),
        ("graph.undirected=false", "graph", "undirected", False),
        ("partition.parts=auto", "partition", "parts", "auto"),
    ],
)
def test_set(override, section, key, value):
    assert from_tables("x", {}, [override]).values()[f"{section}.{key}"] == value


def test_set_inside_a_nested_table_keeps_its_neighbours():
    recipe = from_tables("x", {"dataset": {"split": {"train": 0.1}}}, ["dataset.split.seed=3"])
    assert (recipe.values()["dataset.split.train"], recipe.values()["dataset.split.seed"]) == (
        0.1,
        3,
    )


@pytest.mark.parametrize(
    ("tables", "overrides", "words"),
    [
        (
            {"batches": {"topk": 3}},
            [],
            ["batches.topk", "nearest is batches.top_k", "stockpot recipe --defaults"],
        ),
        ({"batchs": {}}, [], ["section batchs", "nearest is batches"]),
        ({}, ["hidden=3"], ["hidden", "nearest is train.hidden"]),
        ({}, ["train.hiden=3"], ["train.hiden", "nearest is train.hidden"]),
        ({}, ["train.hidden"], ["expected section.key=value"]),
        (
            {"train": {"hidden": "x"}},
            [],
            ["train.hidden", "expected an integer", 'found the string "x"'],
        ),
        ({"train": {"hidden": True}}, [], ["expected an integer", "found the boolean true"]),
        ({"train": {"hidden": 2.0}}, [], ["expected an integer", "found the number 2.0"]),
        ({"train": {"lr": float("nan")}}, [], ["train.lr", "expected a number"]),
        (
            {"partition": {"parts": "many"}},
            [],
            ["partition.parts", 'expected an integer or "auto"'],
        ),
        ({"batches": {"method": "nodes"}}, [], ["batches.method", '"node"', '"nodes"']),
        (
            {"batches": {"fanouts": 10}},
            [],
            ["batches.fanouts", "expected a list of integers", "found the integer 10"],
        ),
        ({"dataset": {"split": 3}}, [], ["dataset.split", "expected a table"]),
        (
            {"dataset": {"split": {"tran": 3}}},
            [],
            ["dataset.split.tran", "nearest is dataset.split.train"],
        ),
        ({"train": 3}, [], ["[train]", "expected a table", "found the integer 3"]),
        ({}, ["resources.memory=lots"], ["resources.memory", '"2GB"', '"lots"']),
        ({}, ["resources.workers=0"], ["resources.workers", "from 1 to 4096", "found 0"]),
        (
            {},
            ["resources.scheduler=udp://h:8786"],
            ["resources.scheduler", "udp://h:8786", "tcp://HOST:PORT"],
        ),
        (
            {},
            ["resources.scheduler=tcp://h"],
            ["resources.scheduler", "tcp://h", "tcp://HOST:PORT"],
        ),
    ],
)
def test_slips_are_one_line_naming_the_key(tables, overrides, words):
    with pytest.raises(BadInput) as caught:
        from_tables("x", tables, overrides)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_files(tmp_path):
    good = tmp_path / "toy.toml"
    good.write_text('[dataset]\nsource = "npz:a.npz"\n')
    assert load(good).name == "toy"
    with pytest.raises(BadInput, match="no such file"):
        load(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[dataset\n")
    with pytest.raises(BadInput, match="expected TOML"):
        load(bad)
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path)
    odd = tmp_path / "a b.toml"
    odd.write_text("")
    with pytest.raises(BadInput, match="expected a file name of"):
        load(odd)


def test_sizes():
    assert parse_bytes("2GB") == 2_000_000_000
    assert parse_bytes("1.5 GiB") == 3 * 2**29
    assert parse_bytes(1000) == 1000
    assert parse_bytes("512mb") == 512_000_000
    assert parse_bytes("auto") is None
