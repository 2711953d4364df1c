"""Whether ranks cooperate: bytes predicted are bytes read, and the faster mode is chosen."""

import pytest
import torch

from stockpot.stages.errors import BadInput
from stockpot.stages.exchange.cost_model import Rates, Traffic, choice, predicted, widths
from stockpot.stages.exchange.stage import STAGE, Params
from stockpot.stages.loader.options import RankPart
from tests.coop_ranks import model_of
from tests.loaders import read_steps
from tests.memory import run_stage
from tests.stages.exchange.test_exchange import KINDS, partitioned

READ = {"shuffle": False, "prefetch": 0, "layers": 2, "adj": "norm"}


@pytest.mark.parametrize(
    ("kind", "gather"),
    [
        *((kind, False) for kind in ("plain", "sparse", "tiers", "sampled", "sampled-weighted")),
        *((kind, True) for kind in ("plain", "sparse", "tiers")),
    ],
)
@pytest.mark.parametrize("ranks", [2, 3])
def test_feature_bytes_read_are_those_predicted(tmp_path, kind, ranks, gather):
    reader = partitioned(tmp_path, "random", **KINDS[kind], **({"gather": True} if gather else {}))
    linked = run_stage(STAGE, Params(ranks), {"records": reader}, tmp_path / "links")
    rounds = reader.facts.get("rounds", 1)
    for per_step in (1, ranks):
        found = predicted(linked.facts, reader.facts, config(reader), per_step)
        together = [
            read_steps(reader, member=RankPart(r, ranks, linked), per_step=per_step, **READ)
            for r in range(ranks)
        ]
        alone = [
            read_steps(reader, member=RankPart(r, ranks), per_step=per_step, **READ)
            for r in range(ranks)
        ]
        for mode, all_steps in (("cooperative", together), ("independent", alone)):
            for steps in all_steps:
                for epoch in range(rounds):
                    steps.set_epoch(epoch)
                    for _ in steps:
                        pass
            read = sum(steps.assembler.feature_bytes for steps in all_steps)
            left = (
                reader.facts["records"] // rounds % per_step
            )  # a last step of fewer records than ranks: which, is luck
            assert read / rounds == pytest.approx(found[mode].features, rel=0.05 if left else 1e-4)
            assert read > 0
        assert found["cooperative"].features <= found["independent"].features
        if per_step == 1:
            assert found["cooperative"].features < found["independent"].features


def config(reader):
    facts = reader.facts
    return {
        "model": "gcn",
        "num_features": facts["num_features"],
        "num_classes": 4,
        "hidden": 8,
        "layers": 2,
        "dropout": 0.0,
        "normalization": "sym",
        "mass": "none",
        "self_loops": True,
    }


def facts(row_bytes=None):
    """Of a split of 100 records for 2 ranks."""
    return {
        "ranks": 2,
        "row_bytes": row_bytes,
        "received": [10, 30, 70],
        "together": {
            "rows": [10, 100, 400, 900],
            "edges": [0, 50, 500, 2000],
            "features": [1, 2, 3, 3600],
        },
        "alone": {
            "rows": [10, 150, 700, 1600],
            "edges": [0, 50, 700, 3500],
            "features": [1, 2, 3, 6400],
        },
    }


@pytest.mark.parametrize(
    ("name", "row_bytes", "sent"),
    [
        ("gcn", None, 70 * 4 * 6 + (30 + 10) * 2 * 4 * 8),
        ("sage", 5, 70 * 5 + (30 + 10) * 2 * 4 * 8),
        ("sage", 4 * 6 + 1, 70 * 4 * 6 + (30 + 10) * 2 * 4 * 8),
        ("gat", None, (70 + 30) * 2 * 4 * 8 + 10 * 2 * 4 * 2 * 4),
    ],
)
def test_what_crosses_are_features_once_and_hidden_rows_both_ways(name, row_bytes, sent):
    found = predicted(
        facts(row_bytes), {"weighted": False, "records": 100}, model_of(name, 6).config, 1
    )
    assert found["cooperative"].interconnect == sent
    assert found["independent"].interconnect == 0
    assert found["cooperative"].storage == 900 * 8 + 400 * 4 + 2000 * 4 + 3600
    assert found["independent"].storage == 1600 * 8 + 700 * 4 + 3500 * 4 + 6400
    assert found["independent"].work > found["cooperative"].work
    dealt = predicted(
        facts(row_bytes), {"weighted": False, "records": 100}, model_of(name, 6).config, 2
    )["independent"]
    assert dealt.storage == found["cooperative"].storage
    assert dealt.interconnect == 0


def test_an_epoch_of_several_rounds_takes_one_of_them():
    config, three = model_of("gcn", 6).config, {"weighted": False, "records": 300, "rounds": 3}
    one = predicted(facts(), {"weighted": False, "records": 100}, config, 1)
    whole = facts()
    whole["received"] = [3 * n for n in whole["received"]]
    for mode in ("together", "alone"):
        whole[mode] = {kind: [3 * n for n in counts] for kind, counts in whole[mode].items()}
    assert predicted(whole, three, config, 1) == one


@pytest.mark.parametrize("name", ["gcn", "sage", "gat"])
def test_widths_are_those_of_the_models(name):
    model = model_of(name, 6)
    x, made = torch.randn(5, 6).double(), []
    for i, width in enumerate(widths(model.config)):
        made.append(model.project(i, x).shape[1])
        assert made[-1] == width
        x = torch.randn(5, int(model.config["hidden"])).double()
    assert len(made) == model.config["layers"]


@pytest.mark.parametrize(("name", "times"), [("gat", 2), ("gcn", 1)])
def test_what_attention_projects_in_bf16_crosses_in_two_bytes(name, times):
    packed, config = {"weighted": False, "records": 100}, model_of(name, 6).config
    half, whole = (
        predicted(facts(), packed, config, 1, bf16=bf16)["cooperative"] for bf16 in (True, False)
    )
    assert times * half.interconnect == whole.interconnect


SLOW, FAST = 1e6, 1e12


@pytest.mark.parametrize(
    ("storage", "interconnect", "mode"),
    [(SLOW, FAST, "cooperative"), (FAST, SLOW, "independent"), (FAST, FAST, "cooperative")],
)
def test_the_slower_link_decides(storage, interconnect, mode):
    found = {
        "cooperative": Traffic(10**6, 0, 10**6, 10**9),
        "independent": Traffic(2 * 10**6, 0, 0, 2 * 10**9),
    }
    made = choice("auto", found, Rates(storage, interconnect, 1e12), 2, 1)
    assert made["mode"] == mode
    assert made["why"].startswith(f"{mode}: predicted to be faster; ")
    asked = choice("independent", found, Rates(storage, interconnect, 1e12), 2, 1)
    assert asked["mode"] == "independent"
    assert "train.exchange says so" in asked["why"]
    assert asked["predicted"] == made["predicted"]


def test_records_that_do_not_divide_over_the_ranks_are_waited_for():
    found = {"cooperative": Traffic(10**6, 0, 0, 0), "independent": Traffic(10**6, 0, 0, 0)}
    made = choice("auto", found, Rates(1e6, 1e6, 1e6), 2, 3)["predicted"]
    assert made["cooperative"]["seconds"] == pytest.approx(0.5)
    assert made["independent"]["seconds"] == pytest.approx(2 / 3)


def test_an_unknown_mode_is_refused():
    with pytest.raises(
        BadInput, match=r"train\.exchange: expected auto, cooperative, independent, found 'both'"
    ):
        choice("both", {}, Rates(1, 1, 1), 2, 1)


def test_logits_of_no_output_have_a_gradient():
    from stockpot.stages.exchange.rank_step import ShareStep
    from stockpot.stages.processes.process_group import Team

    model = model_of("gat", 6)
    none = torch.zeros(0, dtype=torch.int64)
    step = ShareStep(torch.zeros((0, 6)), (), none, none, none, (0, 0), 0, num_labelled=5)
    logits = Team(1, 2).forward(model, step)
    assert logits.shape == (0, 4)
    logits.sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
