"""What would run is decided here and nowhere else: `run`, `plan` and `status` ask the same planner.

Planning computes keys from recipe values and facts of committed inputs, and writes nothing but stat
caches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stockpot.errors import BadInput, Corrupt, CorruptArtifact
from stockpot.planning import dag
from stockpot.planning.registry import STAGES
from stockpot.stages.errors import sensible
from stockpot.stages.guess import Guess, known
from stockpot.stages.ingest.source import describe, single_file
from stockpot.stages.ingest.source_counts import source_counts
from stockpot.stages.node import NODES, SOURCE
from stockpot.stages.places import local
from stockpot.stages.stage import Cost
from stockpot.store.digests import source_digest
from stockpot.store.inputs import ArtifactInput, SourceInput
from stockpot.store.keys import artifact_key, plain
from stockpot.store.reader import SourceReader

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from stockpot.planning.recipe import Recipe
    from stockpot.stages.ingest.source import Source
    from stockpot.stages.node import Node
    from stockpot.store.digests import StatCache
    from stockpot.store.fingerprints import Seen
    from stockpot.store.store import Store

__all__ = ["AFTER", "BUILD", "CACHED", "CHECKED_BYTES", "Planned", "Planner", "totals"]

_UNKNOWN = Cost(0, 0, 1 << 20)
"""Of a node that may turn out to have nothing to build; what it takes where it has is known by
then."""
CACHED, BUILD, AFTER = "cached", "build", "after"
CHECKED_BYTES = 64 << 20
"""A data set up to this size is read whole by `Planner.check_source`."""


@dataclass(frozen=True)
class Planned:
    """One node as planned now.

    Attributes
    ----------
    state : "cached" | "build" | "after" (its key waits for inputs that are not built).
    reason : why it is not cached, in words.
    params : resolved parameters; where it waits, those the estimated facts give, or None.
    key, digest : where known; `manifest` of a cached one.
    inputs : role -> input, where all are committed.
    facts : actual where cached, else an estimate or None.
    cost : projection, None where facts are unknown.
    damaged : what is wrong with the artifact that is there.
    """

    node: Node
    state: str
    reason: str = ""
    params: Any = None
    key: str | None = None
    digest: str | None = None
    manifest: Mapping[str, Any] | None = None
    inputs: Mapping[str, ArtifactInput | SourceInput] | None = None
    facts: Mapping[str, Any] | None = None
    cost: Cost | None = None
    damaged: str | None = None

    @property
    def cached(self) -> bool:
        return self.state == CACHED

    @property
    def estimated(self) -> bool:
        """Whether `cost` rests on estimated facts."""
        return self.state == AFTER


class Planner:
    """Plans the nodes of one recipe against one store.

    Parameters
    ----------
    stat_cache : digests of source files.
    seen : fingerprints of artifacts, so that files changed since are checked in full.
    force : node ids to treat as not built.
    """

    def __init__(
        self,
        recipe: Recipe,
        store: Store,
        stat_cache: StatCache,
        seen: Seen,
        force: Collection[str] = (),
    ) -> None:
        self.recipe = recipe
        self.store = store
        self.nodes = dag.build(recipe)
        self.force = set(force)
        self._stat_cache = stat_cache
        self._seen = seen
        self._values = recipe.values()
        self._described: dict[str, Source] = {}
        self._sources: dict[str, SourceInput] = {}
        self._counts: dict[str, Any] | None = None

    def source(self, name: str) -> SourceInput:
        """What stands behind `SOURCE` or `NODES`, with its digest.

        Raises
        ------
        BadInput
            It is missing, or changes while it is read.
        """
        if name not in self._sources:
            source = self._describe(name)
            if source.absent is not None:
                raise source.absent
            self._sources[name] = SourceInput(
                source, source_digest(source, self._stat_cache.digest)
            )
        return self._sources[name]

    def _describe(self, name: str) -> Source:
        if name not in self._described:
            if name == SOURCE:
                found = describe(self._values["dataset.source"])
            else:
                ids = str(self._values["infer.split"])
                path = local(ids, "infer.split")
                if not path.is_file():
                    raise BadInput(
                        f'infer.split: expected "test", "all" or a file of node ids, found "{ids}"',
                        fix="--set infer.split=test",
                    )
                found = single_file(ids, path, "nodes")
            self._described[name] = found
        return self._described[name]

    @property
    def absent(self) -> BadInput | None:
        """The error of a run where the data set is not there yet, though its counts are known."""
        return self._describe(SOURCE).absent

    @property
    def left_out(self) -> str:
        """What of the data set is left out on purpose, as one line; "" for nothing."""
        source = self._describe(SOURCE)
        names = ", ".join(source.left_out)
        return f"dataset.source {source.text}: left out: {names}" if names else ""

    def check_source(self, planned: Iterable[Planned]) -> None:
        """Go through a small data set that is to be ingested, as ingest would, so that `plan` says
        what `run` would.

        Of more than `CHECKED_BYTES` only names, headers and counts are looked at, and of `pyg:`,
        which needs torch, names alone.

        Raises
        ------
        BadInput
            What a run would say of the data set.
        """
        stages = {p.node.stage for p in planned if not p.cached}
        if (
            "ingest" not in stages
            or self.absent is not None
            or self._describe(SOURCE).kind not in ("npz", "files", "ogb")
        ):
            return
        from stockpot.stages.ingest.check import check_dataset
        from stockpot.stages.ingest.open import open_dataset
        from stockpot.stages.split import stage as split

        found = self.source(SOURCE)
        with open_dataset(SourceReader(found.source, found.digest)) as data:
            if found.source.bytes() > CHECKED_BYTES:
                data.features()
                return
            labels, splits = check_dataset(data, int(self._values["features.reduce"]))
        if "split" in stages:
            values = {name: self._values[name] for name in split.STAGE.reads}
            params: Any = split.STAGE.resolve(values, {"graph": {"published_splits": len(splits)}})
            published = [splits[params.index][part] for part in split.SPLITS] if splits else []
            split.checked_split(params, labels, published)

    def plan(self, targets: Iterable[str] = ()) -> list[Planned]:
        """Targets and their ancestors, in topological order; everything where no target is named.

        Raises
        ------
        BadInput
            A value of the recipe is wrong, or its files are missing.
        """
        chosen = dag.ancestors(self.nodes, dag.select(self.nodes, targets))
        planned: dict[str, Planned] = {}
        for node in chosen:
            if (found := self.look(node, planned)) is not None:
                planned[node.id] = found
        return list(planned.values())

    def look(self, node: Node, above: Mapping[str, Planned]) -> Planned | None:
        """Plan one node, its parents having been planned; None where there is nothing to build.

        Parents that are not in `above` are such nodes: what reads them does without.

        Raises
        ------
        Corrupt
            The facts of a committed input make no sense.
        """
        stored = [parent for parent in node.parents if parent in above and above[parent].cached]
        if not stored:
            return self._look(node, above)
        with sensible(f"{node.id}: facts of {', '.join(stored)}"):
            return self._look(node, above)

    def _look(self, node: Node, above: Mapping[str, Planned]) -> Planned | None:
        if SOURCE in node.inputs.values() and self.absent is not None:
            return self._ahead(node, above, "its data is not there yet")
        waiting = [
            above[parent] for parent in node.parents if parent in above and not above[parent].cached
        ]
        if waiting:
            stages = list(dict.fromkeys(p.node.stage for p in waiting))
            return self._ahead(node, above, f"after {', '.join(stages)}")
        stage = STAGES[node.stage]
        inputs: dict[str, ArtifactInput | SourceInput] = {}
        facts: dict[str, Mapping[str, Any]] = {}
        digests: list[tuple[str, str]] = []
        for role, name in node.inputs.items():
            if name in (SOURCE, NODES):
                source = self.source(name)
                about = {"reading": source.source.reading} if source.source.reading else {}
                inputs[role], facts[role] = source, {"bytes": source.source.bytes(), **about}
                digests.append((role, source.digest))
            elif (parent := above.get(name)) is not None:
                inputs[role] = ArtifactInput(parent.node.stage, str(parent.key))
                facts[role] = parent.facts or {}
                digests.append((role, str(parent.digest)))
        facts |= {
            role: above[name].facts or {} for role, name in node.advice.items() if name in above
        }
        params = stage.resolve(self._given(node), facts)
        if params is None:
            return None
        key = artifact_key(stage.name, stage.version, plain(params), digests)
        planned = Planned(node, BUILD, "not built yet", params, key, inputs=inputs)
        planned = self._found(planned)
        if planned.cached:
            return replace(planned, cost=self._cost(node, params, facts))
        return self._projected(planned, facts)

    def _found(self, planned: Planned) -> Planned:
        stage, key = planned.node.stage, str(planned.key)
        if planned.node.id in self.force:
            return replace(planned, reason="forced")
        if not self.store.committed(stage, key):
            return planned
        try:
            reader = self.store.open(stage, key)
            self._seen.check(self.store, reader)
        except CorruptArtifact as error:
            return replace(planned, reason="damaged", damaged=error.message)
        except Corrupt as error:
            return replace(planned, reason="damaged", damaged=str(error))
        manifest = reader.manifest
        return replace(
            planned,
            state=CACHED,
            reason="",
            digest=reader.digest,
            manifest=manifest,
            facts=manifest["facts"],
        )

    def _given(self, node: Node) -> dict[str, Any]:
        """Recipe values a stage may see: those it reads, and the node's own."""
        stage = STAGES[node.stage]
        unknown = [name for name in stage.reads if name not in self._values]
        if unknown:
            raise BadInput(
                f"stage {stage.name} reads recipe keys that do not exist: {', '.join(unknown)}"
            )
        return {name: self._values[name] for name in stage.reads} | dict(node.instance)

    def _ahead(self, node: Node, above: Mapping[str, Planned], reason: str) -> Planned | None:
        """A node whose key is not known yet, projected from estimated facts where these are
        known.
        """
        facts: dict[str, Mapping[str, Any]] = {}
        for role, name in (*node.inputs.items(), *node.advice.items()):
            if name not in (SOURCE, NODES, *above):
                continue
            there = {} if name in (SOURCE, NODES) else above[name].facts
            if there is None:
                return Planned(node, AFTER, reason)
            # A fresh guess for every reader: what one touches says nothing about another.
            facts[role] = Guess(dict.copy(there), there.sure) if isinstance(there, Guess) else there
        try:
            params = STAGES[node.stage].resolve(self._given(node), facts)
        except BadInput:
            if any(f.touched for f in facts.values() if isinstance(f, Guess)):
                return Planned(
                    node, AFTER, reason
                )  # perhaps only the guess is wrong: the real facts will tell
            raise
        if params is None:
            if any(f.touched for f in facts.values() if isinstance(f, Guess)):
                return Planned(node, AFTER, f"{reason}, if needed", facts=Guess({}), cost=_UNKNOWN)
            return None
        return self._projected(Planned(node, AFTER, reason, params), facts)

    def _projected(self, planned: Planned, facts: Mapping[str, Mapping[str, Any]]) -> Planned:
        node, values = planned.node, self._values | dict(planned.node.instance)
        facts = self._with_counts(node, facts)
        guess = STAGES[node.stage].planning.guess(known(values, planned.params, facts))
        return replace(planned, facts=guess, cost=self._cost(node, planned.params, facts))

    def _cost(self, node: Node, params: Any, facts: Mapping[str, Mapping[str, Any]]) -> Cost:
        return STAGES[node.stage].cost(params, self._with_counts(node, facts))

    def _with_counts(
        self, node: Node, facts: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Facts by role, those of the data set with its counts: a source has no facts of its
        own.
        """
        roles = [role for role, name in node.inputs.items() if name == SOURCE]
        if not roles:
            return facts
        if self._counts is None:
            self._counts = source_counts(self._describe(SOURCE)) or {}
        return {**facts, **{role: {**facts[role], **self._counts} for role in roles}}


def totals(planned: Sequence[Planned]) -> dict[str, int]:
    """Bytes read and written by what would run, as far as known."""
    costs = [p.cost for p in planned if p.cost is not None and not p.cached]
    return {"read": sum(c.read for c in costs), "written": sum(c.written for c in costs)}
