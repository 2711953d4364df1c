"""Arrays: bit for bit, readable by plain zarr, few files, and never a fill value in place of
data."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from stockpot.errors import Corrupt
from stockpot.store import arrays
from stockpot.store.arrays import Created, read_array, write_array
from stockpot.store.digests import Verified, file_digest

dtypes = st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])


def roundtrip(root, values):
    files = write_array(root, "x", values)
    assert {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} == files.keys()
    for name, file in files.items():
        assert (root / name).stat().st_size == file["size"]
        assert file_digest(root / name) == file["digest"]
    return read_array(root, "x", files, Verified()), files


ANY = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))


@settings(max_examples=40)
@given(ANY, st.sampled_from([1, 16, 1 << 30]))
def test_created_arrays_are_the_written_ones(tmp_path_factory, values, chunk_bytes):
    root = tmp_path_factory.mktemp("arrays")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "MAX_CHUNK_BYTES", chunk_bytes)
        written = write_array(root / "a", "x", values)
        created = Created(root / "b", "x", values.shape, values.dtype)
        assert not created.values.any()
        created.values[...] = values
        assert created.seal() == written
        assert not created.values.flags.writeable
    for path in (root / "a").rglob("*"):
        if path.is_file():
            assert (root / "b" / path.relative_to(root / "a")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("columns", [1, 25, 96])
def test_chunks_are_joined_in_memory_and_never_read_whole(tmp_path, monkeypatch, columns):
    monkeypatch.setattr(arrays, "MAX_CHUNK_BYTES", columns << 17)
    values = np.random.default_rng(0).integers(0, 255, (7 << 15, columns), dtype=np.uint8)
    written = write_array(tmp_path / "a", "x", values)
    assert len(written) == 3  # the last chunk is padded
    assert (written["x/c/1/0"]["size"] - 4) % (1 << 16) == 0
    with monkeypatch.context() as patch:
        patch.setattr(arrays.np, "empty", None)  # the way by memory
        found = read_array(tmp_path / "a", "x", written, Verified())
    assert np.array_equal(found, values)
    assert not found.flags.writeable
    rows = found[-3:]
    del found
    assert np.array_equal(rows, values[-3:]), "a view keeps the whole mapping alive"
    created = Created(tmp_path / "b", "x", values.shape, values.dtype)
    for at in np.random.default_rng(1).permutation(len(values))[:: len(values) // 50]:
        created.values[at] = values[at]
    created.values[:] = values
    assert created.seal() == written
    path = tmp_path / "a/x/c/1/0"
    data = path.read_bytes()
    path.write_bytes(flip(data, 77))
    with pytest.raises(Corrupt, match="x/c/1/0"):
        read_array(tmp_path / "a", "x", written, Verified())


def test_a_mapping_ends_with_its_last_view(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_CHUNK_BYTES", 1 << 16)
    files = write_array(tmp_path, "x", np.arange(5 << 14, dtype=np.int32))
    found = read_array(tmp_path, "x", files, Verified())
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == 5
    part = found[5:6]
    del found
    assert part[0] == 5
    del part
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_full_disk_is_known_before_an_array_is_filled(tmp_path, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        Created(tmp_path, "x", (1000,), np.int64)


@settings(max_examples=40)
@given(ANY, st.sampled_from([1, 16, 1 << 30]))
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
    files = {
        **write_array(tmp_path, "x", np.arange(8)),
        **write_array(tmp_path, "y", np.arange(8) + 1),
    }
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
