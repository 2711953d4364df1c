"""`summary.json` and `run.json` hold what the contract says, from manifests alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.planning.dag import build
from stockpot.planning.recipe import from_tables
from stockpot.report.page import Report, render
from stockpot.report.run_outputs import result_text
from stockpot.report.summary import (
    accuracy_rows,
    inference_seconds,
    set_words,
    summarise,
    view_of,
)
from stockpot.stages.built import Built
from stockpot.stages.errors import BadInput
from stockpot.stages.hag.reporting import REPORTING as HAG
from stockpot.stages.judge.reporting import CODES, rate_cells
from stockpot.store.run_folder import dump, run_document, write_atomically
from tests.pipeline import fakes
from tests.recipes import with_values

CONTRACT = {
    "dataset": {
        "name",
        "num_nodes",
        "num_edges_stored",
        "num_edges",
        "num_features",
        "num_classes",
        "splits",
    },
    "stages": {"influence", "quantize", "hag"},
    "train": {"ingredients"},
    "soup": {"chosen", "methods"},
    "infer": {
        "seconds",
        "full_graph_seconds",
        "all_models_seconds",
        "num_outputs",
        "test_accuracy",
        "full_graph_test_accuracy",
    },
}


def built(*, cached=True, only=None, ingredients=2, model="gcn"):
    recipe = from_tables("toy", {"train": {"ingredients": ingredients, "model": model}})
    found = []
    for i, node in enumerate(n for n in build(recipe) if n.stage not in fakes.NOTHING):
        values = {"train.seed": 0, **node.instance}
        manifest = {
            "key": f"{i:032x}",
            "digest": f"{i + 100:032x}",
            "facts": fakes.FACTS[node.stage](values),
            "notes": {"a": {"seconds_per_epoch": 0.5}} if node.stage == "train" else {},
            "seconds": 1.5,
            "peak_bytes": 1000 * i,
            "bytes_written": 10,
            "files": {"facts.json": {"size": 7, "digest": "0" * 32}},
            "params": {"parts": 4, "name": "x"},
            "software": {"python": "3.11.7", "numpy": "2.4.6"},
            "started": 1.7e9 + i,
            "threads": 2,
            "device": "cpu",
            "host": "node-1",
        }
        if node.stage == "infer":
            manifest["notes"] = {
                "predictions": {
                    "seconds": 0.4,
                    "full_graph_seconds": 0.8,
                    "all_models_seconds": 2.0,
                }
            }
        if node.stage == "soup":
            manifest["notes"] = {
                "soup": {"seconds": {"greedy": 3.0}, "peak_bytes": {"greedy": 13000}}
            }
        if only is None or node.stage in only:
            found.append(Built(node, manifest, cached, 2000 * (i + 1)))
    return recipe, found


def test_the_contract():
    recipe, nodes = built()
    summary = summarise(recipe, nodes)
    for section, names in CONTRACT.items():
        assert names <= set(summary[section]), section
    influence = summary["stages"]["influence"]
    assert {"key", "cached", "seconds", "peak_bytes", "bytes_written", "splits"} <= set(influence)
    assert influence["cached"] is True
    assert influence["seconds"] == pytest.approx(4.5)
    peaks = [b.manifest["peak_bytes"] for b in nodes if b.node.stage == "influence"]
    assert influence["peak_bytes"] == max(peaks) < sum(peaks)
    assert set(influence["splits"]) == {"train", "valid", "test"}
    train = influence["splits"]["train"]
    assert {name: train[name] for name in ("records", "rows", "edges", "replication")} == {
        "records": 2,
        "rows": 60,
        "edges": 200,
        "replication": 3.0,
    }
    assert (train["outputs"], train["captured"], train["dropped_nodes"], train["bytes"]) == (
        20,
        0.9,
        3,
        5000,
    )
    quantize = summary["stages"]["quantize"]
    names = {
        "key",
        "codec",
        "bytes_per_row",
        "table_bytes",
        "compression_ratio",
        "nmse",
        "nmse_aggregated",
    }
    assert names <= set(quantize)
    assert quantize["bytes_per_row"] == 1
    assert (summary["stages"]["hag"]["records_used"], summary["stages"]["hag"]["reads_ratio"]) == (
        0,
        1.0,
    )
    assert summary["stages"]["hag"]["why"] == "none of 2 records gains"
    single = summary["train"]["ingredients"][1]
    assert single == {
        "seed": 1,
        "key": nodes[15].key,
        "epochs": 5,
        "seconds": 1.5,
        "seconds_per_epoch": 0.5,
        "best_epoch": 4,
        "last_epoch": 4,
        "valid_accuracy": 0.71,
        "test_accuracy": 0.72,
    }
    greedy = summary["soup"]["methods"]["greedy"]
    measured = {"valid_accuracy": 0.75, "test_accuracy": 0.74, "seconds": 3.0, "peak_bytes": 13000}
    assert greedy == {**measured, "members": [0], "cross_fitted_accuracy": None, "same_as": None}
    at = next(i for i, b in enumerate(nodes) if b.node.id == "pack:valid")
    assert summary["artifacts"]["pack:valid"] == {
        "stage": "pack",
        "key": nodes[at].key,
        "cached": True,
        "seconds": 1.5,
        "peak_bytes": 1000 * at,
        "bytes_written": 10,
        "projected_bytes": 2000 * (at + 1),
        "bytes": 7,
    }
    infer = summary["infer"]
    assert infer["full_graph_test_accuracy"] == 0.745
    assert (infer["seconds"], infer["full_graph_seconds"], infer["all_models_seconds"]) == (
        0.4,
        0.8,
        2.0,
    )
    assert (
        infer["load_seconds"] is infer["write_seconds"] is None
    )  # an artifact of an older version does not say
    said = "0.4 s by the chosen model alone, 0.8 s exactly on the full graph, 2.0 s by all models"
    assert inference_seconds(infer) == said
    assert f"74.50 %\n  {said}\n" in result_text(summary, nodes, Path("runs/toy"))
    assert json.loads(dump(summary)) == summary


def test_the_size_of_sets_is_said_where_nobody_chose_it_for_inference():
    recipe, nodes = built()
    assert "sets" not in summarise(recipe, nodes)["infer"]  # records that are not sized by outputs
    sized = [
        replace(b, manifest={**b.manifest, "params": {"top_k": 7}})
        if b.node.id == "influence:test"
        else b
        for b in nodes
    ]
    summary = summarise(recipe, sized)
    assert summary["infer"]["sets"] == {"top_k": 7, "by": "training"}
    said = set_words(summary["infer"])
    assert "hold 7 nodes of every output because those of training do" in said
    assert f"\n  {said}\n" in result_text(summary, sized, Path("runs/toy"))
    for asked, by in ((7, "recipe"), ("auto", "validation")):
        named = from_tables("toy", {"infer": {"top_k": asked}})
        found = summarise(named, sized)["infer"]
        assert found["sets"] == {"top_k": 7, "by": by}
        assert set_words(found) == ""


def test_a_stage_is_cached_where_all_of_it_is():
    recipe, nodes = built()
    again = [replace(b, cached=b.node.id != "pack:valid") for b in nodes]
    stages = summarise(recipe, again)["stages"]
    assert (stages["pack"]["cached"], stages["influence"]["cached"]) == (False, True)


def test_shared_sums_are_counted_over_all_splits():
    recipe, nodes = built()
    counted = {
        "pack:train": {"records": 3, "reads": 100, "plain_reads": 250},
        "pack:valid": {"records": 2, "reads": 100, "plain_reads": 150},
    }
    for b in nodes:
        if b.node.id in counted:
            adds = {"adds": 30, "plain_adds": 90}
            b.manifest["facts"] = {**b.manifest["facts"], "hag": counted[b.node.id] | adds}
    hag = summarise(recipe, nodes)["stages"]["hag"]
    assert (hag["records_used"], hag["reads_ratio"], hag["adds_ratio"]) == (5, 2.0, 3.0)
    (said,) = [block.body for block in HAG.report({"stages": {"hag": hag}}, view_of(recipe, nodes))]
    assert "5 records read 2.00 x fewer rows and add 3.00 x fewer" in said


def test_a_model_that_shares_nothing_says_why():
    recipe, nodes = built(model="gat")
    assert summarise(recipe, nodes)["stages"]["hag"]["why"].endswith(
        "'gat': its weights differ by edge"
    )


def test_absent_stages_are_null():
    recipe, nodes = built(only=("ingest", "split"))
    summary = summarise(recipe, nodes)
    assert summary["dataset"]["splits"] == {"train": 20, "valid": 10, "test": 10}
    assert summary["stages"]["influence"] is summary["stages"]["hag"] is None
    assert summary["train"] is summary["soup"] is summary["infer"] is None
    assert accuracy_rows(summary) == []
    assert summarise(recipe, [])["dataset"]["num_nodes"] is None


def test_rows_of_the_table():
    recipe, nodes = built()
    rows = accuracy_rows(summarise(recipe, nodes))
    assert [row.name for row in rows] == [
        "single model 0 (seed 0)",
        "single model 1 (seed 1)",
        "soup: best",
        "soup: uniform",
        "soup: greedy",
    ]
    assert (rows[-1].valid, rows[-1].test, rows[-1].chosen) == (0.75, 0.74, True)


def test_run_document(tmp_path):
    recipe, nodes = built()
    artifacts = {b.node.id: (b.node.stage, b.key, b.digest) for b in nodes}
    document = run_document(recipe.name, recipe.tables(), tmp_path / "store", artifacts)
    assert set(document) == {"format", "name", "store", "recipe", "artifacts", "check"}
    assert document["format"] == 1
    assert document["store"] == str(tmp_path / "store")
    assert document["recipe"] == recipe.tables()
    first = document["artifacts"]["influence:train"]
    assert first == {"stage": "influence", "key": nodes[6].key, "digest": nodes[6].digest}


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "a" / "b.json"
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, 3)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(BadInput, match="cannot be written"):
        write_atomically(path / "below", "new")


def test_accuracy_on_other_nodes_is_not_called_test_accuracy():
    recipe, nodes = built()
    summary = summarise(with_values(recipe, {"infer.split": "all"}), nodes)
    assert summary["infer"]["test_accuracy"] is summary["infer"]["full_graph_test_accuracy"] is None
    assert summary["infer"]["accuracy"] == 0.74
    assert {row.test for row in accuracy_rows(summary)} == {None}


def test_the_judge_stands_in_summary_report_and_inspection():
    row = {
        "codec": "sq8",
        "row_bytes": 128,
        "table_bytes": 65536,
        "total_bytes": 15125888,
        "compression_ratio": 3.98,
        "nmse": 6e-5,
        "nmse_aggregated": 7e-5,
        "drop": -0.0003,
        "drop_error": 0.00015,
        "drop_bound": 0.0001,
        "pairs": 2,
        "allowed": True,
    }
    other = {
        **row,
        "codec": "pq9",
        "drop": None,
        "drop_error": None,
        "drop_bound": None,
        "pairs": 0,
        "allowed": None,
    }
    facts = {
        "codec": "sq8",
        "rate": [row, other],
        "reason": "sq4 <fails>",
        "judged_on": 29415,
        "trained_on": 58829,
    }
    facts |= {"accuracy": 0.7, "model": "gcn", "row_passes": 3_000_000, "rows_allowed": 3_700_000}
    recipe, nodes = built()
    book = next(b for b in nodes if b.node.id == "codebook")
    measured = {"codec": "sq8", "sensitivity": [0.9, 0.7, 0.8], "nmse_by_depth": [7e-5, 4e-5, 5e-5]}
    changed = replace(book, manifest={**book.manifest, "facts": measured})
    judge = replace(
        book,
        node=replace(book.node, id="judge", stage="judge"),
        manifest={**book.manifest, "facts": facts},
    )
    summary = summarise(recipe, [judge, *(changed if b is book else b for b in nodes)])
    for stage in ("judge", "codebook"):
        assert {name: summary["stages"][stage][name] for name in facts} == facts
    assert summary["stages"]["codebook"]["sensitivity"] == [0.9, 0.7, 0.8]
    assert summary["stages"]["quantize"]["accuracy_drop"] is None
    page = render(Report(recipe, summary, nodes))
    cells = [
        "128",
        "65,536",
        "15,125,888",
        "4.0",
        "6e-05",
        "7e-05",
        "-0.03 ± 0.01",
        "0.01",
        "2",
        "yes",
    ]
    assert rate_cells(row) == cells
    assert rate_cells(other)[-4:] == ["", "", "", "not judged"]
    assert all(f">{cell}<" in page for cell in cells)
    assert (
        "Chosen: sq8; sq4 &lt;fails&gt;. Judged by gcn on 29,415 nodes in 3,000,000 row-passes"
        in page
    )
    assert "0.900, 0.700, 0.800" in page
    assert CODES not in render(Report(recipe, summarise(recipe, nodes), nodes))
