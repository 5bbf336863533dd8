"""Two patches beside each other: facts, and the geometry of each tensor, without the base."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

import torch

from patchkit.diff.report import FactsDiff, PatchDiff, SideDiff, Status, TensorDiff
from patchkit.errors import InvariantError
from patchkit.events import SILENT, Progress, phase
from patchkit.factors import Side
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.distance import (
    commutator_norm,
    geodesic_distance,
    principal_angles,
    spectral_distance,
)
from patchkit.factors.kinds import Factor, Turn
from patchkit.factors.lowrank import LowRank
from patchkit.facts.fact import Fact
from patchkit.facts.jsonl import parse_jsonl
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch

SIDES: tuple[Side, ...] = ("input", "output")
T = TypeVar("T")


def diff_patches(a: Patch, b: Patch, *, progress: Progress = SILENT) -> PatchDiff:
    """Compare two patches, from `a` to `b`.

    O(d m² + m³) for each side of a tensor, m ≤ min(d, 2 Σ r). FactsError for facts that cannot be
    read, InvariantError for a generator beyond its limits.
    """
    names = tuple(dict.fromkeys((*a.factors, *b.factors)))
    tensors = []
    with phase(progress, "comparing tensors", len(names), "tensors") as advance:
        for name in names:
            tensors.append(_tensor(a, b, name))
            advance(1)
    return PatchDiff(
        digests=(a.digest, b.digest),
        bases=_bases(a.metadata.base, b.metadata.base),
        same_after=a.metadata.after == b.metadata.after,
        facts=_facts(a, b),
        tensors=tuple(tensors),
    )


def _bases(a: BaseMeta, b: BaseMeta) -> tuple[str, ...]:
    """Fields that both bases know and that differ."""
    pairs = zip(asdict(a).items(), asdict(b).values(), strict=True)
    return tuple(
        field.removesuffix("_digest")
        for (field, one), two in pairs
        if None not in (one, two) and one != two
    )


def _facts(a: Patch, b: Patch) -> FactsDiff:
    stated = (a.metadata.facts, b.metadata.facts)
    same = stated[0] == stated[1]
    missing = [p for p in (a, b) if p.metadata.facts is not None and p.facts_jsonl is None]
    if missing:
        return FactsDiff((), (), (), 0, same, compared=False)
    one, two = _by_question(a), _by_question(b)
    pairs = [(one[key], two[key]) for key in one if key in two]
    changed = tuple(pair for pair in pairs if pair[0].target != pair[1].target)
    return FactsDiff(
        added=tuple(fact for key, fact in two.items() if key not in one),
        removed=tuple(fact for key, fact in one.items() if key not in two),
        changed=changed,
        other_details=sum(x != y for x, y in pairs) - len(changed),
        same=same,
        compared=True,
    )


def _by_question(patch: Patch) -> Mapping[tuple[str, str], Fact]:
    facts = () if patch.facts_jsonl is None else parse_jsonl(patch.facts_jsonl).facts
    return {(fact.subject, fact.prompt): fact for fact in facts}


def _tensor(a: Patch, b: Patch, name: str) -> TensorDiff:
    one, two = a.factors.get(name, ()), b.factors.get(name, ())
    metas = [patch.metadata.tensors.get(name) for patch in (a, b)]
    digests = {meta.base_sha256 for meta in metas if meta is not None}
    return TensorDiff(
        name=name,
        status=_status(a, b, name),
        same_base=len(digests) == 1,
        sides=tuple(found for side in SIDES if (found := _side(one, two, side)) is not None),
        sums=(_sum_rank(one), _sum_rank(two)),
        sums_distance=_sums_distance(one, two),
    )


def _status(a: Patch, b: Patch, name: str) -> Status:
    metas = [patch.metadata.tensors.get(name) for patch in (a, b)]
    if metas[0] is None:
        return "added"
    if metas[1] is None:
        return "removed"
    return "same" if metas[0].factors == metas[1].factors else "modified"


def _side(one: Sequence[Factor], two: Sequence[Factor], side: Side) -> SideDiff | None:
    """Compare the rotations of one side, None where there are none."""
    a, b = ([f for f in each if isinstance(f, Turn) and f.side == side] for each in (one, two))
    if not a and not b:
        return None
    return SideDiff(
        side=side,
        planes=(sum(turn.rank for turn in a), sum(turn.rank for turn in b)),
        max_angle=_computed(lambda: (_angle(a), _angle(b))),
        geodesic=_computed(lambda: geodesic_distance(a, b)),
        principal=_computed(lambda: principal_angles(a, b)),
        commutator=_computed(lambda: commutator_norm(a, b)),
    )


def _angle(turns: Sequence[Turn]) -> float:
    """Largest angle of a product, from ‖R − I‖₂ = 2 sin(θ / 2)."""
    for turn in turns:
        turn.check()
    return 2 * math.asin(min(1.0, spectral_distance(turns, []) / 2))


def _computed(figure: Callable[[], T]) -> T | None:
    try:
        return figure()
    except InvariantError as error:
        # Blocks beside planes on a long side: too dear, and the rest of the report holds.
        if "limit" in error.details and "size" in error.details:
            return None
        raise


def _sum_rank(factors: Sequence[Factor]) -> int:
    return sum(factor.rank for factor in factors if isinstance(factor, Additive | AdditiveDense))


def _sums_distance(one: Sequence[Factor], two: Sequence[Factor]) -> float | None:
    """‖Σ l f − Σ l′ f′‖_F, None without sums or where one is dense or has another shape."""
    sums = [[f for f in each if isinstance(f, Additive | AdditiveDense)] for each in (one, two)]
    every = [*sums[0], *sums[1]]
    low = [factor for factor in every if isinstance(factor, Additive)]
    if not low or len(low) < len(every):
        return None
    if len({(factor.l.shape[0], factor.f.shape[1]) for factor in low}) > 1:
        return None
    empty = low[0].l[:, :0].double(), low[0].f[:0].double()
    a, b = (_joined([f for f in each if isinstance(f, Additive)], *empty) for each in sums)
    return a.distance(b)


def _joined(sums: Sequence[Additive], up: torch.Tensor, down: torch.Tensor) -> LowRank:
    return LowRank(
        torch.cat([up, *(factor.l.double() for factor in sums)], dim=1),
        torch.cat([down, *(factor.f.double() for factor in sums)]),
    )
