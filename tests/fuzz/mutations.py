"""Bytes made wrong on purpose: blindly, and as somebody would who knows the formats.

Everything is a function of the random generator that is passed in.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from patchkit.errors import FormatError
from patchkit.patch import packing
from patchkit.patch.metadata import PatchMetadata
from patchkit.patch.packing import Slot, part_name
from patchkit.tensors.digests import bytes_digest, canonical_json, json_digest

Mutation = Callable[[Random, bytes], bytes]

LONGEST = 1 << 16
"""Bytes that a mutated input has at most."""

_NODES = 2000
"""Beyond so many nodes a value is not made any larger."""

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 255, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**40,
    0.0, -0.0, 0.5, 1.0, 1e-308, 1e308, float("nan"), float("inf"),
    "", "a", "atlas", "linear", "conv1d", "input", "output", "rotation", "rotation-blocks",
    "additive", "additive-dense", "F32", "BF16", "F4", "U8", "sha256:" + "0" * 64, "sha256:",
    "../../etc/passwd", "/etc/passwd", "..", ".", "a\x00b", "\x1b[2J", "\u202e", "\ud800",
    "\u2028", "{}", "x" * 5000, "model.safetensors",
    [], {}, [[]], [1, 2], [0, 8], {"a": 1},
)  # fmt: skip
_PIECES = (
    "hf://", "/", "@", "%2F", "..", ".", "~", "\x00", "\x1b[31m", "\u202e", "refs/pr/1", "a", "--",
    ":", "\\", "\n", "\r", "é", "---\n", "&a [x]", "*a", "<!--",
)  # fmt: skip
_WORDS = (0, 1, 7, 8, 9, 2**16, 8_000_000, 8_000_001, 2**31, 2**32, 2**63, 2**64 - 1)
_FLOATS = (b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\x80\xff", b"\xff\xff\x7f\x7f", b"\1\0\0\0")


def damaged(random: Random, data: bytes) -> bytes:
    """One to four changes of bytes, anywhere."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(changed) + 1)
        end = min(len(changed), start + random.randint(1, 16))
        match random.randrange(8):
            case 0 if start < len(changed):
                changed[start] ^= 1 << random.randrange(8)
            case 1:
                changed[start:end] = random.randbytes(end - start)
            case 2:
                del changed[start:end]
            case 3:
                changed[start:start] = random.randbytes(random.randint(1, 16))
            case 4:
                changed[start:start] = changed[start:end]
            case 5:
                changed[:8] = random.choice(_WORDS).to_bytes(8, "little")
            case 6:
                del changed[start:]
            case 7:
                changed[start:start] = random.choice((b"[", b'{"a":', b"\\ud800", b"-", b"9")) * 999
    return bytes(changed[:LONGEST])


def changed_json(random: Random, value: Any) -> Any:
    """A JSON value in which one to three nodes, anywhere, are something else."""
    value = json.loads(json.dumps(value))
    for _ in range(random.randint(1, 3)):
        places = _places(value)
        if len(places) > _NODES:
            return value
        if not places:
            return random.choice(_VALUES)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0 if isinstance(holder, dict):
                holder[random.choice(("", "a\x1b", "x-a", "patchkit.facts", "../a"))] = holder[key]
            case 1 if isinstance(holder, dict):
                holder[str(random.choice(_VALUES))] = holder.pop(key)
            case 2:
                del holder[key]
            case 3:
                other, place = random.choice(places)
                with suppress(LookupError):
                    holder[key] = json.loads(json.dumps(other[place]))
            case 4 if isinstance(holder, list):
                holder.extend([holder[key]] * random.choice((1, 2, 40)))
            case _:
                holder[key] = _changed(random, holder[key])
    return value


def json_text(random: Random, value: Any) -> bytes:
    """JSON in one of several spellings, canonical among them; surrogates where it holds some."""
    ascii_only = random.random() < 0.2
    options: dict[str, Any] = random.choice(
        ({"sort_keys": True, "separators": (",", ":")}, {"indent": 2, "sort_keys": True}, {})
    )
    text = json.dumps(value, ensure_ascii=ascii_only, **options)
    return text.encode("utf-8", "surrogatepass")[:LONGEST]


def as_json(random: Random, data: bytes) -> bytes:
    """Another JSON document of the same kind; blind damage where the input is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return damaged(random, data)
    return json_text(random, changed_json(random, value))


def as_lines(random: Random, data: bytes) -> bytes:
    """JSON lines in which one is another document."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    lines[at] = as_json(random, lines[at])
    return b"\n".join(lines)[:LONGEST]


def as_sealed(random: Random, data: bytes) -> bytes:
    """An indented document, such as a lock, with its own digest made right again."""
    try:
        value = changed_json(random, json.loads(data))
        value.pop("digest", None)
        value["digest"] = json_digest(value)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return damaged(random, data)
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")[:LONGEST]


def as_file(random: Random, data: bytes) -> bytes:
    """A safetensors file with another header, of the right length."""
    size, header = _header(data)
    if header is None:
        return damaged(random, data)
    text = json_text(random, changed_json(random, header))
    return len(text).to_bytes(8, "little") + text + data[size:]


def as_patch(random: Random, data: bytes) -> bytes:
    """A patch with another metadata or other data, sealed, digested and shaped to fit it."""
    size, header = _header(data)
    try:
        metadata = json.loads(header["__metadata__"]["patchkit"])
        if random.random() < 0.6:
            metadata = changed_json(random, metadata)
        return _rebuilt(random, metadata, data[size:])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, FormatError):
        return damaged(random, data)


def as_text(random: Random, data: bytes) -> bytes:
    """A short text with pieces of names, paths and escapes put in or taken out."""
    text = data.decode(errors="replace")
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        end = at + random.choice((0, 0, 1, 3))
        text = text[:at] + random.choice(_PIECES) * random.choice((1, 1, 1, 200)) + text[end:]
    return text.encode("utf-8", "surrogatepass")[:LONGEST]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every node below a value as its holder and its key there."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        holder = pending.pop()
        if not isinstance(holder, dict | list):
            continue
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            pending.append(holder[key])
    return found


def _changed(random: Random, value: Any) -> Any:
    """A near miss of a value, or something else altogether."""
    if type(value) is int and random.random() < 0.6:
        return value + random.choice((-1, 1, 2, 8, -value, value, 2**32))
    if isinstance(value, str) and value and random.random() < 0.6:
        at = random.randrange(len(value))
        return value[:at] + random.choice(("", "a", "\x1b", "/", "..", "é", '"')) + value[at + 1 :]
    if random.random() < 0.05:
        nested: Any = []
        for _ in range(random.choice((20, 200))):
            nested = [nested]
        return nested
    return random.choice(_VALUES)


def _header(data: bytes) -> tuple[int, Any]:
    size = 8 + int.from_bytes(data[:8], "little")
    try:
        return size, json.loads(data[8:size])
    except (ValueError, RecursionError):
        return size, None


def _rebuilt(random: Random, fields: dict[str, Any], body: bytes) -> bytes:
    """The file that these fields describe, with the old data, cut or repeated, as its numbers."""
    fields.pop("seal", None)
    known = PatchMetadata.from_json(canonical_json(fields | {"seal": json_digest(fields)}))
    dtype = random.choice(packing.FACTOR_DTYPES)
    slots = [Slot(name, dtype, shape) for name, shape in packing.part_shapes(known).items()]
    width = 4 if dtype == "F32" else 2
    if sum(width * slot.shape[0] * slot.shape[1] for slot in slots) > LONGEST:
        raise FormatError("too large to be written out")
    blobs = {s.name: _numbers(random, body, width * s.shape[0] * s.shape[1]) for s in slots}
    for name, tensor in known.tensors.items():
        for index, factor in enumerate(tensor.factors):
            parts = factor.parts(tensor.d_out, tensor.d_in)
            digest = bytes_digest(b"".join(blobs[part_name(name, index, part)] for part in parts))
            fields["tensors"][name]["factors"][index]["sha256"] = digest
    if known.facts is not None and random.random() < 0.7:
        facts = _numbers(random, body[-200:], 200)
        fields["facts"]["digest"] = bytes_digest(facts)
        slots.append(Slot(packing.FACTS, "U8", (len(facts),)))
        blobs[packing.FACTS] = facts
    text = canonical_json(fields | {"seal": json_digest(fields)})
    return packing.header_bytes(text, slots) + b"".join(
        blobs[slot.name] for slot in packing.in_order(slots)
    )


def _numbers(random: Random, body: bytes, size: int) -> bytes:
    """So many bytes of a body, with an odd number among them now and then."""
    data = bytearray((body * (size // max(1, len(body)) + 1) or bytes(size))[:size])
    if size >= 4 and random.random() < 0.3:
        at = random.randrange(size // 4) * 4
        data[at : at + 4] = random.choice(_FLOATS)
    return bytes(data)
