"""What `features.codec = "auto"` keeps without loss: decided from counts, so that nothing is
measured where coding buys nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stockpot.stages.codec.format import describe
from stockpot.stages.errors import BadInput
from stockpot.stages.units import bytes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stockpot.stages.codec.format import Codec
    from stockpot.stages.stage import Facts

__all__ = ["code_bytes", "exact_codec", "judged", "keeps", "lossless_limit", "smaller_bits"]

_WORTH = 0.5
"""Features that are mostly 0 are kept as their values where these take no more than this share of
the fp32 bytes."""


def code_bytes(codec: Codec, graph: Facts) -> int:
    """Bytes of the codes of all nodes, row pointers of rows of varying length included."""
    if codec.row_bytes is not None:
        return int(graph["num_nodes"]) * codec.row_bytes
    return int(graph["x_nnz"]) * codec.entry_bytes + 8 * (int(graph["num_nodes"]) + 1)


def smaller_bits(graph: Facts) -> str:
    """The smaller of the two codes of binary features."""
    # Rows of one length win a tie: they need no row pointer when they are read.
    columns = int(graph["num_features"])
    return min(
        ("lossless-bits", "lossless-sparse"),
        key=lambda name: code_bytes(describe(name, columns), graph),
    )


def exact_codec(graph: Facts) -> str:
    """The codec that loses nothing of features, by their counts: bits, values that are not 0, or
    fp32.
    """
    if graph["binary"]:
        return smaller_bits(graph)
    columns = int(graph["num_features"])
    values, plain = (
        code_bytes(describe(name, columns), graph) for name in ("lossless-values", "fp32")
    )
    return "lossless-values" if values <= _WORTH * plain else "fp32"


def lossless_limit(recipe: Mapping[str, Any]) -> int:
    """Bytes of `features.lossless_up_to`.

    Raises
    ------
    BadInput
        It is no size.
    """
    asked = str(recipe.get("features.lossless_up_to", "2GB"))
    found = 0 if asked.strip() == "0" else bytes_of(asked)
    if found is None:
        raise BadInput(
            f'features.lossless_up_to: expected bytes or a size such as "2GB", or 0, found '
            f'"{asked}"',
            fix="--set features.lossless_up_to=2GB",
        )
    return found


def judged(facts: Mapping[str, Facts]) -> str:
    """The codec a judge chose of features that are not kept by their size; what loses nothing where
    none had a say.
    """
    return str(facts["judge"]["codec"]) if "judge" in facts else exact_codec(facts["graph"])


def keeps(recipe: Mapping[str, Any], graph: Facts) -> bool:
    """Whether `auto` keeps features without loss, nothing being measured.

    They are binary, so that their exact code is the smallest, or their fp32 rows take no more bytes
    than `features.lossless_up_to`.
    """
    plain = 4 * int(graph["num_nodes"]) * int(graph["num_features"])
    return plain <= lossless_limit(recipe) or bool(graph["binary"])
