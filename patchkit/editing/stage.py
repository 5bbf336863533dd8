"""A long edit on its way: what has been written so far, and the patches taken from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from patchkit.editing.state import SiteState
from patchkit.facts.fact import Fact
from patchkit.patch.patch import Patch


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """Every matrix after the first `count` facts, by layer.

    `history` are the facts that the states remember, in the order of their keys; `seconds` is what
    writing took so far, without the preparations that every edit of a base has in common.
    """

    states: Mapping[int, SiteState]
    history: tuple[Fact, ...] = ()
    count: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The patch of the first `edits` facts of a sequence, made in `seconds`.

    `written` is from where the sequence goes on: as many whole batches as these facts hold.
    """

    edits: int
    patch: Patch
    seconds: float
    written: Written
