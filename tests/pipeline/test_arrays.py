"""Arrays: bit for bit, readable by plain zarr, few files, and never a fill value in place of data."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline import arrays
from pipeline.arrays import read_array, write_array
from pipeline.digests import Verified, file_digest
from pipeline.errors import Corrupt

dtypes = st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])


def roundtrip(root, values):
    files = write_array(root, "x", values)
    assert {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} == files.keys()
    for name, file in files.items():
        assert (root / name).stat().st_size == file["size"]
        assert file_digest(root / name) == file["digest"]
    return read_array(root, "x", files, Verified()), files


@settings(max_examples=40)
@given(
    npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    st.sampled_from([1, 16, 1 << 30]),
)
def test_roundtrip_and_plain_zarr(tmp_path_factory, values, chunk_bytes):
    root = tmp_path_factory.mktemp("arrays")
    old = arrays.MAX_CHUNK_BYTES
    arrays.MAX_CHUNK_BYTES = chunk_bytes
    try:
        found, _ = roundtrip(root, values)
    finally:
        arrays.MAX_CHUNK_BYTES = old
    plain = zarr.open_array(root / "x", mode="r")[...]
    for got in (found, np.asarray(plain)):
        assert got.dtype == values.dtype
        assert got.shape == values.shape
        assert got.tobytes() == values.tobytes()
    assert not found.flags.writeable


def test_one_chunk_is_a_memory_map_and_two_files(tmp_path):
    values = np.arange(1000, dtype=np.int64).reshape(100, 10)
    found, files = roundtrip(tmp_path, values)
    assert sorted(files) == ["x/c/0/0", "x/zarr.json"]
    assert type(found) is np.ndarray
    base = found
    while base.base is not None and isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)


def test_views_and_other_byte_orders(tmp_path):
    values = np.arange(24, dtype=">i4").reshape(4, 6)
    assert np.array_equal(roundtrip(tmp_path / "a", values[::2, ::-1])[0], values[::2, ::-1])
    assert np.array_equal(roundtrip(tmp_path / "b", np.asfortranarray(values))[0], values)
    with pytest.raises(TypeError, match="cannot be stored"):
        write_array(tmp_path, "y", np.array(["text"]))


def test_slices_of_a_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "SLICE_BYTES", 40)
    values = np.arange(101, dtype=np.int32)
    assert np.array_equal(roundtrip(tmp_path, values)[0], values)


def test_same_bytes_every_time(tmp_path):
    values = np.linspace(0, 1, 50)
    a, b = write_array(tmp_path / "a", "x", values), write_array(tmp_path / "b", "x", values)
    assert a == b
    assert a["x/zarr.json"]["digest"] == "1de5a749f7ac205d7c433081312bd4af"


@pytest.mark.parametrize("chunk_bytes", [1 << 30, 64])
def test_every_damage_is_an_error(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(arrays, "MAX_CHUNK_BYTES", chunk_bytes)
    values = np.arange(32, dtype=np.int32)
    files = write_array(tmp_path, "x", values)
    for name in files:
        path = tmp_path / name
        data = path.read_bytes()
        for broken in [
            data[:-1],
            b"",
            bytes(len(data)),
            data + b"x",
            *(flip(data, bit) for bit in range(0, 8 * len(data), 7)),
        ]:
            path.write_bytes(broken)
            with pytest.raises(Corrupt, match=str(path)):
                read_array(tmp_path, "x", files, Verified())
        path.unlink()
        with pytest.raises(Corrupt, match=f"{path}: missing"):
            read_array(tmp_path, "x", files, Verified())
        path.write_bytes(data)
    assert np.array_equal(read_array(tmp_path, "x", files, Verified()), values)


def flip(data, bit):
    out = bytearray(data)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_swapped_chunks_are_an_error(tmp_path):
    files = {**write_array(tmp_path, "x", np.arange(8)), **write_array(tmp_path, "y", np.arange(8) + 1)}
    a, b = tmp_path / "x/c/0", tmp_path / "y/c/0"
    left, right = a.read_bytes(), b.read_bytes()
    a.write_bytes(right)
    b.write_bytes(left)
    with pytest.raises(Corrupt, match="x/c/0"):
        read_array(tmp_path, "x", files, Verified())


def test_checked_once_a_process_and_again_when_changed(tmp_path, monkeypatch):
    files = write_array(tmp_path, "x", np.arange(8))
    verified, calls = Verified(), []
    import google_crc32c

    value = google_crc32c.value
    monkeypatch.setattr(google_crc32c, "value", lambda data: calls.append(1) or value(data))
    for _ in range(3):
        read_array(tmp_path, "x", files, verified)
    assert len(calls) == 1
    data = (tmp_path / "x/c/0").read_bytes()
    (tmp_path / "x/c/0").unlink()
    (tmp_path / "x/c/0").write_bytes(flip(data, 3))
    with pytest.raises(Corrupt):
        read_array(tmp_path, "x", files, verified)
