"""What judging the hops may spend, in rows that go through a training step or an evaluation;
described without numpy.
"""

from __future__ import annotations

from stockpot.stages.judge.spending import (
    BRANCH_STEPS,
    HIDDEN,
    LEAST_STEP,
    MOST_STEP,
    SAMPLE_BYTES,
    STEM_STEPS,
    Sizes,
    row_passes,
)

__all__ = [
    "LAYERS",
    "LR",
    "MOST_COLUMNS",
    "MOST_HOPS",
    "SEEDS",
    "hops_bytes",
    "rows_allowed",
    "sizes",
]

MOST_HOPS = 2
"""Hops that "auto" may take. A third was no better where it was tried (WordNet), and every one
costs the bytes of the features once more."""
MOST_COLUMNS = 1024
"""Columns above which nothing is multiplied: their products would be most of what is stored."""
LAYERS = 3
"""Of the network that judges, that which the propagated features bring included: the recipe's
default. Deeper networks gain less by propagated features, so two would flatter them."""
LR = 3e-3
"""Lower than the judge of codes has it: its sides read equal columns, here one reads up to three
times as many, and at 1e-2 all were worse on Computers, the widest by most."""
SEEDS = 2
"""Trainings for each number of hops."""
LEAST_ROWS = 1_000_000
"""Rows that may be spent however few the training outputs are: with few labels propagated
features gain the most, and a tenth of a short training could not show it."""
TRAINING = 0.75
"""Share of the rows that training steps get; the rest is for evaluations."""


def rows_allowed(train: int) -> int:
    """Rows that may be spent where `train` outputs are trained on."""
    return max(LEAST_ROWS, row_passes(train))


def sizes(rows: int, per_output: float, train: int, valid: int, columns: int) -> Sizes | None:
    """Outputs that `rows` row-passes carry, None where they are too few to train on.

    Parameters
    ----------
    per_output : rows of a record for each of its outputs.
    train, valid : outputs there are.
    columns : of the features and all their products.
    """
    trainings = SEEDS * (MOST_HOPS + 1)
    steps = trainings * (STEM_STEPS + BRANCH_STEPS)
    step = min(MOST_STEP, int(TRAINING * rows / steps / per_output), train)
    if step < min(LEAST_STEP, train) or not valid:
        return None
    left = rows - steps * step * per_output
    outputs = SAMPLE_BYTES // (4 * columns) / per_output
    evaluated = min(valid, int(left / trainings / per_output), int(0.5 * outputs))
    trained = min(train, (STEM_STEPS + BRANCH_STEPS) * step, max(step, int(0.5 * outputs)))
    return Sizes(step, trained, evaluated) if evaluated > 0 else None


def hops_bytes(nodes: int, columns: int, slab: int, rows: int) -> int:
    """Projected peak of judging: two arrays of a slab's columns, the sample's rows, its records,
    the network, the push.
    """
    wide = (MOST_HOPS + 1) * columns
    sample = min(nodes, rows, SAMPLE_BYTES // (4 * max(1, wide)))
    step = 17 * MOST_STEP
    activations = 4 * step * (4 * wide + 12 * HIDDEN)
    return nodes * (8 * slab + 24) + 4 * wide * sample + 600 * sample + activations + 96 * nodes
