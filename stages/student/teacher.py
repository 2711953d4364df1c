"""What a student is taught: probabilities of every node by exact inference on the whole graph, of
one model or as the mean of several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.infer.full_graph import full_graph_logits, graph_matrix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from stockpot.stages.stage import Reader
    from stockpot.stages.train.model import Network

__all__ = ["teacher_probabilities"]


def teacher_probabilities(
    models: Sequence[tuple[Network, int]],
    graph: Reader,
    x: Tensor,
    report: Callable[[str], Any] | None = None,
) -> NDArray[Any]:
    """Mean of the models' probabilities, of all nodes.

    Parameters
    ----------
    models : each with how often it counts, in eval mode on the device of `x`.
    graph : the ingested graph: `indptr`, `indices`, `weight`.
    x : f4[N, num_features], the rows that the models read.
    report : called after every model.

    Returns
    -------
    f4[N, C]. As much time for every model as `full_graph_logits`; 4 C bytes a node are held beside.
    """
    total = sum(copies for _, copies in models)
    mean: Tensor | None = None
    for done, (model, copies) in enumerate(models):
        found = full_graph_logits(model, graph_matrix(graph, model), x).softmax(1)
        found *= copies / total
        mean = found if mean is None else mean.add_(found)
        if report is not None:
            report(f"{done + 1} of {len(models)} models asked of the whole graph")
    assert mean is not None
    return mean.cpu().numpy()
