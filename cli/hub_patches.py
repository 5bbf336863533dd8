"""`hf://org/name[@revision][/file]` wherever a command takes a patch: pulled before it runs."""

from collections.abc import Mapping
from pathlib import Path

from patchkit.tensors.origin import SCHEME

from . import cache
from .output import Out
from .progress import shown

_TAKES_PATCHES = ("patch", "patches", "facts", "on", "target", "a", "b")


def with_pulled(command: str, given: Mapping[str, object]) -> dict[str, object]:
    """The arguments of a command with every patch on the Hub as its verified local copy."""
    out = Out.choose(command, json=bool(given["json"]), quiet=bool(given["quiet"]))
    return {
        name: _local(value, out) if name in _TAKES_PATCHES else value
        for name, value in given.items()
    }


def _local(value: object, out: Out) -> object:
    if isinstance(value, list):
        return [_local(item, out) for item in value]
    # A path has no empty parts: of hf:// it keeps hf:/.
    if not isinstance(value, Path) or value.parts[:1] != ("hf:",):
        return value
    from patchkit.hub import pull

    with shown(out) as progress:
        ref = SCHEME + "/".join(value.parts[1:])
        return pull(ref, cache.folder() / "hub", progress=progress).path
