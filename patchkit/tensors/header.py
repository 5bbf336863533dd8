"""The header of a safetensors file: which tensor lies where. Strict, because files are hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from patchkit.errors import FormatError
from patchkit.tensors.dtypes import nbytes
from patchkit.tensors.source import ByteSource

_LENGTH = 8
_MAX_HEADER = 100_000_000
_MAX_AXES = 16
_MAX_AXIS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a file; `start` and `end` are absolute positions in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor's data."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of a file by name, its text metadata, and the bytes that describe them."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size: int


def read_header(source: ByteSource, *, max_bytes: int = _MAX_HEADER) -> Header:
    """Read and check a header; nothing is allocated that the header has not been checked for.

    Every tensor has a known type, a size that follows from its shape, and the data is covered
    exactly: no overlap, no hole, no byte left over. Raises FormatError for anything else.
    `Header.size` counts the length field and the JSON text.
    """
    length = _header_length(source, max_bytes)
    size = _LENGTH + length
    fields = _parse(source.name, source.read(_LENGTH, size))
    metadata = _metadata(source.name, fields.pop("__metadata__", {}))
    infos = [_tensor(source.name, name, value, size) for name, value in fields.items()]
    _check_coverage(source, infos, size)
    return Header({info.name: info for info in infos}, metadata, size)


def _header_length(source: ByteSource, max_bytes: int) -> int:
    if source.size < _LENGTH:
        raise FormatError(f"{source.name} is not a safetensors file: it has {source.size} bytes")
    length = int.from_bytes(source.read(0, _LENGTH), "little")
    if length > source.size - _LENGTH:
        raise FormatError(
            f"{source.name} is not a safetensors file, or is cut short: its header needs "
            f"{length} bytes, {source.size - _LENGTH} follow"
        )
    if length > max_bytes:
        raise FormatError(f"{source.name} has a header of {length} bytes; {max_bytes} are allowed")
    return length


def _parse(name: str, data: bytes) -> dict[str, object]:
    try:
        fields = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise FormatError(f"{name} has a header nested too deeply") from None
    except ValueError as error:
        raise FormatError(f"{name} has a header that is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise FormatError(f"{name} has a header that is not a JSON object")
    return fields


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same key twice")
    return fields


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _metadata(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(f"{name} has metadata that is not a table of texts")
    try:
        "".join((*value, *value.values())).encode()
    except UnicodeEncodeError:
        raise FormatError(f"{name} has metadata that is not Unicode text") from None
    return value


def _tensor(file: str, name: str, value: object, data_start: int) -> TensorInfo:
    where = f"{file}: tensor {name!r}"
    if not name.isprintable():
        raise FormatError(f"{where} has a name with control characters")
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise FormatError(f"{where} has a type that is not text")
    if not _is_counts(shape) or len(shape) > _MAX_AXES:
        raise FormatError(f"{where} has a shape that is not a short list of sizes")
    if not _is_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FormatError(f"{where} has offsets that are not a start and an end")
    expected, found = nbytes(dtype, shape), offsets[1] - offsets[0]
    if expected != found:
        raise FormatError(f"{where} needs {expected} bytes for its shape and has {found}")
    return TensorInfo(name, dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= _MAX_AXIS for item in value
    )


def _check_coverage(source: ByteSource, infos: list[TensorInfo], data_start: int) -> None:
    position = data_start
    for info in sorted(infos, key=lambda info: (info.start, info.end)):
        if info.start != position:
            fault = "overlaps another" if info.start < position else "leaves a hole before it"
            raise FormatError(f"{source.name}: tensor {info.name!r} {fault}")
        position = info.end
    if position != source.size:
        raise FormatError(f"{source.name} should have {position} bytes and has {source.size}")
