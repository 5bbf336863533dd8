"""Reading a patch file without torch: every limit is checked before anything is allocated."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchkit.errors import FormatError
from patchkit.patch import packing
from patchkit.patch.metadata import MAX_TENSORS, PatchMetadata
from patchkit.patch.packing import FACTS, KEY, Slot, part_name
from patchkit.tensors.digests import bytes_digest, sha256_of_range
from patchkit.tensors.header import Header, TensorInfo, read_header
from patchkit.tensors.source import ByteSource, BytesSource, FileSource


@dataclass(frozen=True, slots=True)
class PatchLayout:
    """What the header of a patch file says, checked against itself but not against the data."""

    metadata: PatchMetadata
    header: Header


@dataclass(frozen=True, slots=True)
class Damage:
    """Data that is not what the metadata says: whose, and both digests, or numbers of facts."""

    tensor: str
    expected: str
    found: str

    def __str__(self) -> str:
        """`x: sha256:12345678… is recorded, found sha256:9abcdef0…`."""
        return f"{self.tensor}: {_brief(self.expected)} is recorded, found {_brief(self.found)}"


@dataclass(frozen=True, slots=True)
class PatchInfo:
    """A patch file: metadata, header, digest and size of the file, and the facts it carries."""

    metadata: PatchMetadata
    header: Header
    digest: str
    bytes: int
    facts_jsonl: builtins.bytes | None


def as_source(source: str | Path | bytes | ByteSource) -> ByteSource:
    """Return a path or bytes as a source; FormatError if there is no such file."""
    if isinstance(source, bytes):
        return BytesSource("the patch", source)
    return FileSource(source) if isinstance(source, str | Path) else source


def read_info(source: str | Path | bytes | ByteSource) -> PatchInfo:
    """Read everything but the numbers, and check the digest of all data.

    Raises FormatError for a file that is not a patch, of a newer format, damaged, or beyond a
    limit; the sentence names the file.
    """
    source = as_source(source)
    layout = read_layout(source)
    for damage in find_damage(source, layout):
        raise FormatError(
            f"{source.name} is damaged: the data of {damage}",
            details={"expected": damage.expected, "found": damage.found},
        )
    facts = layout.header.tensors.get(FACTS)
    return PatchInfo(
        metadata=layout.metadata,
        header=layout.header,
        digest=sha256_of_range(source, 0, source.size),
        bytes=source.size,
        facts_jsonl=None if facts is None else source.read(facts.start, facts.end),
    )


def read_layout(source: ByteSource) -> PatchLayout:
    """Read and check the header alone; FormatError as `read_info`."""
    header = read_header(source, max_bytes=packing.MAX_HEADER)
    text = header.metadata.get(KEY)
    if text is None:
        raise FormatError(
            f'{source.name} is a safetensors file but not a patch (no "{KEY}" metadata)'
        )
    if len(header.tensors) > MAX_TENSORS:
        raise FormatError(
            f"{source.name} holds {len(header.tensors)} tensors; {MAX_TENSORS} are allowed"
        )
    try:
        metadata = PatchMetadata.from_json(text.encode())
        _check_tensors(metadata, header)
    except FormatError as error:
        raise FormatError(
            f"{source.name} cannot be used: {error.message}", hint=error.hint, details=error.details
        ) from error
    _check_bytes(source, text.encode(), header)
    return PatchLayout(metadata, header)


def find_damage(source: ByteSource, layout: PatchLayout) -> Iterator[Damage]:
    """Yield every factor, and the facts, that do not have the digest recorded for them.

    Facts of the right digest and another number are damage too: a count that nobody checks could
    say two where a thousand are carried.
    """
    for name, tensor in layout.metadata.tensors.items():
        for index, factor in enumerate(tensor.factors):
            # The parts of a factor lie beside each other: same type, and names in order.
            parts = factor.parts(tensor.d_out, tensor.d_in)
            infos = [layout.header.tensors[part_name(name, index, part)] for part in parts]
            found = sha256_of_range(source, infos[0].start, infos[-1].end)
            if found != factor.sha256:
                yield Damage(f"{name}/{index}", factor.sha256, found)
    facts, recorded = layout.header.tensors.get(FACTS), layout.metadata.facts
    if facts is not None and recorded is not None:
        data = source.read(facts.start, facts.end)
        if (found := bytes_digest(data)) != recorded.digest:
            yield Damage(FACTS, recorded.digest, found)
        elif (count := count_facts(data)) != recorded.count:
            yield Damage(FACTS, f"a count of {recorded.count}", f"{count}")


def count_facts(jsonl: bytes) -> int:
    """How many lines of facts are not blank."""
    return sum(1 for line in jsonl.split(b"\n") if line.strip())


def _brief(text: str) -> str:
    return f"{text[:15]}…" if text.startswith("sha256:") else text


def _check_tensors(metadata: PatchMetadata, header: Header) -> None:
    """FormatError unless the header holds exactly the tensors that the metadata describes."""
    shapes = packing.part_shapes(metadata)
    for name, shape in shapes.items():
        info = header.tensors.get(name)
        if info is None:
            raise FormatError(f"the tensor {name} is missing")
        if info.shape != shape:
            raise FormatError(f"{name} has shape {info.shape}, and {shape} is described")
        if info.dtype not in packing.FACTOR_DTYPES:
            allowed = " or ".join(packing.FACTOR_DTYPES)
            raise FormatError(f"{name} is stored as {info.dtype}; {allowed} is allowed")
    for name, tensor in metadata.tensors.items():
        for index, factor in enumerate(tensor.factors):
            parts = [part_name(name, index, part) for part in factor.parts(1, 1)]
            if len({header.tensors[part].dtype for part in parts}) != 1:
                raise FormatError(f"{' and '.join(parts)} are stored in different types")
    for name in header.tensors.keys() - shapes.keys():
        if name != FACTS:
            raise FormatError(f"the tensor {name!r} is not described by the metadata")
        _check_facts(metadata, header.tensors[name])


def _check_facts(metadata: PatchMetadata, info: TensorInfo) -> None:
    if metadata.facts is None:
        raise FormatError("there are facts, but the metadata says there are none")
    if info.dtype != "U8" or len(info.shape) != 1:
        raise FormatError(f"{FACTS} should be a list of bytes, not {info.dtype} {info.shape}")


def _check_bytes(source: ByteSource, metadata_json: bytes, header: Header) -> None:
    """FormatError unless the header is byte for byte what a writer makes of its content."""
    slots = [Slot(info.name, info.dtype, info.shape) for info in header.tensors.values()]
    if source.read(0, header.size) != packing.header_bytes(metadata_json, slots):
        raise FormatError(f"{source.name} has a header that is not in canonical form")
