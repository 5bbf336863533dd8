"""The verb: a base and a changed copy of it in, a patch of rotations and a report out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal

from patchkit.diff.prediction import match
from patchkit.errors import BaseMismatch, InvariantError, SolveError
from patchkit.events import SILENT, Progress, phase
from patchkit.extract.choice import chosen
from patchkit.extract.fitting import Fitted, fit
from patchkit.extract.pair import Pair, Sizes
from patchkit.extract.report import ExtractedTensor, ExtractReport
from patchkit.factors import Layout, Side
from patchkit.patch.drafts import Storage, TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.dtypes import EDITABLE
from patchkit.verify.prediction import same_bytes, unlike

SideChoice = Literal["input", "output", "auto"]
"""The side that is turned, or for each matrix the one that explains more."""

_SIDES: Mapping[SideChoice, tuple[Side, ...]] = {
    "input": ("input",),
    "output": ("output",),
    "auto": ("input", "output"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Extraction:
    """A patch and the report of how near it comes."""

    patch: Patch
    report: ExtractReport


def extract(
    base: str | Path,
    edited: str | Path,
    *,
    tensors: Sequence[str] | None = None,
    layers: Collection[int] | None = None,
    side: SideChoice = "auto",
    rank: int | None = None,
    energy: float = 0.99,
    storage: Storage = "float32",
    progress: Progress = SILENT,
) -> Extraction:
    """Return the rotations nearest to what became of chosen matrices of a checkpoint folder.

    `tensors` are patterns of names and `layers` numbers, as `choice.chosen`. Of each rotation the
    fewest planes are kept that explain the share `energy` of what all of them do, at most `rank`.
    The result is a patch for `base` without facts. Matrices are read in blocks; memory is
    some 0.4 GB and six matrices (d, m) of fp64 with m the directions looked at, at most 1024 and
    usually twice the rank of the change. Raises InvariantError for a rank or energy that cannot be,
    BaseMismatch for a matrix of another shape or type in `edited`, SolveError where nothing
    changed or no rotation explains anything, and what opening the folders raises.
    """
    if not 0 < energy <= 1 or (rank is not None and rank < 1):
        raise InvariantError(
            f"a rotation keeps a share of energy in (0, 1] and at least 1 plane, not {energy} "
            f"and {rank}"
        )
    first, second = Checkpoint.open(base), Checkpoint.open(edited)
    layouts = chosen(first, tensors, layers)
    _check(first, second, layouts)
    wanted = _Wanted(_SIDES[side], rank, energy, storage)
    found: dict[str, tuple[TensorDraft, ExtractedTensor]] = {}
    unchanged: list[str] = []
    unexplained: list[str] = []
    with phase(progress, "looking for rotations", len(layouts), "tensors") as advance:
        for name, layout in layouts.items():
            pair = Pair(first, second, name)
            sizes = pair.sizes()
            if (made := _rotation(pair, sizes, layout, wanted)) is not None:
                found[name] = made
            else:
                (unexplained if sizes.change else unchanged).append(name)
            advance(1)
    report = ExtractReport(
        tensors=tuple(result for _, result in found.values()),
        unchanged=tuple(unchanged),
        unexplained=tuple(unexplained),
        left_out=tuple(_others(first, second, layouts, progress)),
    )
    if not found:
        raise _nothing(report)
    recipe = {"side": side, "rank": rank, "energy": energy}
    drafts = {name: draft for name, (draft, _) in found.items()}
    return Extraction(_patch(first, second, drafts, recipe, report, storage), report)


@dataclass(frozen=True, slots=True)
class _Wanted:
    sides: tuple[Side, ...]
    rank: int | None
    energy: float
    storage: Storage


def _rotation(
    pair: Pair, sizes: Sizes, layout: Layout, wanted: _Wanted
) -> tuple[TensorDraft, ExtractedTensor] | None:
    """What is stored for one matrix; None if it is the same or no rotation explains anything."""
    if not isfinite(sizes.weight + sizes.change):
        raise InvariantError(
            f"{pair.name} holds values that are not finite in {pair.base.path} or "
            f"{pair.edited.path}",
            details={"tensor": pair.name},
        )
    if not sizes.change:
        return None
    fitted = fit(pair, sizes, layout, wanted.sides, wanted.rank, wanted.energy)
    return None if fitted is None else _stored(pair, sizes, layout, fitted, wanted.storage)


def _patch(
    base: Checkpoint,
    edited: Checkpoint,
    drafts: Mapping[str, TensorDraft],
    recipe: Mapping[str, object],
    report: ExtractReport,
    storage: Storage,
) -> Patch:
    return build_patch(
        BaseMeta(base.repo, base.revision, base.config_digest),
        drafts,
        None,
        {**recipe, "edited": {name: edited.digest(name) for name in drafts}},
        "extract",
        {"explained": {result.name: result.explained for result in report.tensors}},
        storage=storage,
    )


def _stored(
    pair: Pair, sizes: Sizes, layout: Layout, fitted: Fitted, storage: Storage
) -> tuple[TensorDraft, ExtractedTensor]:
    """Round the rotation to what is stored, and measure that."""
    info = pair.base.tensor(pair.name).info
    draft = TensorDraft(
        pair.shape, info.dtype, layout, pair.base.digest(pair.name), [fitted.rotation]
    ).stored(storage)
    near = match(pair.base, pair.edited, pair.name, draft.factors, layout)
    return draft, ExtractedTensor(
        name=pair.name,
        side=fitted.rotation.side,
        planes=fitted.rotation.rank,
        planes_found=fitted.planes_found,
        directions=fitted.directions,
        change=sqrt(sizes.change / sizes.weight) if sizes.weight else 0.0,
        explained=near.explained,
        reachable=fitted.reachable,
        rounding=min(1.0, sizes.noise / sizes.change),
        max_angle=float(fitted.rotation.norm()),
        same=near.within_rounding,
    )


def _check(base: Checkpoint, edited: Checkpoint, names: Collection[str]) -> None:
    """BaseMismatch unless both folders have each matrix, in one shape and as numbers."""
    for name in names:
        expected, found = base.tensor(name).info, edited.tensor(name).info
        if expected.shape != found.shape or found.dtype not in EDITABLE:
            raise BaseMismatch(
                f"{name} is {tuple(expected.shape)} {expected.dtype} in {base.path} and "
                f"{tuple(found.shape)} {found.dtype} in {edited.path}",
                hint="a rotation leads from a matrix to one of the same shape",
                details={
                    "tensor": name,
                    "expected": [*expected.shape, expected.dtype],
                    "found": [*found.shape, found.dtype],
                },
            )


def _others(a: Checkpoint, b: Checkpoint, chosen: Collection[str], progress: Progress) -> list[str]:
    """Tensors beside the chosen ones that are not the same in both."""
    names = [name for name in dict.fromkeys((*a.tensors, *b.tensors)) if name not in chosen]
    others = []
    with phase(progress, "comparing other tensors", len(names), "tensors") as advance:
        for name in names:
            if unlike(a, b, name) or not same_bytes(a, b, name):
                others.append(name)
            advance(1)
    return others


def _nothing(report: ExtractReport) -> SolveError:
    if report.unexplained:
        return SolveError(
            f"no rotation explains anything of how {report.unexplained[0]} changed",
            hint="a rotation keeps norms; it cannot follow a change of length, or one that is "
            "smaller than rounding",
            details={"unexplained": report.unexplained},
        )
    count = len(report.unchanged)
    others = f"; others differ, such as {report.left_out[0]}" if report.left_out else ""
    return SolveError(
        f"the {count} chosen matrices are the same in both checkpoints{others}",
        hint="choose others with --tensors '*.weight'" if report.left_out else None,
        details={"left_out": report.left_out},
    )
