"""The verb: several patches in, one patch and a report out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from patchkit import __version__
from patchkit.compose import combine
from patchkit.compose.binding import check_predecessors, common_base, described, predecessors
from patchkit.compose.combine import Combined
from patchkit.compose.facts import Union, refuse, united
from patchkit.compose.interaction import MANY, Found, strongest
from patchkit.compose.parts import Part
from patchkit.compose.report import ComposeReport, TensorResult
from patchkit.errors import FormatError, InvariantError
from patchkit.events import SILENT, Progress, phase
from patchkit.factors.compression import COMPRESSED
from patchkit.facts.jsonl import to_jsonl
from patchkit.patch.metadata import (
    MAX_TENSORS,
    BaseMeta,
    FactsMeta,
    Leaf,
    PatchMetadata,
    TensorMeta,
)
from patchkit.patch.parts import factor_meta, factor_parts
from patchkit.patch.patch import Patch
from patchkit.tensors.digests import bytes_digest

Method = Literal["product", "mean", "karcher"]
"""One after another; the mean of the generators; the Karcher mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """A patch and the report of how it was made."""

    patch: Patch
    report: ComposeReport


def compose(
    parts: Sequence[Patch | Part],
    *,
    method: Method = "product",
    compress: float | None = None,
    on_conflict: Literal["later", "error"] = "later",
    allow_other_base: bool = False,
    progress: Progress = SILENT,
) -> Composition:
    """Return one patch that acts as `parts` do one after another, or as their mean.

    A product concatenates the lists of factors, byte for byte, so that it is associative in
    tensors and metadata, and one part alone is returned as it is. With `compress`, an angle in
    radians, neighbouring rotations of one side are merged and smaller planes left out; the report
    and the recipe state the error. Means merge by nature and count a part that leaves a tensor
    alone as the identity. Facts are united, the later of two that contradict each other wins, or
    with `on_conflict="error"` FactsError. Raises BaseMismatch for parts of different bases and
    parts whose predecessors are missing or out of order, the same unless `allow_other_base`;
    FormatError beyond what a file can hold; SolveError where rotations have no mean, InvariantError
    where factors have none or an angle is no angle; ValueError when there is no part.
    """
    if compress is not None and not 0.0 <= compress <= math.pi:
        raise InvariantError(f"planes can be left out below 0 to π radians, not below {compress}")
    given = _named(parts)
    digests = [part.patch.digest for part in given]
    if len(given) > 1 and not allow_other_base:
        check_predecessors(given, digests)
    base = common_base(given, allow_other_base=allow_other_base)
    tensors = described(given, allow_other_base=allow_other_base)
    facts = united(given)
    if on_conflict == "error":
        refuse(facts.conflicts)
    alone = len(given) == 1 and given[0].plain and compress is None
    done, results = _combined(given, tensors, "product" if alone else method, compress, progress)
    report = ComposeReport(
        method=method,
        order=tuple(part.name for part in given),
        parents=tuple(digests),
        tensors=results,
        facts=len(facts.facts),
        conflicts=facts.conflicts,
        silent=facts.silent,
        every_pair=len(given) <= MANY,
    )
    if alone:
        return Composition(given[0].patch, report)
    leaves = [leaf for part, own in zip(given, digests, strict=True) for leaf in part.leaves(own)]
    recipe = _recipe(given, compress, report.bound)
    blank = _metadata(base, method, recipe, leaves, predecessors(given, leaves))
    return Composition(_patch(blank, tensors, done, facts), report)


def _named(parts: Sequence[Patch | Part]) -> list[Part]:
    """Return the parts, each with a name; ValueError when there is none."""
    if not parts:
        raise ValueError("there is no patch to compose")
    given = [part if isinstance(part, Part) else Part(part) for part in parts]
    return [
        part if part.name else replace(part, name=f"patch {number} of {len(given)}")
        for number, part in enumerate(given, 1)
    ]


def _combined(
    parts: Sequence[Part],
    tensors: Iterable[str],
    method: Method,
    compress: float | None,
    progress: Progress,
) -> tuple[dict[str, Combined], tuple[TensorResult, ...]]:
    """Return what becomes of each tensor, and what is worth saying of it."""
    done: dict[str, Combined] = {}
    results = []
    names = tuple(tensors)
    with phase(progress, "composing", len(names), "tensors") as advance:
        for name in names:
            lists = [part.factors(name) for part in parts]
            if method == "product":
                done[name] = combine.product(lists, compress)
                found = strongest(lists, every_pair=len(parts) <= MANY)
            else:
                done[name], found = combine.mean(method, lists, compress), None
            results.append(_result(name, parts, done[name], found))
            advance(1)
    return done, tuple(results)


def _result(name: str, parts: Sequence[Part], done: Combined, found: Found | None) -> TensorResult:
    return TensorResult(
        name=name,
        patches=tuple(part.name for part in parts if name in part.patch.factors),
        commutator=None if found is None else found[0],
        pair=None if found is None else (parts[found[1][0]].name, parts[found[1][1]].name),
        factors=len(done.factors),
        planes=sum(turn.rank for turn in combine.turns_of(done.factors)),
        bound=done.bound,
        steps=done.steps,
        residual=done.residual,
    )


def _recipe(parts: Sequence[Part], compress: float | None, bound: float) -> dict[str, object]:
    """Return the recipe that all parts share, and every compression so far with its bound."""
    recipes = [dict(part.patch.metadata.recipe) for part in parts]
    listed = [recipe.pop(COMPRESSED, None) for recipe in recipes]
    history = [each for past in listed if isinstance(past, list) for each in past]
    if compress is not None:
        history.append({"tolerance": compress, "bound": bound})
    shared = recipes[0] if all(recipe == recipes[0] for recipe in recipes) else {}
    return {**shared, COMPRESSED: history} if history else shared


def _metadata(
    base: BaseMeta,
    method: Method,
    recipe: Mapping[str, object],
    leaves: Sequence[Leaf],
    after: Sequence[str],
) -> PatchMetadata:
    """Return the metadata of the result, yet without tensors and facts."""
    return PatchMetadata(
        base=base,
        tensors={},
        method="compose" if method == "product" else method,
        created_by=f"patchkit {__version__}",
        recipe=recipe,
        after=tuple(after),
        leaves=tuple(leaves),
    )


def _patch(
    blank: PatchMetadata,
    tensors: Mapping[str, TensorMeta],
    done: Mapping[str, Combined],
    facts: Union,
) -> Patch:
    """Fill in tensors and facts; FormatError beyond what a file can hold."""
    factors = {name: done[name].factors for name in tensors if done[name].factors}
    held = sum(len(factor_parts(factor)) for listed in factors.values() for factor in listed)
    if held > MAX_TENSORS - 1:
        raise FormatError(
            f"the composition holds {held} tensors and a patch file at most {MAX_TENSORS - 1}",
            hint="pass --compress to merge neighbouring rotations into one",
        )
    text = to_jsonl(facts.facts) or None
    metadata = replace(
        blank,
        tensors={
            name: replace(tensors[name], factors=tuple(map(factor_meta, listed)))
            for name, listed in factors.items()
        },
        facts=None if text is None else FactsMeta(len(facts.facts), bytes_digest(text)),
    )
    return Patch(PatchMetadata.from_json(metadata.to_json()), factors, text)
