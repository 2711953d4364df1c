import numpy as np
import pytest
import scipy.sparse as sp

from stockpot.stages.errors import BadInput
from stockpot.stages.loader.records import Records
from stockpot.stages.pack import join as module
from stockpot.stages.pack.join import join
from tests.loaders import read_steps
from tests.packs import packed

KINDS = {
    "plain": {},
    "directed": {"directed": True, "weighted": True},
    "sparse": {"binary": True, "features": 40},
}


@pytest.fixture(scope="module", params=KINDS)
def pack(request, tmp_path_factory):
    reader, _ = packed(tmp_path_factory.mktemp("pack"), **KINDS[request.param])
    return reader


@pytest.fixture
def records(pack):
    return list(Records.from_reader(pack))


def dense(joined):
    rows = len(joined.indptr) - 1
    values = np.ones(len(joined.indices)) if joined.weight is None else joined.weight
    return sp.csr_matrix(
        (values, joined.indices, joined.indptr), (rows, joined.n_id.size)
    ).toarray()


@pytest.mark.parametrize("layers", [None, 1, 2, 20])
def test_a_join_is_its_records_side_by_side(records, layers):
    chosen = [records[i] for i in (4, 0, 5, 2)]
    joined, single = join(chosen, layers), [join([r], layers) for r in chosen]
    together = dense(joined)
    expected = np.zeros_like(together)
    for r, (record, one) in enumerate(zip(chosen, single, strict=True)):
        to = joined.rows[r]
        assert len(to) == joined.kept[r] == one.n_id.size
        assert (np.diff(to) > 0).all()
        np.testing.assert_array_equal(joined.n_id[to], record.n_id[: len(to)])
        np.testing.assert_array_equal(joined.deg[to], record.deg[: len(to)])
        if record.weight is not None:
            np.testing.assert_array_equal(joined.deg_w[to], record.deg_w[: len(to)])
            np.testing.assert_array_equal(joined.out_deg[to], record.out_deg[: len(to)])
        mine = dense(one)
        expected[np.ix_(to[: len(mine)], to)] = mine
        np.testing.assert_array_equal(joined.y[to[: record.num_outputs]], record.y)
        np.testing.assert_array_equal(joined.input_id[to[: record.num_outputs]], record.input_id)
    np.testing.assert_array_equal(together, expected)
    assert (
        np.concatenate(joined.rows).size
        == np.unique(np.concatenate(joined.rows)).size
        == joined.n_id.size
    )
    assert all((np.diff(s) > 0).all() for s in np.split(joined.indices, joined.indptr[1:-1]))


def test_hops_and_blocks_stay_contiguous(records):
    joined = join(records)
    hops = max(len(r.block_ptr) for r in records)
    assert joined.block_ptr.shape == (hops, 5)
    np.testing.assert_array_equal(
        joined.num_sampled_nodes, joined.block_ptr[:, -1] - joined.block_ptr[:, 0]
    )
    for h in range(hops):
        for b in range(4):
            span = joined.n_id[joined.block_ptr[h, b] : joined.block_ptr[h, b + 1]]
            mine = [
                r.n_id[r.block_ptr[h, b] : r.block_ptr[h, b + 1]]
                for r in records
                if h < len(r.block_ptr)
            ]
            np.testing.assert_array_equal(span, np.concatenate(mine))


def test_one_record_is_not_copied(records):
    joined = join([records[0]])
    assert joined.rows is None
    assert np.shares_memory(joined.indices, records[0].indices)
    assert np.shares_memory(joined.n_id, records[0].n_id)


@pytest.mark.parametrize("adj", ["norm", "mean"])
def test_a_joined_step_gives_each_record_its_own_outputs(pack, adj):
    options = {"layers": 3, "adj": adj, "mass": "row", "shuffle": False, "prefetch": 0}
    single = read_steps(pack, **options)
    joined = read_steps(pack, per_step=4, **options)

    def outputs(step):
        x = step.x.double().numpy()
        for a in step.adjs:
            csr = a.csr
            x = (
                sp.csr_matrix(
                    (csr.values().numpy(), csr.col_indices().numpy(), csr.crow_indices().numpy()),
                    csr.shape,
                )
                @ x
            )
        return dict(zip(step.input_id.tolist(), x, strict=True))

    expected = {k: v for step in single for k, v in outputs(step).items()}
    found = {k: v for step in joined for k, v in outputs(step).items()}
    assert found.keys() == expected.keys()
    for k, v in expected.items():
        np.testing.assert_allclose(found[k], v, rtol=1e-6, atol=1e-9)


def test_a_step_beyond_32_bit_ids_is_refused(records, monkeypatch):
    monkeypatch.setattr(module, "INT32_MAX", 20)
    with pytest.raises(BadInput, match=r"step of 2 records.*lower train.per_step"):
        join(records[:2])
