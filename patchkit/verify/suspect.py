"""Which tensor a damaged text speaks of, where the text itself can no longer be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
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


def suspect_in_lock(text: str, patched: Checkpoint, base: Checkpoint | None) -> str | None:
    """Name a tensor of which a damaged lock says something untrue, None if there is none.

    Where the text cannot be parsed, it is the tensor in whose entry parsing failed.
    """
    absent = [name for name in patched.tensors if json.dumps(name) not in text]
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        entry = _entry_before(text, getattr(error, "pos", 0))
        return entry if entry in patched.tensors else _nearest(entry, absent)
    tensors = found.get("tensors") if isinstance(found, dict) else None
    if not isinstance(tensors, dict):
        return None
    wrong = (name for name, entry in tensors.items() if _untrue(name, entry, patched, base))
    name = next(wrong, None)
    return name if name is None or name in patched.tensors else _nearest(name, absent)


def _entry_before(text: str, position: int) -> str:
    """The key of the last line before a position that is indented as entries of a lock are."""
    entries = re.findall(r"^ {4}(?! )(.*)$", text[: text.find("\n", position)], re.MULTILINE)
    line = entries[-1] if entries else ""
    whole = re.match('"([^"]*)"', line)
    return whole[1] if whole else line.strip(' :{"')


def _nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that a damaged one most likely was."""
    return next(iter(get_close_matches(name, names, n=1)), None)


def _untrue(name: str, entry: object, patched: Checkpoint, base: Checkpoint | None) -> bool:
    if not isinstance(entry, Mapping) or name not in patched.tensors:
        return True
    known = base is not None and name in base.tensors
    wanted = {
        "shard": patched.tensors[name].shard,
        "after": patched.digest(name),
        "before": base.digest(name) if base is not None and known else entry.get("before"),
    }
    return dict(entry) != wanted
