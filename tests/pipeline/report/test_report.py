"""The report loads nothing, is well formed for every state of a run, and its figures are those of
the summary."""

import random
import re
import statistics
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stockpot.planning.recipe import KEYS, from_tables
from stockpot.report.origin import changed, resolved
from stockpot.report.page import Report, render
from stockpot.report.summary import summarise
from stockpot.stages.loader.records import Records
from stockpot.stages.pack.reporting import Sizes, read_sizes
from stockpot.stages.show.plain import human_bytes
from stockpot.stages.train.learning import Curve
from stockpot.stages.train.learning import curve as read_curve
from tests.packs import packed
from tests.pipeline.report.pages import sound
from tests.pipeline.report.test_summary import built
from tests.recipes import with_values

HOSTILE = "<script>alert(1)</script>\"'&<b>"


def report(recipe, nodes, **more):
    return Report(recipe, summarise(recipe, nodes), nodes, **more)


def curve(i, epochs=3):
    points = [(float(e), 1.0 / e + i / 100) for e in range(1, epochs + 1)]
    return Curve(
        f"train:{i}",
        f"train:{i}, seed {i}",
        {"loss": points, "valid_accuracy": points},
        0.7 + i / 100,
    )


def sizes(n=9):
    return Sizes([100 + 10 * i for i in range(n)], [500 + 7 * i for i in range(n)], [50] * n)


def percent(value):
    return f"{100 * value:.2f} %"


def test_a_whole_run(tmp_path):
    recipe, nodes = built()
    path = tmp_path / "history.json"
    path.write_text(
        '[{"loss": 2.0, "valid_accuracy": 0.5}, {"loss": 1.0, "valid_accuracy": 0.625}]'
    )
    read = {
        b.node.id: read_curve(path, b.facts, b.node.id) for b in nodes if b.node.stage == "train"
    }
    assert read["train:0"].series["valid_accuracy"] == [(1.0, 0.5), (2.0, 0.625)]
    read["pack:train"] = sizes()
    text = render(report(recipe, nodes, read=read, command="stockpot run toy.toml"))
    page = sound(text)
    titles = [title for _, title in page.headings]
    assert titles == [
        "toy",
        "Accuracy",
        "Soups",
        "Learning curves",
        "Stages",
        "Mini-batch records",
        "Recipe",
        "Machine and software",
    ]
    words = "".join(page.words)
    assert (
        "Chosen on validation: greedy, test accuracy 74.00 % on mini-batches, 74.50 % by exact"
        in words
    )
    assert "edge cut 25.00 % of the edges, balance 1.02" in words
    assert "stockpot run toy.toml" in words
    lines = [
        attrs["class"]
        for tag, attrs in page.drawn
        if tag == "path" and attrs["class"] in ("main", "other")
    ]
    assert lines.count("main") == 2  # loss and accuracy of the best single model
    assert text.count('class="chosen"') == 2


def test_accuracies_are_those_of_the_summary():
    recipe, nodes = built(ingredients=3)
    summary = summarise(recipe, nodes)
    rows = sound(render(report(recipe, nodes))).table("Accuracy")
    singles = summary["train"]["ingredients"]
    for row, single in zip(rows, singles, strict=False):
        assert row[1:3] == [
            percent(single["valid_accuracy"]),
            percent(single["test_accuracy"] or 0) if single["test_accuracy"] else "",
        ]
        assert row[4] == f"{single['epochs']} epochs, {single['seconds_per_epoch']:.2f} s each"
    valid = [single["valid_accuracy"] for single in singles]
    assert (
        rows[3][1] == f"{100 * statistics.mean(valid):.2f} ± {100 * statistics.stdev(valid):.2f} %"
    )
    for row, (name, method) in zip(rows[4:], summary["soup"]["methods"].items(), strict=True):
        assert row[0] == f"soup: {name}"
        assert row[1:3] == [percent(method["valid_accuracy"]), percent(method["test_accuracy"])]
        assert row[3] == ("74.50 %" if name == "greedy" else "")
    assert rows[6][4] == "of single model 0, chosen on validation"


def test_a_column_without_a_figure_is_left_out():
    recipe, nodes = built(only=("ingest", "split", "train"))
    assert [len(row) for row in sound(render(report(recipe, nodes))).table("Accuracy")] == [3, 3, 3]


def test_stages_are_those_of_the_summary():
    recipe, nodes = built()
    artifacts = summarise(recipe, nodes)["artifacts"]
    page = sound(render(report(recipe, nodes)))
    rows = page.table("Seconds and peak memory")
    assert [row[0] for row in rows] == list(artifacts)
    for row in rows:
        a = artifacts[row[0]]
        share = f"{100 * a['peak_bytes'] / a['projected_bytes']:.0f} %"
        sizes_ = [human_bytes(a[name]) for name in ("peak_bytes", "projected_bytes", "bytes")]
        assert row[1:3] == ["cached", f"{a['seconds']:.1f}"]
        assert (row[4], row[5], row[6], row[8], row[9]) == (
            sizes_[0],
            sizes_[1],
            share,
            sizes_[2],
            a["key"][:12],
        )
    picture = next(p for p in page.pictures if p["title"].startswith("Stages"))
    peak = max(a["peak_bytes"] for a in artifacts.values() if a["stage"] == "influence")
    assert f"influence: cached, 4.5 s, 21 B stored, peak {human_bytes(peak)}" in picture["desc"]


def test_records_are_those_of_the_summary():
    recipe, nodes = built()
    page = sound(render(report(recipe, nodes, read={"pack:train": sizes()})))
    for row in page.table("Packed splits"):
        assert row[1:] == ["2", "20", "60", "200", "3.00", "90.00 %", "3", "5.0 kB"]
    assert page.table("Least / median / most") == [
        ["train", "100 / 140 / 180", "500 / 528 / 556", "50 / 50 / 50"]
    ]
    drawn = [p["title"] for p in page.pictures if p["title"].startswith("records by")]
    assert drawn == [
        "records by number of nodes",
        "records by number of edges",
    ]  # outputs are one number


def test_several_rounds_are_told():
    recipe, nodes = built()
    assert not any(
        "rounds" in row
        for row in next(
            rows
            for c, rows in sound(render(report(recipe, nodes))).tables.items()
            if c.startswith("Packed")
        )
    )
    for b in nodes:
        if b.node.id == "influence:train":
            b.manifest["facts"]["rounds"] = 3
    summary = summarise(recipe, nodes)
    assert [s["rounds"] for s in summary["stages"]["influence"]["splits"].values()] == [3, 1, 1]
    assert [row[1] for row in sound(render(report(recipe, nodes))).table("Packed splits")] == [
        "3",
        "1",
        "1",
    ]


def test_tiers_are_told():
    recipe, nodes = built()
    assert "most exposed" not in render(report(recipe, nodes))
    codes = next(b for b in nodes if b.node.id == "quantize")
    codes.manifest["facts"]["tier"] = {
        "codec": "rq8",
        "rows": 1500,
        "row_bytes": 8,
        "error_left": 0.125,
    }
    page = render(report(recipe, nodes))
    sound(page)
    told = page.replace("\u00a0", " ").replace("\u202f", ",")
    assert (
        "most exposed nodes have further stages (rq8, 8 bytes more), which leave 12.50 % of their "
        "squared" in told
    )


def test_sizes_come_from_the_indexes(tmp_path):
    reader, _ = packed(tmp_path, shard_bytes=12000)
    found, records = read_sizes(reader), Records.from_reader(reader)
    assert found.nodes == [r.num_nodes for r in records]
    assert found.edges == [r.num_edges for r in records]
    assert found.outputs == [r.num_outputs for r in records]


@pytest.mark.parametrize("ingredients", [1, 2, 20])
def test_any_number_of_ingredients(ingredients):
    recipe, nodes = built(ingredients=ingredients)
    page = sound(
        render(report(recipe, nodes, read={f"train:{i}": curve(i) for i in range(ingredients)}))
    )
    lines = [attrs["class"] for tag, attrs in page.drawn if tag == "path" and "M52" in attrs["d"]]
    assert lines.count("main") == 2
    assert lines.count("other") == 2 * (ingredients - 1)
    rows = page.table("Accuracy")
    assert len(rows) == ingredients + (ingredients > 1) + 3
    words = "".join(page.words)
    assert f"train:{ingredients - 1}, seed {ingredients - 1}, the best on validation" in words
    assert ("the other" in words) == (ingredients > 1)
    assert (f"train × {ingredients}" in words) == (ingredients > 1)


STAGES = (
    "ingest",
    "split",
    "partition",
    "codebook",
    "quantize",
    "sizing",
    "influence",
    "hag",
    "order",
    "pack",
    "train",
    "soup",
    "infer",
)


@given(st.sets(st.sampled_from(STAGES)), st.booleans())
def test_any_stage_may_be_missing(stages, cached):
    recipe, nodes = built(only=stages, cached=cached)
    page = sound(
        render(report(recipe, nodes, read={"pack:train": sizes(1)} if "pack" in stages else {}))
    )
    rows = page.table("Seconds and peak memory") or []
    there = {b.node.id for b in nodes}
    for row in rows:
        assert row[1] == (("cached" if cached else "built") if row[0] in there else "not built")
    left_out = {"judge"} if stages & {"codebook", "quantize"} else set()
    left_out |= {"codebook"} if "quantize" in stages and "codebook" not in stages else set()
    left_out |= {"codeloss"} if {"ingest", "quantize", "pack", "soup"} <= stages else set()
    assert len(rows) == 20 - len(left_out)


def test_some_of_a_stage_may_be_missing():
    recipe, nodes = built(cached=False)
    nodes = [b for b in nodes if b.node.id not in ("train:1", "soup", "infer", "pack:test")]
    words = "".join(sound(render(report(recipe, nodes))).words)
    assert "2 of 3 there" in words
    assert "1 of 2 there" in words
    nodes = [replace(b, cached=b.node.id != "pack:train") for b in built()[1]]
    assert "1 of 3 built" in "".join(sound(render(report(recipe, nodes))).words)


def test_old_manifests_without_later_facts():
    recipe, nodes = built()
    for b in nodes:
        for name in ("captured", "dropped_nodes", "members", "edge_cut"):
            b.manifest["facts"].pop(name, None)
        for name in ("software", "started", "threads", "device", "host", "params"):
            del b.manifest[name]
    nodes = [replace(b, projected_bytes=None) for b in nodes]
    page = sound(render(report(recipe, nodes)))
    assert {row[5] for row in page.table("Seconds and peak memory")} == {"?"}


def test_hostile_names_are_text():
    recipe, nodes = built()
    recipe = replace(recipe, name=HOSTILE)
    for b in nodes:
        for name in ("host", "device"):
            b.manifest[name] = HOSTILE
        b.manifest["software"] = {HOSTILE: HOSTILE}
        b.manifest["facts"] |= {
            "chosen": HOSTILE,
            "seed": HOSTILE,
            "method": HOSTILE,
            "codec": HOSTILE,
        }
        if b.node.stage == "soup":
            b.manifest["facts"]["methods"] = {HOSTILE: {"valid_accuracy": 0.5, "members": [0]}}
    read = {
        "train:0": Curve(HOSTILE, HOSTILE, {"loss": [(1.0, 2.0)], "valid_accuracy": []}),
        "pack:train": sizes(),
    }
    found = report(recipe, nodes, read=read, command=HOSTILE, machine={HOSTILE: HOSTILE})
    text = render(found)
    page = sound(text)  # refuses script
    assert "<b>" not in text
    assert "".join(page.words).count(HOSTILE) > 10


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1.0, 2.0)],
        [(1.0, 0.0), (2.0, 0.0)],
        [(1.0, -5.0)],
        [(float(i), 1e-9 * i) for i in range(1, 500)],
    ],
)
def test_odd_curves(points):
    recipe, nodes = built()
    odd = Curve("train:0", "odd", {"loss": points, "valid_accuracy": points})
    page = sound(render(report(recipe, nodes, read={"train:0": odd, "train:1": curve(1)})))
    described = " ".join(about for picture in page.pictures for about in picture.values())
    assert ("odd: " in described) == bool(points)


def test_recipe_keys_that_differ():
    tables = {
        "train": {"epochs": 7, "lr": 1e-3},
        "dataset": {"split": {"train": 0.3}},
        "batches": {"fanouts": [3, 2]},
    }
    recipe = from_tables("toy", tables)
    assert changed(recipe) == [
        ("dataset.split.train", 0.3, 0.5),
        ("batches.fanouts", [3, 2], [10, 10, 10]),
        ("train.epochs", 7, "auto"),
    ]
    rows = sound(render(report(recipe, []))).table("Keys that differ")
    assert [row[:3] for row in rows] == [
        ["dataset.split.train", "0.3", "0.5"],
        ["batches.fanouts", "[3, 2]", "[10, 10, 10]"],
        ["train.epochs", "7", "auto"],
    ]
    assert "Every key has its default" in "".join(
        sound(render(report(from_tables("toy", {}), []))).words
    )


def test_what_auto_became():
    recipe, nodes = built()
    assert ("partition.parts", "partition", 4) in resolved(recipe, nodes)
    fixed = from_tables("toy", {"partition": {"parts": 9}, "train": {"ingredients": 2}})
    assert "partition.parts" not in {key for key, _, _ in resolved(fixed, nodes)}


def test_software_that_differs_says_where():
    recipe, nodes = built()
    page = sound(render(report(recipe, nodes)))
    assert page.table("Software") == [["numpy", "2.4.6"], ["python", "3.11.7"]]
    nodes[0].manifest["software"] = {"python": "3.12.0"}
    rows = sound(render(report(recipe, nodes))).table("Software")
    assert ["python", "3.12.0", "ingest"] in rows
    assert len([row for row in rows if row[0] == "python"]) == 2


def test_accuracy_on_other_nodes_is_not_called_test_accuracy():
    recipe, nodes = built()
    recipe = with_values(recipe, {"infer.split": "all"})
    words = " ".join("".join(sound(render(report(recipe, nodes))).words).split())
    assert "accuracy 74.00 % on all nodes asked for that have labels, 74.50 % by exact" in words
    assert "test accuracy" not in words


BYTES = st.integers(0, 10**13)


@given(st.data())
def test_stages_sum_up_in_the_picture(data):
    recipe, nodes = built()
    for b in nodes:
        b.manifest.update({"seconds": data.draw(st.floats(0, 1e6)), "peak_bytes": data.draw(BYTES)})
        b.manifest["files"]["facts.json"]["size"] = data.draw(BYTES)
    nodes = [
        replace(b, projected_bytes=data.draw(st.none() | BYTES), cached=data.draw(st.booleans()))
        for b in nodes
    ]
    page = sound(render(report(recipe, nodes)))
    said = next(p["desc"] for p in page.pictures if p["title"].startswith("Stages"))
    for stage in STAGES:
        mine = [b for b in nodes if b.node.stage == stage]
        fresh = sum(not b.cached for b in mine)
        state = (
            "cached"
            if not fresh
            else "built"
            if fresh == len(mine)
            else f"{fresh} of {len(mine)} built"
        )
        stored = sum(b.manifest["files"]["facts.json"]["size"] for b in mine)
        words = [
            state,
            f"{sum(b.manifest['seconds'] for b in mine):,.1f} s",
            f"{human_bytes(stored)} stored",
        ]
        words.append(f"peak {human_bytes(max(b.manifest['peak_bytes'] for b in mine))}")
        projected = [b.projected_bytes for b in mine if b.projected_bytes is not None]
        words += [f"projected {human_bytes(max(projected))}"] if projected else []
        assert f"{stage}: {', '.join(words)}" in said
    for row, b in zip(page.table("Seconds and peak memory"), nodes, strict=True):
        share = b.manifest["peak_bytes"] / b.projected_bytes if b.projected_bytes else None
        assert row[6] == ("" if share is None else f"{100 * share:.0f} %")
        assert (row[2], row[4]) == (
            f"{b.manifest['seconds']:,.1f}",
            human_bytes(b.manifest["peak_bytes"]),
        )


def numbers(value):
    """Every number in a JSON value, also those in its texts, in each way the page may write it."""
    if isinstance(value, dict):
        return set().union(*(numbers(item) for pair in value.items() for item in pair))
    if isinstance(value, (list, tuple)):
        return set().union(set(), *(numbers(item) for item in value))
    if isinstance(value, str):
        return set(NUMBER.findall(value))
    if value is None or isinstance(value, bool):
        return set()
    ways = {
        f"{value}",
        f"{value:,}",
        f"{value:,.1f}",
        f"{value:,.2f}",
        f"{value:.3g}",
        f"{100 * value:.2f}",
    }
    return ways | {human_bytes(value).split()[0]}


NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")


def test_no_number_is_invented():
    """Outside pictures, every figure is one of the summary, the recipe, a manifest or the record
    sizes."""
    recipe, nodes = built()
    draw = random.Random(7)
    for b in nodes:
        b.manifest.update({"seconds": draw.uniform(1, 99), "peak_bytes": draw.randrange(10**9)})
        facts = {
            name: draw.uniform(0, 1)
            for name in ("captured", "edge_cut", "balance", "replication", "nmse")
        }
        b.manifest["facts"] |= {
            name: value for name, value in facts.items() if name in b.manifest["facts"]
        }
    found = report(
        recipe,
        nodes,
        read={"train:0": curve(0), "train:1": curve(1), "pack:train": sizes()},
        command="stockpot run",
    )
    prose = " ".join(sound(render(found)).prose)
    known = numbers(found.summary) | numbers(recipe.tables()) | numbers([b.manifest for b in nodes])
    known |= numbers([sizes().nodes, sizes().edges, sizes().outputs])
    known |= numbers([about for _, key in KEYS.items() for about in (key.about, key.default)])
    known |= {f"{100 * b.manifest['peak_bytes'] / b.projected_bytes:.0f}" for b in nodes}
    for b in nodes:
        known |= set(NUMBER.findall(datetime.fromtimestamp(b.manifest["started"], UTC).isoformat()))
        known |= set(NUMBER.findall(b.key[:12]))
    singles = found.summary["train"]["ingredients"]
    for name in ("valid_accuracy", "test_accuracy"):
        values = [single[name] for single in singles]
        known |= numbers([statistics.mean(values), statistics.stdev(values)])
    known |= {str(n) for n in range(len(nodes) + 1)}  # counts of artifacts and models
    assert set(NUMBER.findall(prose)) - known == set()
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", prose)
