"""Cooperative steps equal those of one process: losses, gradients, parameters after Adam, rows and
bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.exchange.halo_plan import links
from stockpot.stages.exchange.rank_partition import bounds, cut, owned
from stockpot.stages.exchange.stage import STAGE, Params
from stockpot.stages.loader.options import RankPart
from stockpot.stages.loader.records import Records
from stockpot.stages.pack.join import join
from stockpot.stages.partition import STAGE as PARTITION
from stockpot.stages.train.trainer import _adam
from tests.coop_ranks import MODELS, argparse, gradient, loss_of, model_of, options
from tests.loaders import read_steps, record_steps
from tests.memory import run_stage
from tests.packs import features, packed
from tests.stages.pack.test_sample_pack import packed as sampled

WORLD = 4
ROOT = Path(__file__).resolve().parents[3]
PARTITIONS = ("random", "skewed", "one", "metis")
KINDS = {
    "plain": {},
    "directed": {"directed": True, "weighted": True},
    "sparse": {"binary": True, "features": 40},
    "tiers": {"codec": "pq2", "tier": (0.3, 2), "features": 8, "nodes": 600},
    "empty": {"records": {"outputs": 7, "records": 3, "aux": 5}},
    "sampled": {"changes": {"fanouts": [3, 2, 4], "importance_sampling": -1}},
    "sampled-weighted": {
        "changes": {"method": "neighbor", "fanouts": [3, 3, 2]},
        "directed": True,
        "weighted": True,
    },
    "sampled-once": {
        "changes": {"method": "neighbor", "fanouts": [2, 3, 2], "layer_dependency": True}
    },
}
EVERYWHERE = ("plain", "empty")
"""Kinds that are tried with every partition, the others with random blocks."""
ALONE = ("plain", "directed", "tiers", "empty", "sampled", "sampled-weighted", "sampled-once")


def partitioned(root, how, **kind):
    """A pack whose blocks are random, of very different sizes, or all but one empty."""
    import tests.packs as packs

    plain = packs.partition_reader

    def chosen(num_nodes, parts=8, seed=0):
        reader = plain(num_nodes, parts, seed)
        draw = np.random.default_rng(5).random(num_nodes)
        if how == "skewed":
            reader.arrays["part"] = np.where(draw < 0.9, 0, 7).astype(np.int32)
        if how == "one":
            reader.arrays["part"] = np.full(num_nodes, 5, np.int32)
        if how == "metis":
            graph = packs.graph_reader(nodes=num_nodes)
            params = PARTITION.resolve(
                {"partition.method": "metis", "partition.parts": parts}, {"graph": graph.facts}
            )
            reader.arrays["part"] = run_stage(
                PARTITION, params, {"graph": graph}, root / "metis"
            ).array("part")
        return reader

    packs.partition_reader = chosen
    try:
        reader = (sampled if "changes" in kind else packed)(root, **kind)[0]
    finally:
        packs.partition_reader = plain
    return reader


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(cases, folder of what every rank found)."""
    folder = tmp_path_factory.mktemp("coop")
    cases = {}
    for how in PARTITIONS:
        for kind, kwargs in KINDS.items():
            if how != "random" and kind not in EVERYWHERE:
                continue
            reader = partitioned(folder / f"{how}-{kind}", how, **kwargs)
            for ranks in (1, 2, 3, 4):
                linked = run_stage(
                    STAGE, Params(ranks), {"records": reader}, folder / f"{how}-{kind}-{ranks}"
                )
                for model in MODELS if ranks > 1 else MODELS[:1]:
                    modes = [(1, 0), (2, 1 << 20)]
                    if kind in ALONE and ranks > 1 and model != "sage":
                        modes += [(1, None), (3, None)]
                    for per_step, crossing in modes:
                        mode = "alone" if crossing is None else "together"
                        cases[f"{how}-{kind}-{model}-{ranks}-{per_step}-{mode}"] = {
                            "packed": [str(p) for p in Records.from_reader(reader).paths],
                            "links": [str(linked.path(n)) for n in linked.names()],
                            "first": np.concatenate(
                                [[0], np.cumsum(linked.facts["records_of_shards"])]
                            ).tolist(),
                            "ranks": ranks,
                            "model": model,
                            "per_step": per_step,
                            "crossing": crossing,
                        }
    (folder / "cases.json").write_text(json.dumps(cases))
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.coop_ranks", str(folder)]
    ranks = [
        subprocess.Popen([*command, str(r), str(WORLD)], env=env, cwd=ROOT, stderr=subprocess.PIPE)
        for r in range(WORLD)
    ]
    ends = [(rank.communicate(timeout=300)[1], rank.returncode) for rank in ranks]
    first = [
        error.decode()[-3000:] for error, code in ends if code and b"closed by peer" not in error
    ]
    assert not first, "\n".join(first)
    assert not any(code for _, code in ends)
    return cases, folder


def alone(case):
    """Loss, gradient and logits of the first step and parameters after three, by one process on
    whole steps."""
    records = Records(case["packed"])
    model = model_of(case["model"], records.codec.num_features)
    steps = record_steps(
        records, store_key="0" * 32, split="train", per_step=case["per_step"], **options(model)
    )
    adam = _adam(model, argparse(lr=1e-2, weight_decay=1e-3))
    found = {}
    for i, step in enumerate(steps):
        if i == 3:
            break
        logits = model(step.x, step.adjs)
        loss = loss_of(logits, step.y, int((step.y >= 0).sum()))
        adam.zero_grad(set_to_none=True)
        loss.backward()
        if i == 0:
            found |= {
                "loss": loss.detach().numpy(),
                "grad": gradient(model).numpy(),
                "ids": step.input_id.numpy(),
            }
            found |= {"logits": logits.detach().numpy(), "n_id": step.n_id.numpy()}
        adam.step()
    found["params"] = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    return found


def test_losses_gradients_and_parameters_equal_those_of_one_process(ran):
    cases, folder = ran
    assert len(cases) == 14 * (3 * 3 + 1) * 2 + 13 * 3 * 2 * 2
    expected = {}
    for name, case in cases.items():
        same = (tuple(case["packed"]), case["model"], case["per_step"])
        if same not in expected:
            expected[same] = alone(case)
        one = expected[same]
        assert np.abs(one["grad"]).max() > 1e-3
        ranks = [np.load(folder / f"{name}.{rank}.npz") for rank in range(case["ranks"])]
        for found in ranks:
            np.testing.assert_allclose(
                found["loss"][0], one["loss"], rtol=0, atol=1e-12, err_msg=name
            )
            np.testing.assert_allclose(found["grad"], one["grad"], rtol=0, atol=1e-12, err_msg=name)
            np.testing.assert_allclose(
                found["params"], one["params"], rtol=0, atol=1e-10, err_msg=name
            )
            np.testing.assert_array_equal(found["params"], ranks[0]["params"])
        ids_read = sorted(np.concatenate([found["n_id"] for found in ranks]))
        if case["crossing"] is not None:
            assert ids_read == sorted(one["n_id"])
        elif case["per_step"] < case["ranks"]:
            assert set(ids_read) <= set(
                one["n_id"]
            )  # what no output reaches within the layers is left out
        ids = np.concatenate([found["ids"] for found in ranks])
        order = {int(i): k for k, i in enumerate(ids)}
        logits = np.concatenate([found["logits"] for found in ranks])[
            [order[int(i)] for i in one["ids"]]
        ]
        np.testing.assert_allclose(logits, one["logits"], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_the_exchange_and_its_gradient_are_adjoint(ran, ranks):
    for rank in range(ranks):
        forth, back = np.load(ran[1] / f"adjoint{ranks}.{rank}.npz")["both"]
        assert abs(forth - back) <= 1e-12 * max(1, abs(forth))
        assert forth != 0


def test_rows_that_cross_are_those_planned(ran):
    cases, folder = ran
    for name, case in cases.items():
        if case["crossing"] is None:
            continue
        records = Records(case["packed"])
        deepest = 0
        for i in range(case["per_step"]):
            joined = join([records[i]], 3)
            found = bounds(records[i].block_ptr, case["ranks"])
            owner = np.concatenate(
                [np.repeat(np.arange(case["ranks"]), np.diff(hop)) for hop in found]
            )
            edges = joined.layers[-1] if joined.layered else joined
            row = np.repeat(np.arange(edges.indptr.size - 1), np.diff(edges.indptr))
            pairs = np.unique(np.stack([owner[row], edges.indices]), axis=1)
            deepest += int((owner[pairs[1]] != pairs[0]).sum())
        received = sum(
            np.load(folder / f"{name}.{rank}.npz")["received"][0] for rank in range(case["ranks"])
        )
        assert received == deepest, name


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_pieces_are_a_partition_and_links_their_two_sides(tmp_path, ranks):
    reader = partitioned(tmp_path, "random", directed=True, weighted=True)
    for record in Records.from_reader(reader):
        pieces, sides = [cut(record, ranks, r) for r in range(ranks)], links(record, ranks)
        mine = [owned(record.block_ptr, ranks, r).rows for r in range(ranks)]
        np.testing.assert_array_equal(np.sort(np.concatenate(mine)), np.arange(record.num_nodes))
        assert sum(piece.layers[0].indices.size for piece in pieces) == record.num_edges
        for r, (piece, side) in enumerate(zip(pieces, sides, strict=True)):
            rows = np.concatenate([mine[r], piece.remote])
            for i, row in enumerate(mine[r]):
                edges = piece.layers[0]
                span = slice(*edges.indptr[i : i + 2])
                whole = slice(*record.indptr[row : row + 2])
                np.testing.assert_array_equal(rows[edges.indices[span]], record.indices[whole])
                np.testing.assert_array_equal(edges.weight[span], record.weight[whole])
            np.testing.assert_array_equal(side.deg, record.deg[piece.remote])
            for p in range(ranks):
                sent = mine[p][sides[p].send[slice(*sides[p].send_ptr[r : r + 2])]]
                np.testing.assert_array_equal(
                    sent, piece.remote[slice(*piece.remote_ptr[p : p + 2])]
                )
                np.testing.assert_array_equal(
                    sides[p].send_used[slice(*sides[p].send_ptr[r : r + 2])],
                    side.used[slice(*piece.remote_ptr[p : p + 2])],
                )


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("kind", ["plain", "sampled", "sampled-once"])
def test_rows_read_together_and_alone_are_those_of_a_search(tmp_path, ranks, kind):
    reader = partitioned(tmp_path, "random", **KINDS[kind])
    facts = run_stage(STAGE, Params(ranks), {"records": reader}, tmp_path / "links").facts
    together, alone, received = np.zeros(9, int), np.zeros(9, int), np.zeros(8, int)
    for record in Records.from_reader(reader):
        n = record.num_nodes
        ends = np.cumsum(record.num_sampled_nodes)
        layers = record.layers or [record] * 8
        a = [
            sp.csr_matrix(
                (
                    np.ones(x.indices.size),
                    x.indices,
                    np.pad(x.indptr, (0, n + 1 - x.indptr.size), "edge"),
                ),
                (n, n),
            )
            for x in layers
        ]
        together += [ends[min(d, ends.size - 1)] for d in range(9)]
        owner, hop = np.empty(n, int), np.searchsorted(ends, np.arange(n), side="right")
        for rank in range(ranks):
            owner[owned(record.block_ptr, ranks, rank).rows] = rank
        for rank in range(ranks):
            reached = (owner == rank) & (hop == 0)
            for d in range(9):
                alone[d] += reached.sum()
                if d < len(a):
                    reached = reached | (a[d].T @ reached > 0)
            for h in range(8):
                if not record.layered or h < len(a):
                    reads = a[min(h, len(a) - 1)].T @ ((owner == rank) & (hop <= h)) > 0
                    received[h] += (reads & (owner != rank)).sum()
    assert facts["together"]["rows"] == together.tolist()
    assert facts["alone"]["rows"] == alone.tolist()
    assert facts["received"] == received.tolist()
    assert sum(facts["rows"]) == together[-1]
    if ranks == 1:
        assert facts["alone"] == facts["together"]


def test_more_ranks_than_blocks_are_refused(tmp_path):
    record = Records.from_reader(partitioned(tmp_path, "random"))[0]
    with pytest.raises(
        BadInput, match="expected at most 4, one a block of the packed records, found 5"
    ):
        bounds(record.block_ptr, 5)


@pytest.mark.parametrize("ranks", [0, 65])
def test_a_number_of_ranks_that_cannot_be_is_refused_by_the_stage(ranks):
    with pytest.raises(
        BadInput,
        match=f"train.ranks: expected 1 to 64, one a block of the packed records, found {ranks}",
    ):
        STAGE.resolve({"train.ranks": ranks}, {"records": {"K": 64}})


def steps_of(reader, linked, rank, **options):
    member = RankPart(rank, linked.facts["ranks"], linked)
    return read_steps(reader, member=member, layers=2, shuffle=False, prefetch=0, **options)


@pytest.mark.parametrize("gather", [False, True])
@pytest.mark.parametrize("codec", ["fp32", "lossless"])
def test_every_row_is_read_by_one_rank_and_checked(tmp_path, gather, codec):
    reader = partitioned(
        tmp_path, "random", gather=gather, codec=codec, binary=codec != "fp32", features=40
    )
    linked = run_stage(STAGE, Params(3), {"records": reader}, tmp_path / "links")
    x = features(reader.parents["graph"])
    whole = 0
    for i, steps in enumerate(
        zip(*(steps_of(reader, linked, rank) for rank in range(3)), strict=True)
    ):
        ids = np.concatenate([step.n_id.numpy() for step in steps])
        expected = join([Records.from_reader(reader)[i]], 2).n_id
        np.testing.assert_array_equal(np.sort(ids), np.sort(expected))
        for step in steps:
            np.testing.assert_array_equal(step.x.numpy(), x[step.n_id.numpy()])
        whole += ids.size
    assert whole > 0


def test_a_flipped_byte_of_a_row_is_found_by_its_owner_alone(tmp_path):
    reader = partitioned(tmp_path, "random", codec="fp32")
    linked = run_stage(STAGE, Params(2), {"records": reader}, tmp_path / "links")
    place = Records.from_reader(reader).place(1)
    codes = Records.from_reader(reader).unchecked(1).codes
    data = bytearray(place.path.read_bytes())
    first = data.index(codes[0].tobytes(), place.offset)
    data[first] ^= 1
    place.path.write_bytes(data)
    with pytest.raises(Corrupt, match="rank 0's rows of record 1 do not match"):
        steps_of(reader, linked, 0)[1]
    assert steps_of(reader, linked, 1)[1].n_id.numel() > 0


def test_a_rank_outside_the_team_is_refused(tmp_path):
    reader = partitioned(tmp_path, "random")
    linked = run_stage(STAGE, Params(2), {"records": reader}, tmp_path / "links")
    with pytest.raises(BadInput, match="expected 0 <= rank < 2, found 2"):
        steps_of(reader, linked, 2)
