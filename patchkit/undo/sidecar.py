"""The file of corrections: blocks of each tensor, then what they are, then how long that is.

    patchkit.undo/1 ⏎ · blocks · JSON · length of the JSON (8 bytes, little-endian)

Local state beside the weights, like the lock. Every byte is covered by a digest in the JSON, and
the JSON by its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from patchkit.errors import FormatError
from patchkit.factors.action import Action
from patchkit.factors.streaming import changed_rows
from patchkit.patch.filestack import FileStack
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import canonical_json, json_digest, sha256_of_range
from patchkit.tensors.rewrite import UNDO
from patchkit.tensors.source import FileSource
from patchkit.tensors.torch_dtypes import torch_dtype
from patchkit.undo.blocks import HEAD, decode_block, payload_size

SCHEMA = "patchkit.undo/1"
MAGIC = SCHEMA.encode() + b"\n"
RULE = "units in the last place to the inverse of the patches in fp64, rounded to the stored type"
BLOCK = 1 << 20
"""Weights of one block, unless a row is longer; part of the format."""

_TAIL = 8
_MAX_JSON = 64_000_000


@dataclass(frozen=True, slots=True)
class Corrections:
    """One tensor: where its blocks lie, their digest, and digests before and after the patches."""

    start: int
    end: int
    sha256: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Undo:
    """A sidecar: the patches that it takes back, and corrections by tensor."""

    source: FileSource
    patches: tuple[str, ...]
    tensors: Mapping[str, Corrections]

    def damaged(self) -> Iterator[str]:
        """Yield the tensors whose blocks do not have the digest recorded for them."""
        for name, found in self.tensors.items():
            if sha256_of_range(self.source, found.start, found.end) != found.sha256:
                yield name

    def restored(self, patched: Checkpoint, stack: FileStack, name: str) -> Iterator[bytes]:
        """Yield the base's bytes of one tensor, in order.

        FormatError if the sidecar is damaged, or these are not the weights and patches that it
        was made with.
        """
        found = self.tensors[name]
        dtype = torch_dtype(patched.tensor(name).info.dtype)
        action = Action.of(stack.inverse(name), stack.layout(name))
        position, state = found.start, sha256()
        for _, _, predicted in changed_rows(patched, name, action, BLOCK):
            head = self.source.read(position, min(position + HEAD.size, found.end))
            if len(head) < HEAD.size:
                raise FormatError(f"{self.source.name} has too few blocks for {name}")
            size = payload_size(head, predicted, dtype.itemsize)
            position += HEAD.size + size
            payload = self.source.read(position - size, position)
            data = decode_block(head, payload, predicted, dtype)
            state.update(data)
            yield data
        if position != found.end or "sha256:" + state.hexdigest() != found.before:
            raise FormatError(
                f"{self.source.name} does not give back {name}: {found.before[:15]}… is recorded, "
                f"found sha256:{state.hexdigest()[:8]}…",
                hint="name the base with --base",
                details={"tensor": name, "expected": found.before},
            )


def to_json(patches: tuple[str, ...], tensors: Mapping[str, Corrections]) -> bytes:
    """Return the canonical description of a sidecar, with its own digest."""
    body: dict[str, object] = {
        "schema": SCHEMA,
        "rule": RULE,
        "patches": list(patches),
        "tensors": {name: asdict(found) for name, found in tensors.items()},
    }
    return canonical_json(body | {"digest": json_digest(body)})


def read_undo(folder: Path) -> Undo | None:
    """Read the description of a folder's sidecar, None if it has none.

    Raises FormatError for a sidecar that is damaged or of a newer schema.
    """
    if not (folder / UNDO).is_file():
        return None
    source = FileSource(folder / UNDO)
    smallest = len(MAGIC) + _TAIL
    if source.size < smallest or source.read(0, len(MAGIC)) != MAGIC:
        raise FormatError(f"{UNDO} is not a sidecar of schema {SCHEMA}")
    length = int.from_bytes(source.read(source.size - _TAIL, source.size), "little")
    if length > min(_MAX_JSON, source.size - smallest):
        raise FormatError(f"{UNDO} is damaged: its description cannot have {length} bytes")
    end = source.size - _TAIL - length
    data = source.read(end, source.size - _TAIL)
    try:
        undo = _parsed(source, json.loads(data.decode()))
        unchanged = to_json(undo.patches, undo.tensors) == data
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{UNDO} is damaged: {error}") from error
    if not unchanged:
        raise FormatError(f"{UNDO} was changed after it was written, or has another rule")
    _check_coverage(undo, end)
    return undo


def _parsed(source: FileSource, found: dict[str, Any]) -> Undo:
    tensors = {name: Corrections(**fields) for name, fields in found["tensors"].items()}
    if any(type(each.start) is not int or type(each.end) is not int for each in tensors.values()):
        raise TypeError("a place is not a number")
    return Undo(source, tuple(found["patches"]), tensors)


def _check_coverage(undo: Undo, end: int) -> None:
    """FormatError unless the blocks of the tensors lie one after another, without a hole."""
    position = len(MAGIC)
    for found in sorted(undo.tensors.values(), key=lambda found: found.start):
        if found.start != position or not found.start <= found.end <= end:
            raise FormatError(f"{UNDO} is damaged: its blocks do not follow each other")
        position = found.end
    if position != end:
        raise FormatError(f"{UNDO} is damaged: bytes {position} to {end} belong to nothing")
