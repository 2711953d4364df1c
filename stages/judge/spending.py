"""What the judge may spend, in rows that go through a training step or an evaluation; described
without numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["JUDGED", "Sizes", "judge_bytes", "row_passes", "sizes"]

JUDGED = ("gcn", "sage", "gat", "gin")
"""Models that can be judged by."""
LAYERS, HIDDEN, DROPOUT, HEADS = 2, 128, 0.2, 4
"""The network that judges, whatever `[train]` says but its model: a change of any other key recodes
nothing. Two layers average errors less than three, so a code is not judged more kindly than a
deeper model would."""
LR = 1e-2
STEM_STEPS, BRANCH_STEPS = 240, 40
"""Training steps on fp32 that all sides start from, and of each side of a pair from there."""
PAIRS, LEAST_PAIRS = 4, 2
"""Pairs of trainings a code is compared by, at most, and the fewest that can allow it."""
TOP_K, ALPHA, EPS = 16, 0.25, 2e-4
"""Of the records: the recipe's defaults."""
SHARE = 0.1
"""Of the row-passes of the training that is served, at most; see `row_passes`."""
EPOCHS = 160
"""Epochs of that training, all ingredients together: what stockpot's own recipes do; the default
recipe does more."""
ROWS_PER_OUTPUT = 4
"""Rows of a record by output, as of WordNet: on denser graphs records have more, and the judge a
smaller share."""
MOST_ROWS = 8_000_000
BRANCHES = 12
"""Sides the rows are dealt for: two pairs of fp32 and five codes."""
TRAINING = 0.6
"""Share of the rows that training steps get; the rest is for evaluations."""
LEAST_STEP, MOST_STEP = 32, 512
"""Outputs of a training step: below, nothing is learned in so few steps, and nothing is judged."""
SAMPLE_BYTES = 1 << 30
"""Of the fp32 rows of the sample's nodes."""


@dataclass(frozen=True)
class Sizes:
    """Outputs of the judge's sample.

    Attributes
    ----------
    step : of a training step. train : of all training records. valid : of all that is evaluated.
    """

    step: int
    train: int
    valid: int


def row_passes(train: int) -> int:
    """Rows the judge may spend where `train` outputs are trained on: a share of `EPOCHS` epochs
    over their records.
    """
    return min(MOST_ROWS, int(SHARE * EPOCHS * ROWS_PER_OUTPUT * train))


def sizes(rows: int, per_output: float, train: int, valid: int, num_features: int) -> Sizes | None:
    """Outputs that `rows` row-passes carry, None where they are too few to train on.

    Parameters
    ----------
    per_output : rows of a record for each of its outputs.
    train, valid : outputs there are.
    """
    steps = STEM_STEPS + BRANCHES * BRANCH_STEPS
    step = min(MOST_STEP, int(TRAINING * rows / steps / per_output), train)
    if step < LEAST_STEP:
        return None
    left = rows - steps * step * per_output
    nodes = SAMPLE_BYTES // (4 * num_features) / per_output
    evaluated = min(valid, int(left / BRANCHES / per_output), int(0.5 * nodes))
    trained = min(train, STEM_STEPS * step, max(step, int(0.5 * nodes)))
    return Sizes(step, trained, evaluated) if evaluated > 0 else None


def judge_bytes(num_nodes: int, num_features: int, rows: int) -> int:
    """Projected peak of judging: the sample's features and their codes, its records, the network,
    the push.
    """
    sample = min(num_nodes, rows, SAMPLE_BYTES // (4 * max(1, num_features)))
    step = 17 * MOST_STEP
    activations = 4 * step * (4 * num_features + 12 * HIDDEN)
    return 4 * num_features * sample * 2 + 600 * sample + activations + 96 * num_nodes
