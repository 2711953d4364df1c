"""What a run is worth, in words: from its summary and from stored figures of sampled trainings."""

from dataclasses import replace
from pathlib import Path

import pytest

from stockpot.report.run_outputs import result_text
from stockpot.report.summary import summarise
from stockpot.report.verdict import (
    gain_words,
    next_words,
    sampled_training,
    sampled_words,
    thread_seconds,
    verdict,
)
from tests.pipeline.report.test_summary import built

STORED = {
    "source": "wordnet",
    "splits": [58829, 29415, 29415],
    "peer": "a sampler",
    "about": "fanout 10",
    "cpu": "a processor",
    "command": "python -m bench",
    "trainings": [
        {"epochs": 16, "seconds": 100.0, "valid": 0.85, "test": 0.84},
        {"epochs": 4, "seconds": 25.0, "valid": 0.80, "test": 0.79},
        {"epochs": 8, "seconds": 50.0, "valid": 0.83, "test": 0.825},
    ],
}
GAIN = {"over": "ingredient:1", "accuracy": 0.0151, "error": 0.0016}
SAID = (
    "the soup is 1.51 ± 0.16 points better on them than single model 1, the best on validation "
    "(standard error, paired)"
)


def summary_of(accuracy=0.87, ingredients=4, **changes):
    one = {"best_epoch": 10, "last_epoch": 19}
    return {
        "dataset": {
            "num_features": 128,
            "splits": dict(zip(("train", "valid", "test"), STORED["splits"], strict=True)),
        },
        "stages": {
            "ingest": {"seconds": 30.0},
            "hag": None,
            "propagate": {"seconds": 15.0},
            "infer": {"seconds": 1000.0},
        },
        "train": {"ingredients": [one] * ingredients},
        "soup": {"chosen": "uniform"},
        "infer": {"test_accuracy": accuracy, "sets": {"top_k": 32, "by": "recipe"}},
        **changes,
    }


@pytest.mark.parametrize(
    ("seconds", "found", "beside"),
    [
        (20.0, "79.00 % in 25 s", "(100 s: 84.00 %)"),
        (60.0, "82.50 % in 50 s", "(100 s: 84.00 %)"),
        (100.0, "84.00 % in 100 s", "the longest that was measured"),
        (900.0, "84.00 % in 100 s", "the longest that was measured"),
    ],
)
def test_a_sampled_training_of_the_same_seconds(seconds, found, beside):
    """The best of those that end in time; the shortest where none does."""
    said = sampled_words(summary_of(), "wordnet", seconds, STORED)
    assert found in said
    assert beside in said
    assert (
        f"this run to 87.00 % in at most {seconds:.0f} s of all its threads, preprocessing" in said
    )
    assert said.endswith("repeated by: python -m bench")


def test_figures_of_another_graph_or_split_are_not_held_against_a_run():
    summary = summary_of()
    assert sampled_words(summary, "npz:my.npz", 60.0, STORED) == ""
    fewer = {**summary["dataset"], "splits": {**summary["dataset"]["splits"], "train": 100}}
    assert sampled_words({**summary, "dataset": fewer}, "wordnet", 60.0, STORED) == ""
    unknown = summary_of(accuracy=None)
    assert sampled_words(unknown, "wordnet", 60.0, STORED) == ""


def test_what_to_try_next_follows_from_what_was_not_done():
    assert next_words(summary_of()) == ""
    late = {"ingredients": [{"best_epoch": 19, "last_epoch": 19}] * 3 + [{}]}
    assert "longer trainings" in next_words(summary_of(train=late))
    few = {"ingredients": [{"best_epoch": 19, "last_epoch": 19}, {}, {}, {}]}
    assert "longer" not in next_words(summary_of(train=few))
    plain = {"ingest": {"seconds": 1.0}}
    assert "features.propagate=auto" in next_words(summary_of(stages=plain))
    featureless = {**summary_of()["dataset"], "num_features": 0}
    assert next_words(summary_of(stages=plain, dataset=featureless)) == ""
    assert "train.ingredients=4" in next_words(summary_of(ingredients=1))
    assert "train.warmup" in next_words(summary_of(soup={"chosen": "best"}))
    sets = {"test_accuracy": 0.9, "sets": {"top_k": 16, "by": "training"}}
    assert next_words(summary_of(infer=sets)) == "to try next: --set infer.top_k=auto"


def test_the_gain_of_a_soup_stands_first():
    assert gain_words({}) == ""
    assert gain_words({"gain": GAIN}) == SAID
    worse = {"gain": {**GAIN, "accuracy": -0.002}}
    assert "0.20 ± 0.16 points worse" in gain_words(worse)
    infer = {**summary_of()["infer"], "gain": GAIN}
    lines = verdict(summary_of(infer=infer), "wordnet", 60.0, STORED)
    assert lines[0] == SAID
    assert len(lines) == 2
    assert verdict(summary_of(infer=None), "wordnet", 60.0, STORED) == []
    assert verdict(summary_of(train=None), "wordnet", 60.0, STORED) == []


def test_it_ends_the_output_of_a_run():
    recipe, nodes = built()
    summary = summarise(recipe, nodes)
    summary["verdict"] = [SAID, "to try next: rest"]
    text = result_text(summary, nodes, Path("runs/toy"))
    assert f"\n\nverdict\n  {SAID}\n  to try next: rest\n\n" in text
    assert "verdict" not in result_text({**summary, "verdict": []}, nodes, Path("runs/toy"))


def test_stored_figures_are_whole():
    """What `tests.bench.sampled_training` wrote."""
    stored = sampled_training()
    assert set(STORED) <= set(stored)
    assert (stored["source"], stored["splits"]) == ("wordnet", [58829, 29415, 29415])
    seconds = [one["seconds"] for one in stored["trainings"]]
    assert seconds == sorted(seconds)
    assert all(0 < one["test"] < 1 for one in stored["trainings"])
    assert "tests.bench.sampled_training" in stored["command"]


def test_seconds_are_those_of_all_threads_that_a_stage_had():
    """Two threads of one stage are held against one thread of the sampler as two."""
    _, nodes = built()
    counted = [b for b in nodes if b.node.stage not in ("reach", "student", "infer", "codeloss")]
    assert len(counted) < len(nodes)
    assert thread_seconds(nodes) == 1.5 * 2 * len(counted)
    old = [
        replace(b, manifest={k: v for k, v in b.manifest.items() if k != "threads"}) for b in nodes
    ]
    assert thread_seconds(old) == 1.5 * len(counted)
