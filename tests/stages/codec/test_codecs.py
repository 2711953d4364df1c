"""Lossy codecs from a graph's features to decoded rows, against numpy and float64."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stockpot.stages.codebook import STAGE as CODEBOOK
from stockpot.stages.codec.coder import Coder, Sums, units
from stockpot.stages.codec.fit import fit
from stockpot.stages.codec.format import Codec, decode, describe
from stockpot.stages.codec.nearest import chains, gram, nearest, offsets
from stockpot.stages.codec.residual import refit
from stockpot.stages.codec.rotation import principal
from stockpot.stages.errors import BadInput, Corrupt
from stockpot.stages.quantize import STAGE
from tests.memory import run_stage
from tests.packs import features, graph_reader, packed

SCALARS = ("sq1", "sq2", "sq4", "sq8")
LOSSY = (
    *SCALARS,
    "pq1",
    "pq3",
    "opq1",
    "opq3",
    "rq1",
    "rq3",
    "bifeat-sq1",
    "bifeat-sq4",
    "bifeat-sq8",
    "bifeat-vq4-16",
    "bifeat-vq3-300",
)


def coder(name, x):
    """Coder fitted on all rows."""
    shift = x.mean(0, dtype=np.float64).astype(np.float32)
    reach = np.abs(x - shift).max(0)
    return Coder(name, {**fit(name, x, shift), "shift": shift, "scale": units(reach, len(x))})


def coded(name, x):
    """(codec, nmse, codes) of rows coded at once."""
    one = coder(name, x)
    codes, sums = one.encode(x)
    return (*one.codec(sums), codes)


def ids_of(codec, codes):
    """[n, units]"""
    return codes.view(f"<u{codec.lookup.unit}")


def correlated(rows, columns, seed=0, rank=4):
    """Rows near a few directions with unequal scales: what vector codes are for."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, rank)) @ rng.normal(size=(rank, columns)) + 0.1 * rng.normal(
        size=(rows, columns)
    )
    return (x * np.geomspace(1, 10, columns) + rng.normal(size=columns)).astype(np.float32)


def built(tmp_path, name, g):
    inputs = {"graph": g}
    facts = {"graph": g.facts}
    book = CODEBOOK.resolve({"features.codec": name}, facts)
    inputs["codebook"] = run_stage(CODEBOOK, book, inputs, tmp_path / "codebook")
    return run_stage(
        STAGE, STAGE.resolve({"features.codec": name}, facts), inputs, tmp_path / "codes"
    )


def nmse(x, found):
    wide = x.astype(np.float64)
    return ((wide - found) ** 2).sum() / ((wide - wide.mean(0)) ** 2).sum()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", LOSSY)
def test_facts_say_what_is_stored(tmp_path, name, sparse):
    g = graph_reader(nodes=700, features=11, sparse=sparse)
    reader = built(tmp_path, name, g)
    codec = Codec.from_reader(reader)
    x, facts = features(g), reader.facts
    found = decode(codec, reader.array("codes"))
    # The rotation of fp32 is orthonormal to rounding.
    assert facts["nmse"] == pytest.approx(
        nmse(x, found), rel=1e-5 if name.startswith("opq") else 1e-9
    )
    assert facts["table_bytes"] == sum(t.nbytes for t in codec.tables.values()) == codec.table_bytes
    assert facts["code_bytes"] == reader.array("codes").size
    assert facts["compression_ratio"] == x.nbytes / (facts["table_bytes"] + facts["code_bytes"])


@pytest.mark.parametrize("shift", [0.0, 3.0, -40.0])
def test_the_spread_is_about_the_mean_whatever_values_are_counted_from(shift):
    tables = {"levels": np.float32([[0, 4]]), "shift": np.full(1, shift), "scale": np.ones(1)}
    coder = Coder("sq1", tables)
    _, sums = coder.encode(np.float32([[1], [3], [5]]))
    assert coder.spread(sums) == pytest.approx(8)
    assert coder.codec(sums)[1] == pytest.approx(2 / 8)


@given(
    rows=st.integers(1, 700),
    columns=st.integers(1, 19),
    name=st.sampled_from(SCALARS),
    scale=st.sampled_from([1e-6, 1.0, 1e7]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_the_nearest_level_is_chosen_and_decodes_to_the_mean_of_its_values(
    rows, columns, name, scale, seed
):
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(rows, columns)) ** 3 + rng.normal(size=columns)).astype(
        np.float32
    )
    codec, error, codes = coded(name, x)
    levels = coder(name, x).levels.astype(np.float64)
    fields = np.arange(columns)
    bits = int(name[2:])
    ids = (codes[:, fields * bits // 8] >> (fields * bits % 8).astype(np.uint8)) & (2**bits - 1)
    chosen = np.abs(x - levels[fields, ids])
    nearest = np.abs(x[:, :, None] - levels).min(2)
    assert (chosen <= nearest * (1 + 1e-5) + 1e-6 * np.abs(x)).all()
    found = decode(codec, codes)
    assert error == pytest.approx(nmse(x, found), rel=1e-6, abs=1e-12) if rows > 1 else error == 0
    step = float(np.finfo(codec.tables["levels"].dtype).eps)
    for j in range(columns):
        for k in np.unique(ids[:, j]):
            mine = x[ids[:, j] == k, j].astype(np.float64)
            assert found[ids[:, j] == k, j][0] == pytest.approx(
                mine.mean(), rel=step, abs=1e-6 * scale
            )


@cache
def fitted(name):
    return coder(name, np.random.default_rng(0).standard_t(3, size=(6000, 5)).astype(np.float32))


@given(cuts=st.lists(st.integers(1, 5), max_size=4, unique=True), name=st.sampled_from(LOSSY))
@settings(max_examples=20, deadline=None)
def test_the_same_codes_and_tables_for_any_chunks(cuts, name):
    x = np.random.default_rng(0).standard_t(3, size=(6000, 5)).astype(np.float32)
    one, parts, found = fitted(name), [], []
    codes, sums = one.encode(x)
    codec, error = one.codec(sums)
    edges = [0, *(1024 * c for c in sorted(cuts)), len(x)]
    for start, stop in itertools.pairwise(edges):
        codes_of_span, sums = one.encode(x[start:stop])
        parts.append(sums)
        found.append(codes_of_span)
    other, other_error = one.codec(Sums.together(reversed(parts)))
    np.testing.assert_array_equal(np.concatenate(found), codes)
    assert other_error == error
    assert other.tables_to_bytes() == codec.tables_to_bytes()


@pytest.fixture(scope="module", params=[False, True], ids=["dense", "sparse"])
def chunked(request, tmp_path_factory):
    """(graph, name -> its codebook, its codes as built in one piece)."""
    g, root, found = (
        graph_reader(nodes=5000, features=6, sparse=request.param),
        tmp_path_factory.mktemp("whole"),
        {},
    )

    def of(name):
        if name not in found:
            params = CODEBOOK.resolve({"features.codec": name}, {"graph": g.facts})
            book = run_stage(CODEBOOK, params, {"graph": g}, root / f"{name}-book")
            params = STAGE.resolve({"features.codec": name}, {"graph": g.facts})
            found[name] = (
                book,
                run_stage(STAGE, params, {"graph": g, "codebook": book}, root / f"{name}-codes"),
            )
        return found[name]

    return g, of


@given(
    name=st.sampled_from(LOSSY),
    shard=st.integers(1, 6),
    chunk=st.integers(1, 6),
    threads=st.integers(1, 4),
)
@settings(max_examples=12, deadline=None)
def test_the_same_artifacts_for_any_shards_chunks_and_threads(
    tmp_path_factory, chunked, name, shard, chunk, threads
):
    g, of = chunked
    book, codes = of(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stockpot.stages.codec.row_blocks.SHARD_ROWS", 1024 * shard)
        patch.setattr("stockpot.stages.codec.feature_blocks.CHUNK_BYTES", 4 * 6 * 1024 * chunk)
        root, inputs = tmp_path_factory.mktemp("parts"), {"graph": g}
        params = CODEBOOK.resolve({"features.codec": name}, {"graph": g.facts})
        inputs["codebook"] = mine = run_stage(
            CODEBOOK, params, inputs, root / "book", threads=threads
        )
        params = STAGE.resolve({"features.codec": name}, {"graph": g.facts})
        assert len(STAGE.shards(params, inputs)) == -(-5000 // (1024 * shard))
        found = run_stage(STAGE, params, inputs, root / "codes", threads=threads)
    for one, other in ((mine, book), (found, codes)):
        assert one.facts == other.facts
        assert {n: a.tobytes() for n, a in one.arrays.items()} == {
            n: a.tobytes() for n, a in other.arrays.items()
        }


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_more_bits_less_error(spread):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(20_000, 8)) * np.geomspace(1, spread, 8)).astype(np.float32)
    errors = [coded(name, x)[1] for name in SCALARS]
    # Max (1960), table I: of a normal variable with 2, 4 and 16 levels.
    for error, best in zip(errors, (0.3634, 0.1175, 0.009497, 4e-5), strict=True):
        assert error < 1.02 * best


def test_constant_columns_zero_rows_and_few_values_are_exact():
    x = np.random.default_rng(2).integers(0, 4, (300, 6)).astype(np.float32) * 1e-7
    x[:, 2], x[::3] = 7.25, 0
    codec, error, codes = coded("sq4", x)
    np.testing.assert_array_equal(decode(codec, codes), x)
    assert error == 0
    assert codec.tables["levels"].dtype == np.float32  # half floats would not be exact
    one = np.float32([[3.5, -70000.0]])
    codec, error, codes = coded("sq8", one)
    np.testing.assert_array_equal(decode(codec, codes), one)
    assert error == 0


@pytest.mark.parametrize("name", LOSSY)
def test_numpy_and_torch_decode_to_the_same_bits(name):
    import torch

    from tests.decode_tensor import decode_tensor

    x = np.random.default_rng(3).normal(size=(500, 13)).astype(np.float32)
    codec, _, codes = coded(name, x)
    expected = decode(codec, codes)
    np.testing.assert_array_equal(decode_tensor(codec, torch.from_numpy(codes)).numpy(), expected)
    if torch.cuda.is_available():
        found = decode_tensor(codec, torch.from_numpy(codes).cuda())
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


@pytest.mark.parametrize("name", ["sq4", "pq3", "rq2", "bifeat-vq3-100"])
def test_packed_files_are_readable_alone(tmp_path, name):
    from stockpot.stages.loader.records import Records

    reader, inputs = packed(tmp_path, codec=name, features=9)
    records = Records.from_reader(reader)
    every = decode(Codec.from_reader(inputs["codes"]), inputs["codes"].array("codes"))
    for record in records:
        np.testing.assert_array_equal(decode(records.codec, record.codes), every[record.n_id])
    assert records.meta["requires"] == ["codec:" + name.rstrip("0123456789-")]


def test_values_that_are_not_finite_are_named(tmp_path):
    g = graph_reader()
    g.arrays["x"][17, 3] = np.nan
    with pytest.raises(BadInput, match=r"found nan at node 17, column 3; fix: "):
        built(tmp_path, "sq4", g)


def test_descriptions_without_tables_or_with_others_do_not_decode():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    codec, _, codes = coded("sq2", x)
    again = Codec.from_json(codec.to_json(), codec.tables_to_bytes())
    assert again == codec
    np.testing.assert_array_equal(decode(again, codes), decode(codec, codes))
    with pytest.raises(BadInput, match="expected its tables"):
        decode(Codec.from_json(codec.to_json()), codes)
    with pytest.raises(Corrupt, match="expected tables of 32 bytes, found 33"):
        Codec.from_json(codec.to_json(), codec.tables_to_bytes() + b"0")
    with pytest.raises(Corrupt, match="expected tables"):
        Codec.from_json(codec.to_json(), {"levels": np.zeros((4, 2), np.float32)})


@pytest.mark.parametrize("name", LOSSY)
def test_a_decoded_row_is_the_sum_of_the_entries_its_codes_choose(name):
    check_sums(name, correlated(400, 13))


@pytest.mark.parametrize(
    "name", ["pq4", "pq8", "pq32", "pq7", "rq2", "rq4", "rq5", "rq9", "sq1", "sq4"]
)
def test_every_width_and_number_of_stages_has_its_sums(name):
    check_sums(name, correlated(400, 64))


def check_sums(name, x):
    codec, error, codes = coded(name, x)
    lookup, expected = codec.lookup, np.zeros(x.shape, np.float64)
    for u in range(len(lookup)):
        expected[:, lookup.lo[u] : lookup.hi[u]] += lookup.table(u)[ids_of(codec, codes)[:, u]]
    rows = np.random.default_rng(0).permutation(500)[:400].astype(np.int32)
    out = np.full((500, x.shape[1]), 7, np.float32)
    decode(codec, codes, out=out, rows=rows)
    np.testing.assert_allclose(out[rows], expected, rtol=1e-5, atol=1e-5)
    assert (np.delete(out, rows, axis=0) == 7).all()
    assert error == pytest.approx(nmse(x, decode(codec, codes)), rel=1e-6, abs=1e-12)
    assert codec.row_bytes == codes.shape[1] == describe(name, x.shape[1]).row_bytes


@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 70),
    entries=st.sampled_from([1, 7, 256, 300]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_the_nearest_centroid_is_found(rows, columns, entries, seed):
    rng = np.random.default_rng(seed)
    x, table = (rng.normal(size=(n, columns)).astype(np.float32) for n in (rows, entries))
    out = np.empty(rows, np.uint32)
    nearest(x, np.ascontiguousarray(table.T), offsets(table), out)
    far = ((x[:, None].astype(np.float64) - table) ** 2).sum(2)
    np.testing.assert_allclose(far[np.arange(rows), out], far.min(1), rtol=1e-4, atol=1e-4)


@given(
    stages=st.integers(1, 3),
    entries=st.integers(1, 5),
    rows=st.integers(1, 70),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_a_beam_as_wide_as_all_chains_finds_the_best(stages, entries, rows, seed):
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=(stages, entries, 6)).astype(np.float32)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    flat, out = tables.reshape(-1, 6), np.empty((rows, stages), np.uint8)
    chains(
        x, np.ascontiguousarray(flat.T), offsets(flat), gram(tables), stages, entries**stages, out
    )
    sums = np.array(
        [sum(t[k] for t, k in zip(tables, c, strict=True)) for c in np.ndindex(*[entries] * stages)]
    )
    best = ((x[:, None].astype(np.float64) - sums) ** 2).sum(2).min(1)
    mine = sum(tables[m][out[:, m]] for m in range(stages))
    np.testing.assert_allclose(((x - mine) ** 2).sum(1), best, rtol=1e-3, atol=1e-4)


def test_equal_bytes_a_residual_code_beats_a_product_code_and_both_beat_bifeat():
    x = correlated(6000, 32)
    errors = {
        name: coded(name, x)[1]
        for name in ("rq2", "pq2", "bifeat-vq16-256", "rq4", "pq4", "sq1", "bifeat-sq1")
    }
    assert errors["rq2"] < errors["pq2"] < errors["bifeat-vq16-256"]
    assert errors["rq4"] < errors["pq4"] < errors["sq1"] < errors["bifeat-sq1"]


def test_refitted_tables_are_the_least_squares_solution():
    rng = np.random.default_rng(0)
    x, codes = (
        rng.normal(size=(400, 5)).astype(np.float32),
        rng.integers(0, 6, (400, 2)).astype(np.uint8),
    )
    found = refit(x, codes, np.zeros((2, 6, 5), np.float32))
    design = np.concatenate(
        [codes[:, :1] == np.arange(6), codes[:, 1:] == np.arange(6)], axis=1
    ).astype(np.float64)
    best = np.linalg.lstsq(design, x.astype(np.float64), rcond=None)[0]
    mine = design @ found.reshape(12, 5)
    assert ((x - mine) ** 2).sum() == pytest.approx(((x - design @ best) ** 2).sum(), rel=1e-4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bifeats_scalar_code_is_the_published_formula(bits):
    x = (np.random.default_rng(0).normal(size=(3000, 4)) ** 3).astype(np.float32)
    codec, _, codes = coded(f"bifeat-sq{bits}", x)
    size = np.abs(x.astype(np.float64))
    fmin, fmax = max(np.quantile(size, 0.005), 1e-5), max(np.quantile(size, 0.995), 2e-5)
    emin, emax, half = np.log2(fmin), np.log2(fmax) + 1e-5, 2 ** (bits - 1)
    e = np.floor((np.log2(np.clip(size, fmin, fmax)) - emin) / (emax - emin) * half)
    expected = np.sign(x) * 2 ** ((e + 0.5) * (emax - emin) / half + emin)
    found = decode(codec, codes)
    wrong = np.abs(found / expected - 1) > 1e-5
    # A value at an edge may round to either side of it.
    assert wrong.mean() < 1e-3
    assert codec.table_bytes == 4 * 2**bits


def test_bifeats_vector_code_assigns_by_angle_and_reserves_an_entry_for_short_rows():
    x = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
    x[:40, :4] *= 1e-6
    one = coder("bifeat-vq4-16", x)
    codes, sums = one.encode(x)
    codec, _ = one.codec(sums)
    assert (codes[:40, 0] == 15).all()
    assert (codec.tables["levels"][:, 15] == np.float32(1e-4)).all()
    assert codec.tables["levels"].dtype == np.float32
    part, centroids = x[:, 4:].astype(np.float64), one.fitted["levels"][4:, :15].astype(np.float64)
    cosine = (
        (part @ centroids)
        / np.linalg.norm(part, axis=1)[:, None]
        / np.linalg.norm(centroids, axis=0)
    )
    used = codes[:, 1] < 15
    np.testing.assert_allclose(cosine[used, codes[used, 1]], cosine[used].max(1), rtol=1e-5)
    for k in range(15):
        mean = part[codes[:, 1] == k].mean(0)
        np.testing.assert_allclose(codec.tables["levels"][4:, k], mean, rtol=1e-5, atol=1e-6)


def test_rotations_spread_what_directions_hold_over_the_parts():
    x = correlated(6000, 24, rank=12)
    errors = {name: coded(name, x)[1] for name in ("pq3", "opq3", "pq6", "opq6")}
    assert errors["opq3"] < 0.8 * errors["pq3"]
    assert errors["opq6"] < 0.8 * errors["pq6"]
    centred = x - x.mean(0)
    for edges in ([0, 24], [0, 8, 16, 24], [0, 5, 24]):
        rotation = principal(centred, edges)
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(24), atol=1e-10)
    # Normal columns of variances 8, 4, 2, 1: 8 * 1 and 4 * 2 are equal products.
    normal = np.random.default_rng(0).normal(size=(40_000, 4)) * np.sqrt([4, 8, 1, 2])
    rotation = np.abs(principal((normal - normal.mean(0)).astype(np.float32), [0, 2, 4]))
    dealt = [set(rotation[:, cols].argmax(0)) for cols in (slice(0, 2), slice(2, 4))]
    assert dealt == [{1, 2}, {0, 3}]


def test_a_rotated_code_is_the_product_code_of_rotated_rows():
    x = correlated(3000, 13)
    codec, _, codes = coded("opq3", x)
    tables = {name: t.astype(np.float64) for name, t in codec.tables.items()}
    turned = (x - tables["shift"]) @ tables["rotation"]
    found = np.empty_like(turned)
    for u, (lo, hi) in enumerate(itertools.pairwise([0, 4, 8, 13])):
        found[:, lo:hi] = tables["levels"][lo:hi, codes[:, u]].T
        distance = ((turned[:, None, lo:hi] - tables["levels"][lo:hi].T) ** 2).sum(2)
        # Coded by the entries as trained, decoded to the means of what they were given.
        assert (
            distance[np.arange(3000), codes[:, u]]
            <= 1.3 * distance.min(1) + 0.3 * distance.mean() / 256
        ).mean() > 0.99
    expected = found @ tables["rotation"].T + tables["shift"]
    np.testing.assert_allclose(decode(codec, codes), expected, atol=1e-4 * np.abs(x).max())
    eye = tables["rotation"] @ tables["rotation"].T
    np.testing.assert_allclose(eye, np.eye(13), atol=1e-5)


@pytest.mark.parametrize("name", ["pq2", "opq2", "rq2", "sq8"])
def test_fewer_rows_than_entries_are_exact(name):
    x = correlated(9, 5)
    codec, error, codes = coded(name, x)
    np.testing.assert_allclose(decode(codec, codes), x, rtol=1e-3, atol=1e-3)
    assert error < 1e-6
    one, error, codes = coded(name, x[:1])
    np.testing.assert_allclose(decode(one, codes), x[:1], rtol=1e-3)
    assert error == 0


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (
            "pq12",
            "pq12: expected at most a byte for each of 11 columns; fix: --set features.codec=pq11",
        ),
        ("bifeat-vq12-16", "bifeat-vq12-16: expected at most 11 columns a code"),
        ("bifeat-vq2-300", "expected at least as many nodes as entries, found 200 nodes"),
        ("rq33", "found rq33"),
        ("rq0", "found rq0"),
        ("bifeat-sq3", "found bifeat-sq3"),
        ("bifeat-vq4", "found bifeat-vq4"),
    ],
)
def test_what_cannot_be_is_refused(name, match):
    facts = {"graph": graph_reader(features=11).facts}
    with pytest.raises(BadInput, match=match):
        CODEBOOK.resolve({"features.codec": name}, facts)
