"""Which patches have to come before which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchkit.errors import BaseMismatch
from patchkit.patch.metadata import PatchMetadata


@dataclass(frozen=True, slots=True)
class Place:
    """One patch of a stack: what to call it, its digest, and what it says about itself."""

    name: str
    digest: str
    metadata: PatchMetadata


def leaf_digests(digest: str, metadata: PatchMetadata) -> list[str]:
    """Return the digests of the edited patches that a patch consists of, usually its own."""
    return [leaf.digest for leaf in metadata.leaves] or [digest]


def check_order(stack: Sequence[Place]) -> None:
    """Raise BaseMismatch unless each patch finds its predecessors before it, in their order."""
    leaves = [leaf_digests(place.digest, place.metadata) for place in stack]
    everything = [digest for part in leaves for digest in part]
    before: list[str] = []
    for place, own in zip(stack, leaves, strict=True):
        _check_predecessors(place, before, everything)
        before.extend(own)


def _check_predecessors(place: Place, before: Sequence[str], everything: Sequence[str]) -> None:
    remaining = iter(before)
    for digest in place.metadata.after:
        if digest not in remaining:
            state = "comes too late" if digest in everything else "is missing"
            raise BaseMismatch(
                f"{place.name} was made on top of patch {digest[:15]}…, which {state}",
                hint="name all patches in the order in which they were made",
                details={"expected": list(place.metadata.after), "found": list(before)},
            )
