"""Which tensor a damaged text speaks of, where the text itself can no longer be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.header import Header
from patchkit.tensors.source import FileSource


def header_difference(base: Path, patched: Path, header: Header) -> tuple[int, str | None] | None:
    """Return the first byte at which two shards' headers differ, and the tensor described there.

    `header` is that of the base; None where the two are the same.
    """
    wanted = FileSource(base).read(0, header.size)
    source = FileSource(patched)
    found = source.read(0, min(header.size, source.size))
    if found == wanted:
        return None
    pairs = zip(wanted, found, strict=False)
    position = next((i for i, (a, b) in enumerate(pairs) if a != b), len(found))
    return position, described_at(wanted.decode("latin-1"), position, header.tensors)


def described_at(text: str, position: int, names: Iterable[str]) -> str | None:
    """Return the name that stands last, in quotes, before a position of a JSON text."""
    places = {name: text.rfind(json.dumps(name), 0, position + len(name) + 2) for name in names}
    best = max(places, key=lambda name: places[name], default=None)
    return best if best is not None and 0 <= places[best] <= position else None


def suspect_in_lock(data: bytes, patched: Checkpoint, base: Checkpoint | None) -> str | None:
    """Name a tensor of which a damaged lock says something untrue, None if there is none.

    Where the text cannot be parsed, it is the tensor in whose entry parsing failed.
    """
    text = data.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        entries = re.findall(r'^    ("[^\n]*"): {$', text, re.MULTILINE)
        names = [name for entry in entries if (name := _text(entry)) is not None]
        position = getattr(error, "pos", 0)
        return _known(described_at(text, position, names), patched)
    tensors = found.get("tensors") if isinstance(found, dict) else None
    if not isinstance(tensors, dict):
        return None
    wrong = (name for name, entry in tensors.items() if _untrue(name, entry, patched, base))
    return _known(next(wrong, None), patched)


def _untrue(name: str, entry: object, patched: Checkpoint, base: Checkpoint | None) -> bool:
    if not isinstance(entry, Mapping) or name not in patched.tensors:
        return True
    wanted = {"shard": patched.tensors[name].shard, "after": patched.digest(name)}
    if base is not None and name in base.tensors:
        wanted["before"] = base.digest(name)
    else:
        wanted["before"] = str(entry.get("before"))
    return dict(entry) != wanted


def _known(name: str | None, patched: Checkpoint) -> str | None:
    """The tensor of the checkpoint that is nearest to a name that may itself be damaged."""
    if name is None or name in patched.tensors:
        return name
    return next(iter(get_close_matches(name, patched.tensors, n=1)), None)


def _text(quoted: str) -> str | None:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return None
