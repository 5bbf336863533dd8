"""Where each byte of a patch file lies: one metadata and one choice of types, one header.

A patch file is a safetensors file: eight bytes with the length of the header, the header as JSON,
the data. Tensors lie in descending order of element size, then by name, so that each is aligned
to its element size; the header is padded with spaces to a multiple of eight bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from patchkit.patch.metadata import PatchMetadata
from patchkit.tensors.dtypes import itemsize, nbytes

KEY = "patchkit"
"""The one key of the file's `__metadata__`."""

FACTS = "patchkit.facts"
"""Name of the tensor that holds the facts as JSONL."""

FACTOR_DTYPES = ("F32", "BF16")
"""Types in which factors may be stored."""

MAX_HEADER = 8_000_000
"""Most bytes of header JSON."""

_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of the file: name, type and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def part_name(tensor: str, index: int, part: str) -> str:
    """Name in the file of one part of a tensor's factor."""
    return f"{tensor}/{index}/{part}"


def part_shapes(metadata: PatchMetadata) -> dict[str, tuple[int, int]]:
    """Shapes of all factor tensors that a file with this metadata holds."""
    return {
        part_name(name, index, part): shape
        for name, tensor in metadata.tensors.items()
        for index, factor in enumerate(tensor.factors)
        for part, shape in factor.parts(tensor.d_out, tensor.d_in).items()
    }


def in_order(slots: Iterable[Slot]) -> list[Slot]:
    """Return the slots in the order in which their data lies."""
    return sorted(slots, key=lambda slot: (-itemsize(slot.dtype), slot.name))


def header_bytes(metadata_json: bytes, slots: Iterable[Slot]) -> bytes:
    """Return the length field and header of a file with these tensors."""
    entries: dict[str, object] = {"__metadata__": {KEY: metadata_json.decode()}}
    position = 0
    for slot in in_order(slots):
        end = position + nbytes(slot.dtype, slot.shape)
        entries[slot.name] = {
            "dtype": slot.dtype,
            "shape": slot.shape,
            "data_offsets": (position, end),
        }
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
