"""Digests: canonical JSON, and digests over values, files and the rows of tables; the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taskmill.errors import StorageError

orjson: Any
try:
    import orjson
except ImportError:
    orjson = None

_PLAIN = frozenset({str, int, bool, type(None)})
_encode = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
).encode


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, UTF-8; the same with and without orjson.

    Raises:
        TypeError: a value that JSON cannot hold, or a key that is not text.
        ValueError: NaN or infinity.
        RecursionError: nested too deeply.
    """
    if orjson is not None and _is_plain(value):
        try:
            text: bytes = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            return text
        except TypeError:  # half a surrogate pair, a number beyond 64 bits, or nested deeper than orjson goes
            pass
    _require_text_keys(value)
    return _encode(value).encode("utf-8", "surrogatepass")


def flat_json(value: Any) -> bytes | None:
    """Return the canonical JSON of a value that holds no number but whole ones; None where orjson is absent or cannot."""
    if orjson is None:
        return None
    try:
        text: bytes = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return None
    return text


def is_flat(values: Iterable[Any]) -> bool:
    """Say whether values are texts, whole numbers, truth values and nulls."""
    return _PLAIN.issuperset(map(type, values))


def _is_plain(value: Any) -> bool:
    """Say whether a value is made of text, whole numbers, truth values, lists and objects, which all encoders write alike."""
    kind = type(value)
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        value = value.values()
    elif kind is not list:
        return kind in _PLAIN
    for item in value:  # noqa: SIM110 - this way, it takes half the time
        if type(item) not in _PLAIN and not _is_plain(item):
            return False
    return True


def _require_text_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"canonical JSON needs text keys, found {key!r}")
            _require_text_keys(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_text_keys(item)


def digest(value: Any) -> str:
    """Return the sha256 (hex) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of a file's bytes.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


class RowsDigest:
    """A digest over a table's schema and column values in row order.

    Independent of how the rows were cut into batches, of dictionary encoding and of the Parquet writer's version.
    """

    def __init__(self, schema: pa.Schema) -> None:
        """Start with the column names, types and nullability."""
        self._schema, self._num_rows = schema, 0
        self._streams: dict[str, Any] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch."""
        if not batch.num_rows:
            return
        self._num_rows += batch.num_rows
        for name, column in zip(self._schema.names, batch.columns):
            self._column(name, column)

    def hexdigest(self) -> str:
        """Return the digest (hex sha256) of all rows so far."""
        columns = [[f.name, _type_text(f.type), f.nullable] for f in self._schema]
        streams = {name: stream.hexdigest() for name, stream in sorted(self._streams.items())}
        return digest({"columns": columns, "num_rows": self._num_rows, "streams": streams})

    def _feed(self, name: str, data: Any) -> None:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = hashlib.sha256()
        stream.update(data)

    def _column(self, name: str, array: pa.Array) -> None:
        kind = array.type
        if pa.types.is_dictionary(kind):
            array, kind = array.dictionary_decode(), kind.value_type
        if array.null_count:
            valid = array.is_valid()
            self._feed(name + "/valid", np.ascontiguousarray(valid.to_numpy(zero_copy_only=False)))
        else:
            self._feed(name + "/valid", np.ones(len(array), dtype=np.bool_))
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._lengths(name, pc.list_value_length(array))
            self._column(name + "/item", array.flatten())
        elif _is_text(kind):
            self._lengths(name, pc.binary_length(array))
            self._feed(name + "/data", _text_bytes(array))
        elif pa.types.is_fixed_size_binary(kind):
            filled = array.fill_null(b"\0" * kind.byte_width) if array.null_count else array
            self._feed(name + "/data", _fixed_bytes(filled))
        else:
            self._feed(name + "/data", _numbers(array))

    def _lengths(self, name: str, lengths: pa.Array) -> None:
        filled = lengths.fill_null(0).cast(pa.int64())
        self._feed(
            name + "/length", np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).astype("<i8")
        )


def _type_text(kind: pa.DataType) -> str:
    """Spell a type without what says nothing about values: dictionaries, 64-bit offsets, names of list items."""
    if pa.types.is_dictionary(kind):
        return _type_text(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_type_text(kind.value_type)}>"
    return str(kind).removeprefix("large_") if _is_text(kind) else str(kind)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _text_bytes(array: pa.Array) -> Any:
    wide = pa.large_binary()
    filled = array.cast(wide).fill_null(b"") if array.null_count else array.cast(wide)
    if not len(filled):
        return b""
    offsets = np.frombuffer(filled.buffers()[1], dtype=np.int64)[
        filled.offset : filled.offset + len(filled) + 1
    ]
    data = filled.buffers()[2]
    return memoryview(data)[int(offsets[0]) : int(offsets[-1])] if data is not None else b""


def _fixed_bytes(array: pa.Array) -> Any:
    width, data = array.type.byte_width, array.buffers()[1]
    return memoryview(data)[array.offset * width : (array.offset + len(array)) * width] if len(array) else b""


def _numbers(array: pa.Array) -> Any:
    if pa.types.is_boolean(array.type):
        filled = array.fill_null(False) if array.null_count else array
        return np.ascontiguousarray(filled.to_numpy(zero_copy_only=False)).astype(np.uint8)
    filled = array.fill_null(0) if array.null_count else array
    values = np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))
    return values.astype(values.dtype.newbyteorder("<"), copy=False).view(np.uint8)
