"""The HAG dataclass: cover product, counts, and refusal of one that belongs to another CSR."""

from dataclasses import replace

import numpy as np
import pytest

from stockpot.stages.errors import BadInput
from stockpot.stages.hag.hag import Hag, check, cover, csr_crc, plain


def example() -> tuple[Hag, np.ndarray, np.ndarray]:
    """Rows {0,1,2}, {0,1,2}, {0,1,3}: node 4 = 0 + 1, node 5 = 4 + 2."""
    indptr, indices = np.array([0, 3, 6, 9]), np.array([0, 1, 2, 0, 1, 2, 0, 1, 3], np.int32)
    hag = Hag(
        3,
        4,
        np.array([0, 1, 2]),
        np.array([0, 2, 4]),
        np.array([0, 1, 2, 4], np.int32),
        np.array([0, 1, 2, 4]),
        np.array([5, 5, 3, 4], np.int32),
        None,
        None,
        csr_crc(indptr, indices),
        9,
        6,
    )
    return hag, indptr, indices


def test_cover_and_counts():
    hag, indptr, indices = example()
    check(hag, indptr, indices)
    assert cover(hag).toarray().tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert (hag.depth, hag.num_aggregations, hag.num_buffer) == (2, 2, 6)
    assert (hag.reads, hag.adds, hag.reads_ratio, hag.adds_ratio) == (8, 3, 9 / 8, 2.0)


def test_plain_keeps_multi_edges_as_multiplicities():
    indptr, indices = np.array([0, 3, 3, 5], np.int32), np.array([2, 0, 2, 1, 0])
    hag = plain(indptr, indices)
    check(hag, indptr, indices)
    assert cover(hag).toarray().tolist() == [[1, 0, 2], [0, 0, 0], [1, 1, 0]]
    assert hag.out_weight.tolist() == [1, 2, 1, 1]
    assert (hag.plain_reads, hag.plain_adds, hag.depth) == (4, 2, 0)


def test_checksum_does_not_depend_on_the_integer_type():
    indptr, indices = np.array([0, 1, 2]), np.array([1, 0])
    assert csr_crc(indptr, indices) == csr_crc(indptr.astype(np.int32), indices.astype(np.int32))
    assert csr_crc(indptr, indices) != csr_crc(indptr, indices[::-1])


def test_another_csr_is_refused():
    hag, indptr, indices = example()
    with pytest.raises(BadInput, match="checksum"):
        check(hag, indptr, np.where(indices == 3, 2, indices))
    with pytest.raises(BadInput, match="3 rows"):
        check(hag, np.r_[indptr, 9], indices)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"indices": np.array([0, 4, 2, 4], np.int32)}, "own level"),
        ({"out_indices": np.array([5, 6, 3, 4], np.int32)}, "outside"),
        ({"weight": np.array([1, 1, 0, 1], np.int32)}, "multiplicities"),
        ({"level_ptr": np.array([0, 1, 1])}, "level_ptr"),
        ({"out_indptr": np.array([0, 1, 4])}, "out_indptr"),
    ],
)
def test_malformed_levels_are_refused(change, match):
    hag, indptr, indices = example()
    with pytest.raises(BadInput, match=match):
        check(replace(hag, **change), indptr, indices)
