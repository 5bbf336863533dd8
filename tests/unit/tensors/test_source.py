"""Bytes by range, their types and their digests."""

import hashlib
from pathlib import Path

import pytest
import torch

from patchkit.errors import FormatError
from patchkit.tensors.digests import (
    bytes_digest,
    canonical_json,
    file_digest,
    json_digest,
    sha256_of_range,
)
from patchkit.tensors.dtypes import EDITABLE, itemsize, nbytes
from patchkit.tensors.source import ByteSource, BytesSource, FileSource
from patchkit.tensors.torch_dtypes import dtype_name, torch_dtype

DATA = bytes(range(256))


@pytest.fixture(params=["file", "bytes"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> ByteSource:
    if request.param == "bytes":
        return BytesSource("data.bin", DATA)
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    return FileSource(path)


def test_a_source_gives_exactly_the_range(source: ByteSource) -> None:
    assert (source.name, source.size) == ("data.bin", 256)
    assert source.read(10, 20) == DATA[10:20]
    assert source.read(256, 256) == b""


@pytest.mark.parametrize("bounds", [(0, 257), (-1, 3), (5, 4)])
def test_a_range_outside_is_refused(source: ByteSource, bounds: tuple[int, int]) -> None:
    with pytest.raises(FormatError, match="256 bytes"):
        source.read(*bounds)


def test_a_file_that_shrank_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    path.write_bytes(DATA)
    source = FileSource(path)
    path.write_bytes(DATA[:100])
    with pytest.raises(FormatError, match="ends at byte 100"):
        source.read(50, 150)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nothing is not a file"):
        FileSource(tmp_path / "nothing")
    with pytest.raises(FormatError, match="is not a file"):
        FileSource(tmp_path)


def test_digests_are_sha256(source: ByteSource, tmp_path: Path) -> None:
    expected = "sha256:" + hashlib.sha256(DATA[3:200]).hexdigest()
    assert sha256_of_range(source, 3, 200) == expected == bytes_digest(DATA[3:200])
    (tmp_path / "whole").write_bytes(DATA)
    assert file_digest(tmp_path / "whole") == bytes_digest(DATA)


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": 1.5, "a": ["é", None]}) == '{"a":["é",null],"b":1.5}'.encode()
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


@pytest.mark.parametrize(("name", "size"), [("F64", 8), ("F32", 4), ("BF16", 2), ("I8", 1)])
def test_sizes_and_torch_types_agree(name: str, size: int) -> None:
    assert itemsize(name) == size == torch_dtype(name).itemsize
    assert dtype_name(torch_dtype(name)) == name


def test_types_smaller_than_a_byte_fill_bytes_together() -> None:
    assert nbytes("F4", (3, 2)) == 3
    with pytest.raises(FormatError, match="whole bytes"):
        itemsize("F4")


def test_unknown_types_are_refused() -> None:
    with pytest.raises(FormatError, match="unknown tensor type"):
        itemsize("F128")
    with pytest.raises(FormatError, match="cannot be computed"):
        torch_dtype("F8_E4M3")
    with pytest.raises(FormatError, match="cannot be stored"):
        dtype_name(torch.complex64)
    assert all(torch_dtype(name).is_floating_point for name in EDITABLE)
