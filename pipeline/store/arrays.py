"""A stored array reads back bit for bit or not at all: a missing, short or altered chunk is an
error, never zeros.

Arrays are zarr v3, little-endian, uncompressed, crc32c last in the codec chain, without
consolidated metadata: one chunk up to `MAX_CHUNK_BYTES`, beyond that fixed blocks of whole rows
whose bytes fill whole pages, so that the chunks can be mapped one after another as one array. The
bytes are written here, not by a library, so that they never change with its version;
`zarr.open_array` reads them.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from stockpot.errors import Corrupt
from stockpot.stages.places import unread
from stockpot.store import fs
from stockpot.store.digests import Verified, bytes_digest
from stockpot.store.mapping import ALIGN_BYTES, can_join, join

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MAX_CHUNK_BYTES", "METADATA", "Created", "chunk_names", "read_array", "write_array"]

METADATA = "zarr.json"
MAX_CHUNK_BYTES = 4 << 30
"""Above this an array is split: a single upload to an object store ends at 5 GiB."""
SLICE_BYTES = 64 << 20
TRAILER_BYTES = 4
TYPES = {
    "bool": "|b1",
    "int8": "|i1",
    "uint8": "|u1",
    "int16": "<i2",
    "uint16": "<u2",
    "int32": "<i4",
    "uint32": "<u4",
    "int64": "<i8",
    "uint64": "<u8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
}
File = dict[str, Any]


def write_array(root: Path, name: str, values: NDArray[Any]) -> dict[str, File]:
    """Write `values` as array folder `root/name`, durable except for its folders' names.

    Returns
    -------
    Relative path -> {size, digest, and for chunks their crc32c}.

    Raises
    ------
    TypeError
        The dtype is not boolean, integer or float of 1 to 8 bytes.
    """
    values = np.asarray(values)
    dtype, chunk, files = _begin(root / name, name, values.shape, values.dtype)
    for block, path in enumerate(chunk_names(values.shape, chunk)):
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        rows = slice(block * chunk[0], (block + 1) * chunk[0]) if values.ndim else ...
        files[f"{name}/{path}"] = _write_chunk(root / name / path, values[rows], dtype, chunk)
    return files


def _begin(
    folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[np.dtype[Any], tuple[int, ...], dict[str, File]]:
    """Create the array's folder and metadata: stored dtype, chunk shape, and the files so far."""
    if dtype.name not in TYPES:
        raise TypeError(
            f"array {name!r}: dtype {dtype} cannot be stored; expected one of {', '.join(TYPES)}"
        )
    stored = np.dtype(TYPES[dtype.name])
    chunk = _chunk_shape(shape, stored.itemsize)
    document = _metadata(shape, dtype.name, chunk)
    folder.mkdir(parents=True)
    fs.write_new(folder / METADATA, document)
    return (
        stored,
        chunk,
        {f"{name}/{METADATA}": {"size": len(document), "digest": bytes_digest(document)}},
    )


def _chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    if not shape:
        return ()
    chunk = tuple(max(1, n) for n in shape)
    row_bytes = itemsize * math.prod(chunk[1:])
    rows = max(1, MAX_CHUNK_BYTES // row_bytes)
    if rows >= chunk[0]:
        return chunk
    whole_pages = ALIGN_BYTES // math.gcd(ALIGN_BYTES, row_bytes)
    return (rows - rows % whole_pages or rows, *chunk[1:])


class Created:
    """An array that is made on disk: filled through `values` in any order, its files complete after
    `seal`.

    The bytes are those `write_array` gives for the same values. Where chunks cannot be joined (not
    Linux, or rows so wide that a chunk is no whole pages) an array of several chunks is filled in
    memory instead.

    Attributes
    ----------
    values : writable, all zeros at first; read-only after `seal`.

    Raises
    ------
    TypeError
        The dtype is not boolean, integer or float of 1 to 8 bytes.
    OSError
        There is no room on the disk: all of it is taken here, as a full disk could not be reported
        later.
    """

    def __init__(self, root: Path, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self._root, self._name = root, name
        self._dtype, self._chunk, self._files = _begin(root / name, name, shape, np.dtype(dtype))
        self._paths = chunk_names(shape, self._chunk)
        size = self._dtype.itemsize * math.prod(self._chunk)
        self._mapped = len(self._paths) == 1 or (len(self._paths) > 1 and can_join(size))
        for path in self._paths:
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        if self._mapped:
            paths = [root / name / path for path in self._paths]
            for file in paths:
                fs.allocate(file, size + TRAILER_BYTES)
            flat = join(paths, size, writable=True)[: self._dtype.itemsize * math.prod(shape)]
            self.values: NDArray[Any] = flat.view(self._dtype).reshape(shape)
        else:
            self.values = np.zeros(shape, self._dtype)

    def seal(self) -> dict[str, File]:
        """Finish and make durable every file; what `write_array` returns. O(size) time, constant
        memory.
        """
        self.values.flags.writeable = False
        for block, path in enumerate(self._paths):
            rows = (
                slice(block * self._chunk[0], (block + 1) * self._chunk[0]) if self._chunk else ...
            )
            target = self._root / self._name / path
            finish = _seal_chunk if self._mapped else _write_chunk
            self._files[f"{self._name}/{path}"] = finish(
                target, self.values[rows], self._dtype, self._chunk
            )
        return self._files


def chunk_names(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[str]:
    """Paths of the chunks below the array's folder; they split the first axis only."""
    if not shape:
        # Zarr calls the one chunk of a scalar "c".
        return ["c"]
    if 0 in shape:
        return []
    return [
        "/".join(["c", str(block), *["0"] * (len(shape) - 1)])
        for block in range(-(-shape[0] // chunk[0]))
    ]


def _metadata(shape: tuple[int, ...], data_type: str, chunk: tuple[int, ...]) -> bytes:
    fill: Any = False if data_type == "bool" else 0.0 if data_type.startswith("float") else 0
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "attributes": {},
        "storage_transformers": [],
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _pieces(
    values: NDArray[Any], dtype: np.dtype[Any], chunk: tuple[int, ...]
) -> Iterator[NDArray[np.uint8]]:
    """Little-endian bytes of a chunk, a bounded slice at a time; zeros after the last row, as zarr
    lays it out.
    """
    rows = values.reshape(1) if values.ndim == 0 else values
    row_bytes = max(1, dtype.itemsize * math.prod(rows.shape[1:]))
    step = max(1, SLICE_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        yield (
            np.ascontiguousarray(rows[start : start + step], dtype=dtype).reshape(-1).view(np.uint8)
        )
    missing = (chunk[0] if chunk else 1) - len(rows)
    for start in range(0, missing, step):
        yield np.zeros(min(step, missing - start) * row_bytes, np.uint8)


def _write_chunk(
    path: Path, values: NDArray[Any], dtype: np.dtype[Any], chunk: tuple[int, ...]
) -> File:
    return _finish_chunk(path, fs.create(path), values, dtype, chunk, stored=False)


def _seal_chunk(
    path: Path, values: NDArray[Any], dtype: np.dtype[Any], chunk: tuple[int, ...]
) -> File:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.lseek(fd, -TRAILER_BYTES, os.SEEK_END)
    return _finish_chunk(path, fd, values, dtype, chunk, stored=True)


def _finish_chunk(
    path: Path,
    fd: int,
    values: NDArray[Any],
    dtype: np.dtype[Any],
    chunk: tuple[int, ...],
    *,
    stored: bool,
) -> File:
    """Write the chunk's values, unless they are stored already, then its crc32c, and close the
    file.
    """
    import google_crc32c
    from blake3 import blake3

    hasher, crc, size = blake3(), 0, 0
    try:
        for piece in _pieces(values, dtype, chunk):
            if not stored:
                fs.append(fd, piece.data, path)
            hasher.update(piece.data)
            crc = google_crc32c.extend(crc, piece)
            size += piece.size
        trailer = crc.to_bytes(TRAILER_BYTES, "little")
        fs.append(fd, trailer, path)
        hasher.update(trailer)
        fs.before("fsync", str(path))
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"size": size + TRAILER_BYTES, "digest": hasher.hexdigest(length=16), "crc32c": crc}


def read_array(
    root: Path, name: str, files: Mapping[str, File], verified: Verified
) -> NDArray[Any]:
    """Array `root/name`, read-only: a memory map, of several chunks one after another.

    Read into memory are several chunks that are no whole pages each (written by an early version)
    or not on Linux.

    Parameters
    ----------
    files : relative path -> {size, digest, crc32c}, as `write_array` returned them.
    verified : what this process has checked before; a chunk in it is not checked again.

    Raises
    ------
    Corrupt
        Naming the file that is missing, altered, or another chunk's.
    """
    document = root / name / METADATA
    try:
        data = fs.read(document)
    except OSError as error:
        raise _unread(document, error, "metadata") from error
    if bytes_digest(data) != files[f"{name}/{METADATA}"]["digest"]:
        raise Corrupt(f"{document}: its content does not match its digest")
    shape, chunk, dtype = _declared(data, document, name, files)
    names = chunk_names(shape, chunk)
    chunk_bytes = dtype.itemsize * math.prod(chunk)
    if len(names) == 1:
        out = _map_chunk(root / name / names[0], files[f"{name}/{names[0]}"], chunk_bytes, verified)
        return out.view(dtype).reshape(shape)
    if names and can_join(chunk_bytes):
        for path in names:
            _map_chunk(root / name / path, files[f"{name}/{path}"], chunk_bytes, verified)
        joined = join([root / name / path for path in names], chunk_bytes)
        return joined[: dtype.itemsize * math.prod(shape)].view(dtype).reshape(shape)
    out = np.empty(shape, dtype)
    flat = out.reshape(-1).view(np.uint8)
    for block, path in enumerate(names):
        mapped = _map_chunk(root / name / path, files[f"{name}/{path}"], chunk_bytes, verified)
        part = flat[block * chunk_bytes : (block + 1) * chunk_bytes]
        part[:] = mapped[: part.size]
    out.flags.writeable = False
    return out


def _declared(
    data: bytes, document: Path, name: str, files: Mapping[str, File]
) -> tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any]]:
    """(shape, chunk shape, dtype) that an array's metadata declares, held against the files that
    are there.

    Nothing may be allocated by what a document says before this: every declared byte stands in a
    chunk.

    Raises
    ------
    Corrupt
        It is not the metadata of an array of this store, or the chunks it declares are not those
        that are listed.
    """
    try:
        found = json.loads(data)
        shape, chunk = found["shape"], found["chunk_grid"]["configuration"]["chunk_shape"]
        dtype = np.dtype(TYPES[found["data_type"]])
        sizes = [*shape, *chunk]
        sound = len(shape) == len(chunk) and all(type(n) is int and 0 <= n < 1 << 63 for n in sizes)
        if not sound or 0 in chunk or chunk[1:] != [max(1, n) for n in shape[1:]]:
            raise ValueError(f"shape {shape} in chunks of {chunk}")
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise Corrupt(
            f"{document}: expected the metadata of an array, found other ({error})"
        ) from error
    blocks = 0 if 0 in shape else -(-shape[0] // chunk[0]) if shape else 1
    there = sum(path.startswith(f"{name}/") for path in files) - 1
    if blocks != there:
        raise Corrupt(f"{document}: it declares {blocks} chunks, {there} are there")
    expected = dtype.itemsize * math.prod(chunk) + TRAILER_BYTES
    for path in chunk_names(tuple(shape), tuple(chunk)):
        size = files.get(f"{name}/{path}", {"size": 0})["size"]
        if size != expected:
            raise Corrupt(f"{document}: it declares {expected} bytes in {path}, {size} are there")
    return tuple(shape), tuple(chunk), dtype


def _unread(path: Path, error: OSError, expected: str) -> Exception:
    return unread(path, error, lambda _: Corrupt(f"{path}: missing; expected {expected}"))


def _map_chunk(path: Path, file: File, chunk_bytes: int, verified: Verified) -> NDArray[np.uint8]:
    import google_crc32c

    try:
        # A plain array: numba and torch treat the memmap class as a stranger.
        mapped = np.memmap(path, np.uint8, "r").view(np.ndarray)
    except ValueError as error:
        raise Corrupt(f"{path}: empty; expected {file['size']} bytes") from error
    except OSError as error:
        raise _unread(path, error, f"{file['size']} bytes") from error
    if mapped.size != file["size"] or mapped.size != chunk_bytes + TRAILER_BYTES:
        raise Corrupt(f"{path}: expected {file['size']} bytes, found {mapped.size}")
    values = mapped[:chunk_bytes]
    if not verified.seen(path):
        stored = int.from_bytes(mapped[chunk_bytes:].tobytes(), "little")
        if stored != file.get("crc32c") or google_crc32c.value(values) != stored:
            raise Corrupt(f"{path}: its content does not match its crc32c")
        verified.add(path)
    return values
