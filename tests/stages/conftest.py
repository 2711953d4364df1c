"""The trainer's tests read graphs cut in plain scipy (`tests.stages.steps.Pack`) by a loader of their own."""

import pytest

from stockpot.stages.loader.choice import steps_of
from stockpot.stages.train import evaluate


@pytest.fixture(autouse=True)
def _packs_bring_their_loader(monkeypatch):
    def of(reader, *args, **options):
        own = getattr(reader, "batches", None)
        return steps_of(reader, *args, **options) if own is None else own(*args, **options)

    monkeypatch.setattr(evaluate, "steps_of", of)
