"""Remarks say what a user should know about a run's results, each with its cause and the setting that mends it.

They follow from manifests and the recipe alone, so a cached run makes the same ones. An "auto" that weighed both sides
and took the cheaper one is no remark; one that could not do what it is there for is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.planning import dag
from stockpot.stages.codec.auto import keeps
from stockpot.stages.codec.format import EXACT
from stockpot.stages.hag.stage import enabled
from stockpot.stages.judge.sizes import SHARE
from stockpot.stages.judge.stage import JUDGED
from stockpot.stages.sizing.choice import MOST_ROWS, STEP_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.report.built import Built

    ById = Mapping[str, Built]

__all__ = ["NOTICEABLE", "remarks", "row_pass_share"]

NOTICEABLE = 0.01
"""Share of accuracy from which batched and full-graph inference are said to disagree."""
_TOLERANCE = 1e-9
_SHARED_START = "--set train.warmup=10 --set train.schedule=constant --set train.vary=2"


def remarks(recipe: Recipe, built: Sequence[Built]) -> list[str]:
    """One line a remark, none where there is nothing to say.

    Parameters
    ----------
    recipe : of the run.
    built : its committed artifacts; rules about stages that are not among them are silent.
    """
    by_id = {b.node.id: b for b in built}
    return [line for rule in _RULES for line in rule(recipe, by_id)]


def row_pass_share(by_id: ById) -> float | None:
    """Row-passes of the judge over those of all epochs of the run's trainings; None where either is not there."""
    judge, packed = by_id.get("judge"), by_id.get("pack:train")
    epochs = sum(int(b.facts.get("epochs") or 0) for b in by_id.values() if b.node.stage in ("train", "warmup"))
    if judge is None or packed is None or not epochs:
        return None
    rows = int(packed.facts["rows"]) / int(packed.facts.get("rounds", 1))
    return float(judge.facts.get("row_passes") or 0) / (epochs * rows)


def _facts(by_id: ById, node: str) -> Mapping[str, Any]:
    """Facts of an artifact; empty where it is not built."""
    return by_id[node].facts if node in by_id else {}


def _training_disagrees_with_inference(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """The chosen model is worth more, or less, on records than on the whole graph."""
    facts = _facts(by_id, "infer")
    batched, whole = facts.get("test_accuracy"), facts.get("full_graph_test_accuracy")
    if batched is None or whole is None or abs(batched - whole) <= NOTICEABLE + _TOLERANCE:
        return
    figures = f"{100 * batched:.2f} % batched, {100 * whole:.2f} % by exact inference on the full graph"
    if batched < whole:
        cause = "records of inference hold too few of their nodes' neighbours"
    else:
        cause = "the model learned on records that hold a part of their nodes' neighbours, and meets all of them there"
    inferred = "pack:infer" if "pack:infer" in by_id else "pack:test"
    mend = _larger_records(recipe, by_id, inferred if batched < whole else "pack:train")
    yield (
        f"batched inference is {100 * abs(batched - whole):.1f} points {'below' if batched < whole else 'above'} "
        f"full-graph inference ({figures}): {cause}; fix: {mend}"
    )


def _larger_records(recipe: Recipe, by_id: ById, packed: str) -> str:
    """The setting by which the records of a packed split hold more of their nodes' neighbours."""
    method = recipe.batches.method
    if method in dag.SAMPLED:
        return f"larger batches.fanouts, e.g. --set batches.fanouts={[2 * k for k in recipe.batches.fanouts]}"
    if method == "batch":
        return f"--set batches.aux_ratio={2 * recipe.batches.aux_ratio:g}"
    records = by_id.get(f"influence:{packed.removeprefix('pack:')}")
    params: Mapping[str, Any] = records.manifest["params"] if records is not None else {}
    top_k, outputs = params.get("top_k"), params.get("outputs")
    settings = []
    if top_k:
        name = "infer.top_k" if packed != "pack:train" else "batches.top_k"
        settings.append(f"--set {name}={2 * int(top_k)}")
    if outputs:
        settings.append(f"--set batches.outputs={2 * int(outputs)}")
    trained = by_id.get("train:0")
    if recipe.train.model == "gcn" and (trained is None or trained.manifest["params"].get("mass", "none") == "none"):
        settings.append("--set graph.mass=row")
    return " ".join(settings) or "larger batches.outputs"


def _soup_gains_nothing(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """Several models were trained, and one alone is what ships; or a soup that was asked for is worse than one."""
    facts = _facts(by_id, "soup")
    methods: Mapping[str, Any] = facts.get("methods") or {}
    chosen, best = methods.get(str(facts.get("chosen"))), methods.get("best")
    if recipe.train.ingredients < 2 or recipe.soup.method == "best" or chosen is None or best is None:
        return
    gain = _judged(chosen) - _judged(best)
    if recipe.soup.method != "auto" and gain < 0:
        yield (
            f"the soup that was asked for, {facts['chosen']}, is {-100 * gain:.2f} points below the best single model "
            f"on validation; fix: --set soup.method=auto, which keeps the better one"
        )
    elif facts["chosen"] == "best" or gain <= 0:
        mend = "a longer train.warmup, or a higher train.lr after it" if recipe.train.warmup else _SHARED_START
        yield (
            f"no soup of {recipe.train.ingredients} models is better than the best of them on validation: "
            f"{_why_no_gain(facts)}; fix: {mend}, or --set train.ingredients=1"
        )


def _judged(method: Mapping[str, Any]) -> float:
    """The accuracy a method is chosen by: cross-fitted, where its artifact says so."""
    return float(method.get("cross_fitted_accuracy", method.get("valid_accuracy")) or 0.0)


def _why_no_gain(facts: Mapping[str, Any]) -> str:
    methods = facts["methods"]
    behind = [i for i in facts.get("ingredients") or [] if i.get("barrier") and not i["barrier"]["soupable"]]
    drop = _judged(methods["best"]) - _judged(methods["uniform"]) if "uniform" in methods else 0.0
    if behind or drop > NOTICEABLE:
        return f"they drifted apart in training, their mean is {100 * drop:.1f} points below"
    return "they are too much alike to add to each other"


def _ingredients_behind_barriers(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """Between an ingredient and the best one the loss is higher than at either."""
    measured = [i["barrier"] for i in _facts(by_id, "soup").get("ingredients") or [] if i.get("barrier")]
    behind = [barrier for barrier in measured if not barrier["soupable"]]
    if behind:
        highest = max(barrier["height"] for barrier in behind)
        mend = "a longer train.warmup, or a smaller train.vary" if recipe.train.warmup else _SHARED_START
        yield (
            f"{len(behind)} of {len(measured)} ingredients lie behind a barrier (highest {highest:.2f} nats) and are "
            f"left out of learned soups: they drifted apart in training; fix: {mend}"
        )


def _order_breaks_dependence(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """Batches that depend on their neighbours pay only where these follow each other."""
    sampling = _facts(by_id, "sample:train").get("sampling") or {}
    kappa, order = sampling.get("kappa", 1), _facts(by_id, "order")
    method, window = order.get("method"), int(order.get("window", 0))
    if kappa in (1, None, "inf") or method is None or (method == "overlap" and window != 1):
        return
    asked = f"order.method = {method!r}" + (" with order.window = 1" if method == "overlap" else "")
    cache = ' --set order.cache="10%"' if recipe.order.cache == 0 else ""
    yield (
        f"batches.kappa = {kappa} makes consecutive batches share rows, and {asked} deals them apart: nothing is "
        f"shared; fix: --set order.method=overlap --set order.window={max(2, min(int(kappa), 64))}{cache}, or "
        "--set batches.kappa=1"
    )


def _sizes_fell_back(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """No size that was measured holds enough of the neighbours at a bearable cost."""
    splits: Mapping[str, Any] = _facts(by_id, "sizing").get("splits") or {}
    lacking = {name: one["held"] for name, one in splits.items() if not one["enough"]}
    sizes = {f"batches.{key}": getattr(recipe.batches, key) for key in ("top_k", "outputs")}
    chosen = [name for name, value in sizes.items() if value == "auto"]
    if lacking and chosen:
        shares = "; ".join(f"{name} {100 * h[0]:.0f} and {100 * h[1]:.0f} %" for name, h in lacking.items())
        yield (
            f"{' and '.join(chosen)} auto: no size of records holds enough of the neighbours of their outputs, and of "
            f"those ones' neighbours, within {MOST_ROWS:g} rows a node and {STEP_BYTES >> 20} MiB a step ({shares} are "
            "held); fix: larger ones by hand, e.g. --set batches.top_k=64 --set batches.outputs="
            f"{2 * max(one['outputs'] for one in splits.values())}, or features in fewer columns (features.reduce)"
        )


def _codec_fell_back(recipe: Recipe, by_id: ById) -> Iterator[str]:
    facts, graph = _facts(by_id, "judge"), _facts(by_id, "ingest")
    if recipe.features.codec != "auto":
        return
    if graph.get("num_features") and recipe.train.model not in JUDGED and not keeps(recipe.values(), graph):
        yield (
            f"features.codec auto: features stay without loss: no judge runs train.model {recipe.train.model!r}, only "
            f"{', '.join(JUDGED)}; fix: name a codec, e.g. --set features.codec=sq8"
        )
    if facts and facts.get("codec") in EXACT and facts["codec"] != "fp16":
        yield (
            f"features.codec auto: features stay {facts['codec']}, no smaller code is shown to cost at most "
            f"{100 * recipe.features.max_accuracy_drop:.2f} points ({facts.get('reason')}); fix: "
            f"--set features.codec={facts['codec']} saves the comparison, a larger features.max_accuracy_drop allows "
            "one"
        )


def _code_costs_accuracy(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """The chosen model is worth less on coded features than was allowed."""
    facts, allowed = _facts(by_id, "codeloss"), recipe.features.max_accuracy_drop
    drop = facts.get("accuracy_drop")
    if drop is not None and drop > allowed + _TOLERANCE:
        yield (
            f"features as {facts['codec']} cost the chosen model {100 * drop:.2f} points of validation accuracy "
            f"({100 * facts['valid_accuracy']:.2f} % on them, {100 * facts['fp32_valid_accuracy']:.2f} % on fp32), "
            f"features.max_accuracy_drop is {100 * allowed:.2f}; fix: --set features.codec=fp32"
        )


def _judge_costs_passes(_: Recipe, by_id: ById) -> Iterator[str]:
    """The judge is sized for trainings of many epochs, whatever this recipe's are: its key holds none of them."""
    share = row_pass_share(by_id)
    if share is not None and share > SHARE + _TOLERANCE:
        codec = _facts(by_id, "judge").get("codec")
        yield (
            f"choosing the codec took {100 * share:.0f} % of the rows of this training, which is a short one; fix: "
            f"--set features.codec={codec} names the choice"
        )


def _partition_fell_back(recipe: Recipe, by_id: ById) -> Iterator[str]:
    if recipe.partition.method == "auto" and _facts(by_id, "partition").get("method") == "stream":
        yield (
            "partition.method auto: stream, which cuts more edges, since KaMinPar is projected to need more than 64 "
            "GiB here; fix: --set partition.method=kaminpar, on a machine that has them"
        )


def _sums_not_shared(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """Records were found to gain, but no record could be given a HAG: weights do not factor."""
    packed = [b.facts["hag"] for b in by_id.values() if b.node.stage == "pack" and "hag" in b.facts]
    asked = enabled(recipe.hag.enabled) == "auto" and _facts(by_id, "hag").get("use")
    if asked and packed and not any(int(facts["records"]) for facts in packed):
        yield (
            "hag.enabled auto: records were predicted to gain from shared sums, and none has them: their edge weights "
            "are no product of a factor a row and one a column; fix: --set hag.enabled=never saves the search"
        )


def _device_fell_back(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """GPUs were there and were not used."""
    trained = by_id.get("train:0")
    found = trained.note("gpus") if trained is not None else None
    if trained is None or not found or recipe.train.device != "auto" or trained.manifest["params"]["device"] != "cpu":
        return
    if not found["usable"]:
        yield (
            f"train.device auto: trained on the CPU, though this machine has {found['present']} GPU(s): its torch is "
            "built without CUDA; fix: install a CUDA build of torch, or --set train.device=cpu"
        )
    elif recipe.train.ranks > found["present"]:
        yield (
            f"train.device auto: trained on the CPU: {recipe.train.ranks} ranks take a GPU each, and this machine has "
            f"{found['present']}; fix: --set train.ranks={found['present']}, or --set train.device=cpu"
        )


def _soups_fell_back(recipe: Recipe, by_id: ById) -> Iterator[str]:
    facts = _facts(by_id, "soup")
    if recipe.soup.method != "auto" or recipe.train.ingredients < 2 or (facts.get("parts") or {}).get("divided", True):
        return
    records, labelled = _facts(by_id, "pack:valid").get("records"), facts.get("labelled")
    yield (
        f"soup.method auto: the validation split ({labelled} labelled outputs in {records} records) is too small to "
        "make soups on one half and compare them on the other: those that are learned are left out; fix: a larger "
        "dataset.split.valid, or smaller records by batches.outputs"
    )


def _said_in_training(recipe: Recipe, by_id: ById) -> Iterator[str]:
    """What trainings noted, each once, with the ingredients that did."""
    del recipe
    who: dict[str, list[str]] = {}
    for node, b in by_id.items():
        if b.node.stage in ("train", "warmup"):
            for line in b.note("remarks") or []:
                who.setdefault(line, []).append(node)
    yield from (f"{', '.join(nodes)}: {line}" for line, nodes in who.items())


_RULES: tuple[Callable[[Recipe, ById], Iterator[str]], ...] = (
    _training_disagrees_with_inference,
    _soup_gains_nothing,
    _ingredients_behind_barriers,
    _order_breaks_dependence,
    _sizes_fell_back,
    _codec_fell_back,
    _code_costs_accuracy,
    _judge_costs_passes,
    _partition_fell_back,
    _sums_not_shared,
    _device_fell_back,
    _soups_fell_back,
    _said_in_training,
)
"""Every remark there is, the weightiest first. A new one is a function here."""
