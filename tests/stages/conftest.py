"""The trainer's tests read graphs cut in plain scipy (`tests.stages.steps.Pack`) by a loader of
their own."""

from dataclasses import dataclass
from typing import Any

import pytest

from stockpot.stages.loader.options import Delivery, Schedule, Source
from stockpot.stages.loader.steps_of import steps_of
from stockpot.stages.train import evaluate
from tests.loaders import flat_options


@dataclass(frozen=True)
class Own(Source):
    """A source whose reader brings its loader."""

    reader: Any = None
    artifacts: Any = None


@pytest.fixture(autouse=True)
def _packs_bring_their_loader(monkeypatch):
    real = Source.from_reader.__func__

    def from_reader(cls, reader, order=None, loads=None):
        if not hasattr(reader, "batches"):
            return real(cls, reader, order, loads)
        artifacts = {
            name: value for name, value in (("order", order), ("loads", loads)) if value is not None
        }
        return Own(None, "", "", reader=reader, artifacts=artifacts)

    def of(source, form, schedule=None, delivery=None, member=None):
        if not isinstance(source, Own):
            return steps_of(source, form, schedule, delivery, member)
        how = flat_options(form, schedule or Schedule(), delivery or Delivery())
        return source.reader.batches(
            **source.artifacts, **how, **({} if member is None else {"member": member})
        )

    monkeypatch.setattr(Source, "from_reader", classmethod(from_reader))
    monkeypatch.setattr(evaluate, "steps_of", of)
