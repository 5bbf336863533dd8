"""A header is read only if every statement in it is true of the file."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from patchkit.errors import FormatError
from patchkit.tensors.header import read_header
from patchkit.tensors.source import BytesSource
from tests.unit.tensors.folders import torch_tensors

GOOD = save(torch_tensors(), {"format": "pt"})
LENGTH = int.from_bytes(GOOD[:8], "little")
FIELDS = json.loads(GOOD[8 : 8 + LENGTH])


def read(data: bytes, **options: int):
    return read_header(BytesSource("file", data), **options)


def build(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(**changes: object) -> bytes:
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes
    return build({"a": entry}, bytes(24))


def test_positions_are_those_of_the_file() -> None:
    header = read(GOOD)
    assert header.size == 8 + LENGTH
    assert header.metadata == {"format": "pt"}
    for name, tensor in torch_tensors().items():
        info = header.tensors[name]
        assert info.shape == tuple(tensor.shape)
        assert info.nbytes == tensor.nbytes
        assert GOOD[info.start : info.end] == tensor.numpy().tobytes()


def test_a_file_of_nothing_but_a_header_is_a_file() -> None:
    assert read(build({})).tensors == {}
    assert read(build(b"{}   ")).size == 13


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"\x00" * 7, "7 bytes"),
        (b"PK\x03\x04" + bytes(60), "cut short"),
        ((2**63).to_bytes(8, "little") + b"{}", "cut short"),
        (GOOD[:-1], "should have"),
        (GOOD + b"x", "should have"),
        (build(b"[]"), "not a JSON object"),
        (build(b"{"), "not valid JSON"),
        (build(b"\xff{}"), "not valid JSON"),
        (build(b"[" * 100_000), "nested"),
        (build(b'{"a":{},"a":{}}'), "same key twice"),
        (build(b'{"a":NaN}'), "NaN"),
        (build(b'{"a":' + b"1" * 5000 + b"}"), "not valid JSON"),
        (build({"__metadata__": {"a": 1}}), "table of texts"),
        (build({"__metadata__": []}), "table of texts"),
        (build(b'{"__metadata__":{"a":"\\ud800"}}'), "Unicode"),
        (build({"a": []}), "described by"),
        (build({"a\n": {}}), "control characters"),
        (one(extra=1), "described by"),
        (one(dtype="F33"), "unknown tensor type"),
        (one(dtype=4), "not text"),
        (one(dtype="F4", shape=[3]), "whole bytes"),
        (one(shape=[2, 3.0]), "list of sizes"),
        (one(shape=[True, 6]), "list of sizes"),
        (one(shape=[-2, -3]), "list of sizes"),
        (one(shape=[2**63, 0]), "list of sizes"),
        (one(shape=[1] * 17), "list of sizes"),
        (one(shape="23"), "list of sizes"),
        (one(shape=[2, 4]), "needs 32 bytes"),
        (one(data_offsets=[24, 0]), "start and an end"),
        (one(data_offsets=[0]), "start and an end"),
        (one(data_offsets=[0, "24"]), "start and an end"),
        (one(data_offsets=[8, 32]), "hole"),
    ],
)
def test_hostile_files_are_refused_with_a_reason(data: bytes, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read(data)


def test_tensors_may_not_overlap() -> None:
    entry = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
    with pytest.raises(FormatError, match="overlaps"):
        read(build({"a": entry, "b": entry | {"data_offsets": [2, 6]}}, bytes(6)))


def test_a_long_header_is_refused_before_it_is_read() -> None:
    with pytest.raises(FormatError, match=f"{LENGTH} bytes; 10 are allowed"):
        read(GOOD, max_bytes=10)


@given(
    position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), cut=st.integers(0, len(GOOD))
)
def test_a_damaged_file_is_read_or_refused_but_nothing_else(
    position: int, value: int, cut: int
) -> None:
    data = GOOD[:position] + bytes([value]) + GOOD[position + 1 :]
    for damaged in (data, data[:cut]):
        try:
            header = read(damaged)
        except FormatError:
            continue
        assert all(
            header.size <= info.start <= info.end <= len(damaged)
            for info in header.tensors.values()
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    key=st.sampled_from(["dtype", "shape", "data_offsets"]),
    value=JSON,
    whole=st.booleans(),
)
def test_any_json_in_place_of_a_field_is_refused_or_true(
    key: str, value: object, whole: bool
) -> None:
    fields = json.loads(json.dumps(FIELDS))
    name = next(name for name in fields if name != "__metadata__")
    if whole:
        fields[name] = value
    else:
        fields[name][key] = value
    if fields == FIELDS:
        return
    with pytest.raises(FormatError):
        read(build(fields, GOOD[8 + LENGTH :]))
