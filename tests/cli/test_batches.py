"""Batches of the recipe through the command line: values out of range, and whole parts in several
rounds."""

import json
import re

import numpy as np
import pytest

from stockpot import open_batches
from stockpot.cli import main
from stockpot.stages.loader.records import Records
from stockpot.store.store import Store
from tests.cli.test_real import stockpot
from tests.graphs import write_recipe


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("alpha=0.0", "expected a number from 0.001, below 1, found 0.0"),
        ("alpha=1", "expected a number from 0.001, below 1, found 1"),
        ("eps=0", "expected a number from 1e-12, below 1, found 0; fix: --set batches.eps=0.0002"),
        ("eps=2e-300", "expected a number from 1e-12, below 1, found 2e-300"),
        ("top_k=0", 'expected an integer from 1 to 1000000 or "auto" | "all", found 0'),
        ("outputs=0", 'expected an integer from 1 to 2147483647 or "auto", found 0'),
        ("mix=0", 'expected an integer from 1 to 1000000 or "auto", found 0'),
        ("rounds=0", "expected an integer from 1 to 10000, found 0"),
        ("rounds=1.5", "expected an integer, found the number 1.5"),
        ("aux_ratio=0", "expected a number above 0 to 1000000, found 0"),
        ("aux_ratio=inf", "expected a number, found the number"),
        ("aux_mass=1.01", "expected a number from 0 to 1, found 1.01"),
        ("aux_mass=-1", "to 1, found -1"),
        ("orientation=rows", 'expected "transpose" | "reference", found the string "rows"'),
        ("method=ladies", 'found the string "ladies"'),
    ],
)
def test_values_out_of_range_are_one_line_and_exit_2(
    tmp_path, monkeypatch, capsys, setting, message
):
    write_recipe(tmp_path, nodes=60)
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "tiny.toml", "--set", f"batches.{setting}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert f"batches.{setting.split('=')[0]}" in err
    assert message in err
    assert "; fix: " in err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["kappa=0"], 'batches.kappa: expected an integer from 1 to 1000000 or "inf", found 0'),
        (["kappa=1.5"], 'batches.kappa: expected an integer or "inf", found the number 1.5'),
        (["fanouts=[10,0]"], "integers, each from 1 to 1000000, or -1 (all), found 0"),
        (
            ["fanouts=[10]"],
            "batches.fanouts: expected 2, one for each layer of the model, found [10]",
        ),
        (
            ["importance_sampling=-2"],
            (
                "batches.importance_sampling: expected an integer from 0 to 1000, or -1 (as many "
                "as pay), found -2"
            ),
        ),
        (
            ["method=neighbor", "importance_sampling=1"],
            "expected 0 with method 'neighbor', found 1",
        ),
    ],
)
def test_samples_out_of_range_are_one_line_and_exit_2(
    tmp_path, monkeypatch, capsys, settings, message
):
    write_recipe(tmp_path, nodes=60)
    monkeypatch.chdir(tmp_path)
    every = [
        word for setting in ["method=labor", *settings] for word in ("--set", f"batches.{setting}")
    ]
    assert main(["plan", "tiny.toml", *every]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert "; fix: " in err


def test_what_one_stage_asks_of_an_estimate_hides_no_error_of_another(
    tmp_path, monkeypatch, capsys
):
    """A load plan asks how many rows the records will have; that the fanouts are too few is known
    without."""
    write_recipe(tmp_path, nodes=60)
    monkeypatch.chdir(tmp_path)
    settings = [
        "batches.method=labor", "batches.fanouts=[10]", "batches.rounds=2", "order.cache=1.0",
        "features.layout=gather", "order.method=shuffle",
    ]  # fmt: skip
    every = [word for setting in settings for word in ("--set", setting)]
    assert main(["plan", "tiny.toml", *every]) == 2
    assert "batches.fanouts: expected 2, one for each layer" in capsys.readouterr().err


def test_batches_of_whole_parts_in_two_rounds_are_trained_on(tmp_path):
    write_recipe(tmp_path, ingredients=1, epochs=3, nodes=2000, extra="[partition]\nparts = 40\n")
    text = (
        (tmp_path / "tiny.toml")
        .read_text()
        .replace("[batches]", '[batches]\nmethod = "batch"\nrounds = 2')
    )
    (tmp_path / "tiny.toml").write_text(text)
    done = stockpot(tmp_path, "run", "tiny.toml")
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "runs/tiny/run.json").read_text())
    store = Store(run["store"])
    keys = {split: run["artifacts"][f"pack:{split}"]["key"] for split in ("train", "valid")}
    train, valid = (Records.from_reader(store.open("pack", key)) for key in keys.values())
    assert (train.rounds, valid.rounds) == (2, 1)
    half = len(train) // 2
    for records in (range(half), range(half, 2 * half)):
        assert sorted(np.concatenate([train[i].input_id for i in records]).tolist()) == list(
            range(1000)
        )
    history = json.loads(
        store.open("train", run["artifacts"]["train:0"]["key"]).path("history.json").read_text()
    )
    assert len(history) == 3
    summary = json.loads((tmp_path / "runs/tiny/summary.json").read_text())
    assert summary["stages"]["influence"]["splits"]["train"]["records"] == 2 * half
    assert summary["infer"]["test_accuracy"] > 0.4


@pytest.mark.parametrize(
    ("sampling", "model", "form"),
    [
        ('method = "labor"\nkappa = 4\nrounds = 2\nimportance_sampling = 1', "sage", "layers"),
        (
            'method = "neighbor"\nkappa = inf\nseeds = "community"\nlayer_dependency = true',
            "gat",
            "nodes",
        ),
    ],
)
def test_sampled_batches_are_trained_on(tmp_path, sampling, model, form):
    write_recipe(tmp_path, ingredients=1, epochs=3, nodes=2000, model=model)
    text = (
        (tmp_path / "tiny.toml")
        .read_text()
        .replace("[batches]", f"[batches]\n{sampling}\nfanouts = [4, 4]")
    )
    text += '[order]\nmethod = "overlap"\nwindow = 2\ncache = 5\n[features]\nlayout = "gather"\n'
    (tmp_path / "tiny.toml").write_text(text)
    refused = stockpot(tmp_path, "run", "tiny.toml")
    assert refused.returncode == 2, refused.stderr
    size = re.search(
        r"the smallest useful size is (\d+); fix: --set order.cache=\1,", refused.stderr
    )
    (tmp_path / "tiny.toml").write_text(text.replace("cache = 5", f"cache = {size[1]}"))
    done = stockpot(tmp_path, "run", "tiny.toml")
    assert done.returncode == 0, done.stderr
    again = json.loads(stockpot(tmp_path, "plan", "tiny.toml", "--json").stdout)
    assert {one["state"] for one in again["nodes"]} == {"cached"}
    run = json.loads((tmp_path / "runs/tiny/run.json").read_text())
    store = Store(run["store"])
    records = {
        s: Records.from_reader(store.open("pack", run["artifacts"][f"pack:{s}"]["key"]))
        for s in ("train", "valid")
    }
    assert {r.meta["form"] for r in records.values()} == {form}
    assert records["valid"].meta["sampling"]["kappa"] == 1
    assert sorted(np.concatenate([r.input_id for r in records["valid"]]).tolist()) == list(
        range(500)
    )
    summary = json.loads((tmp_path / "runs/tiny/summary.json").read_text())
    train = summary["stages"]["sample"]["splits"]["train"]
    assert train["records"] == len(records["train"])
    assert 0 < train["overlap"] <= 1
    assert set(train["lru_misses"]) == {"0.05", "0.1", "0.2"}
    assert train["nodes_by_layer"] == sorted(train["nodes_by_layer"])
    loads = summary["stages"]["loadplan"]
    assert loads["cache"] == loads["largest_record"] == int(size[1])
    assert all(read < rows for read, rows in zip(loads["read"], loads["rows"], strict=True))
    assert (
        f"Load plan: a cache of {int(size[1]):,} rows"
        in (tmp_path / "runs/tiny/report.html").read_text()
    )
    batches = open_batches(tmp_path / "runs/tiny", layers=2)
    assert sum(batch.batch_size for batch in batches) == 1000
    assert batches.rows_read == loads["read"][0]
    assert summary["infer"]["test_accuracy"] > 0.4
    assert summary["infer"]["full_graph_test_accuracy"] > 0.4
    shown = stockpot(tmp_path, "inspect", "runs/tiny", "pack:train", "--record", "0")
    assert shown.returncode == 0, shown.stderr
