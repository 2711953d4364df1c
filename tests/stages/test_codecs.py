"""Lossy codecs from a graph's features to decoded rows, against numpy and float64."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.codebook import STAGE as CODEBOOK
from stages.codebook.fit import fit
from stages.errors import BadInput, Corrupt
from stages.quantize import STAGE
from stages.quantize.codec import Codec, decode
from stages.quantize.coder import Coder, Sums, units
from tests.memory import run_stage
from tests.packs import features, graph_reader, packed

SCALARS = ("sq1", "sq2", "sq4", "sq8")


def coder(name, x):
    """Coder fitted on all rows."""
    shift = x.mean(0, dtype=np.float64).astype(np.float32)
    reach = np.abs(x - shift).max(0)
    return Coder(name, {**fit(name, x), "shift": shift, "scale": units(reach, len(x))})


def coded(name, x):
    """(codec, codes, nmse) of rows coded at once."""
    one = coder(name, x)
    sums = one.sums()
    codes = one.encode(x, sums)
    return (*one.codec(sums), codes)


def built(tmp_path, name, g):
    inputs = {"graph": g}
    facts = {"graph": g.facts}
    book = CODEBOOK.resolve({"features.codec": name}, facts)
    inputs["codebook"] = run_stage(CODEBOOK, book, inputs, tmp_path / "codebook")
    return run_stage(STAGE, STAGE.resolve({"features.codec": name}, facts), inputs, tmp_path / "codes")


def nmse(x, found):
    wide = x.astype(np.float64)
    return ((wide - found) ** 2).sum() / ((wide - wide.mean(0)) ** 2).sum()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", SCALARS)
def test_facts_say_what_is_stored(tmp_path, name, sparse):
    g = graph_reader(nodes=700, features=11, sparse=sparse)
    reader = built(tmp_path, name, g)
    codec = Codec.from_reader(reader)
    x, facts = features(g), reader.facts
    found = decode(codec, reader.array("codes"))
    assert facts["nmse"] == pytest.approx(nmse(x, found), rel=1e-9)
    assert facts["table_bytes"] == sum(t.nbytes for t in codec.tables.values()) == codec.table_bytes
    assert facts["code_bytes"] == reader.array("codes").size
    assert facts["compression_ratio"] == x.nbytes / (facts["table_bytes"] + facts["code_bytes"])


@given(
    rows=st.integers(1, 700),
    columns=st.integers(1, 19),
    name=st.sampled_from(SCALARS),
    scale=st.sampled_from([1e-6, 1.0, 1e7]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_the_nearest_level_is_chosen_and_decodes_to_the_mean_of_its_values(rows, columns, name, scale, seed):
    rng = np.random.default_rng(seed)
    x = (scale * rng.normal(size=(rows, columns)) ** 3 + rng.normal(size=columns)).astype(np.float32)
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
            assert found[ids[:, j] == k, j][0] == pytest.approx(mine.mean(), rel=step, abs=1e-6 * scale)


@given(cuts=st.lists(st.integers(1, 9), max_size=4, unique=True), name=st.sampled_from(SCALARS))
@settings(max_examples=20, deadline=None)
def test_the_same_codes_and_tables_for_any_chunks(cuts, name):
    x = np.random.default_rng(0).standard_t(3, size=(9500, 5)).astype(np.float32)
    codec, error, codes = coded(name, x)
    one, parts, found = coder(name, x), [], []
    edges = [0, *(1024 * c for c in sorted(cuts)), len(x)]
    for start, stop in itertools.pairwise(edges):
        parts.append(one.sums())
        found.append(one.encode(x[start:stop], parts[-1]))
    other, other_error = one.codec(Sums.together(reversed(parts)))
    np.testing.assert_array_equal(np.concatenate(found), codes)
    assert other_error == error
    assert other.tables_to_bytes() == codec.tables_to_bytes()


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


@pytest.mark.parametrize("name", SCALARS)
def test_numpy_and_torch_decode_to_the_same_bits(name):
    import torch

    from stages.quantize.tensors import decode_tensor

    x = np.random.default_rng(3).normal(size=(500, 13)).astype(np.float32)
    codec, _, codes = coded(name, x)
    expected = decode(codec, codes)
    np.testing.assert_array_equal(decode_tensor(codec, torch.from_numpy(codes)).numpy(), expected)
    if torch.cuda.is_available():
        found = decode_tensor(codec, torch.from_numpy(codes).cuda())
        np.testing.assert_array_equal(found.cpu().numpy(), expected)


@pytest.mark.parametrize("name", SCALARS)
def test_packed_files_are_readable_alone(tmp_path, name):
    from pipeline.records import Records

    reader, inputs = packed(tmp_path, codec=name, features=9)
    records = Records.from_reader(reader)
    every = decode(Codec.from_reader(inputs["codes"]), inputs["codes"].array("codes"))
    for record in records:
        np.testing.assert_array_equal(decode(records.codec, record.codes), every[record.n_id])
    assert records.meta["requires"] == ["codec:sq"]


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
