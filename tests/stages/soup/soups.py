"""Small problems whose best soup is known: a linear classifier, convex in the mixing weights, and
steps for it."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from stockpot.stages.soup.kept_batches import Batches
from stockpot.stages.soup.scorer import Scorer
from stockpot.stages.soup.stack import Stack
from stockpot.stages.step import Step


class Plain(nn.Module):
    """Reads the rows of a step and no edge: `Plain(nn.Linear(4, 3))`."""

    def __init__(self, *parts):
        super().__init__()
        self.net = nn.Sequential(*parts)

    def forward(self, x, adjs):
        return self.net(x)


def step(x, y):
    ids = torch.arange(len(y))
    return Step(x, (), y, ids, ids, (len(y),), len(y))


def problem(
    parts,
    count=4,
    spread=0.5,
    records=6,
    per=30,
    seed=0,
    classes=3,
    features=4,
    dtype=torch.float64,
):
    """(model, ingredients' states near one start, steps): ingredients are the truth with noise of
    their own."""
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Plain(*parts()).to(dtype).eval()
    base = {k: v.clone() for k, v in model.state_dict().items()}
    states = []
    for _ in range(count):
        noisy = {
            k: v + spread * torch.randn(v.shape, generator=draw, dtype=dtype)
            if v.is_floating_point()
            else v
            for k, v in base.items()
        }
        states.append(noisy)
    steps = []
    for _ in range(records):
        x = torch.randn(per, features, generator=draw, dtype=dtype)
        y = (model(x, ()) + torch.randn(per, classes, generator=draw, dtype=dtype)).argmax(1)
        y[torch.rand(per, generator=draw) < 0.1] = -1
        steps.append(step(x, y))
    return model, states, steps


def scorer_of(model, states, steps, **options):
    return Scorer(model, Stack(states, model), Batches(model, steps, 1 << 30), **options)


def linear():
    return [nn.Linear(4, 3)]


def deep():
    return [nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)]


def draws(records, seed=0):
    """All records at every step."""
    del seed
    while True:
        yield list(range(records))


def simplex(n, seed):
    w = np.random.default_rng(seed).dirichlet(np.ones(n))
    return SimpleNamespace(one=w, table=lambda t: np.tile(w, (t, 1)))
