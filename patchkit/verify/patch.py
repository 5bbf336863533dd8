"""Checks of one patch file, alone or against the base it was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.lock import root_of
from patchkit.errors import FormatError, InvariantError
from patchkit.events import SILENT, Progress, phase
from patchkit.factors.action import Factor
from patchkit.patch.metadata import FORMAT
from patchkit.patch.parts import factor_parts, read_factors, values_not_finite
from patchkit.patch.patch import Patch
from patchkit.patch.reader import PatchLayout, as_source, find_damage, read_layout
from patchkit.report import Check, Report
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import sha256_of_range
from patchkit.tensors.source import ByteSource
from patchkit.verify import verdicts
from patchkit.verify.certificate import defect
from patchkit.verify.measure import Measured, measure

_NAMES = (
    "digest", "finite", "orthogonality", "base-match", "norm", "condition", "rounding",
)  # fmt: skip
_OF_MODEL = ("displacement", "leakage", "facts")


def verify_patch(
    path: str | Path | bytes | ByteSource,
    base: str | Path | None = None,
    *,
    deep: bool = False,
    behaviour: bool = False,
    progress: Progress = SILENT,
) -> Report:
    """Check format, digest, finite, orthogonality, base-match, norm, condition, rounding, and more.

    `base` is a checkpoint folder; a patched folder stands for the base it was made from. With it,
    norm and condition are those of the edited weights in fp64, otherwise bounds that hold for any
    weight; singular values of large matrices are computed only if `deep`. `behaviour` runs the
    base, with and without the patch, for displacement, leakage and facts. A damaged patch gives a
    negative verdict, not an error: FormatError only if there is no such file, CheckpointError if
    the base cannot be used.
    """
    source = as_source(path)
    checkpoint = None if base is None else Checkpoint.open(root_of(Path(base))[0])
    try:
        layout = read_layout(source)
    except FormatError as error:
        return _unreadable(error.message)
    looked = _look(source, layout, checkpoint, deep, progress)
    return Report((
        Check("format", FORMAT, FORMAT, True),
        verdicts.digest_check(
            sha256_of_range(source, 0, source.size), tuple(find_damage(source, layout))
        ),
        verdicts.finite_check({name: each.values for name, each in looked.items()}),
        verdicts.orthogonality_check({name: each.defect for name, each in looked.items()}),
        *_against(checkpoint, layout, looked),
        *_behaviour(source, checkpoint, behaviour, progress),
    ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Look:
    """One tensor: how many stored values are finite, of how many; its defect; its measures.

    The last two are a sentence where there is no number, `measured` is None without a base.
    """

    values: tuple[int, int]
    defect: float | str
    measured: Measured | str | None


def _look(
    source: ByteSource,
    layout: PatchLayout,
    checkpoint: Checkpoint | None,
    deep: bool,
    progress: Progress,
) -> dict[str, _Look]:
    """Look at one tensor after another, so that no more than its factors are in memory."""
    looked = {}
    names = layout.metadata.tensors
    what = "measuring edited tensors" if checkpoint else "checking factors"
    with phase(progress, what, len(names), "tensors") as advance:
        for name in names:
            looked[name] = _look_at(source, layout, name, checkpoint, deep)
            advance(1)
    return looked


def _look_at(
    source: ByteSource, layout: PatchLayout, name: str, checkpoint: Checkpoint | None, deep: bool
) -> _Look:
    """Look at one tensor, and leave nothing of its factors behind."""
    factors = read_factors(source, layout.metadata, layout.header, name)
    total = sum(t.numel() for factor in factors for t in factor_parts(factor).values())
    values = (total - values_not_finite(factors), total)
    broken = _defect(factors)
    if checkpoint is None:
        return _Look(values, broken, None)
    if isinstance(broken, str):
        return _Look(values, broken, broken)
    return _Look(values, broken, _measured(checkpoint, layout, name, factors, deep))


def _against(
    checkpoint: Checkpoint | None, layout: PatchLayout, looked: Mapping[str, _Look]
) -> tuple[Check, ...]:
    defects = {name: each.defect for name, each in looked.items()}
    measured = {n: each.measured for n, each in looked.items() if each.measured is not None}
    if checkpoint is None:
        return (
            verdicts.needs_base("base-match", len(looked)),
            verdicts.norm_check(defects, {}),
            verdicts.condition_check(defects, {}),
            verdicts.needs_base("rounding", verdicts.ROUNDING_LIMIT),
        )
    return (
        verdicts.base_match_check(checkpoint, layout),
        verdicts.norm_check(defects, measured),
        verdicts.condition_check(defects, measured),
        verdicts.rounding_check(measured),
    )


def _behaviour(
    source: ByteSource, checkpoint: Checkpoint | None, behaviour: bool, progress: Progress
) -> tuple[Check, ...]:
    if checkpoint is None or not behaviour:
        needs = "needs --behaviour" if checkpoint is not None else "needs --base and --behaviour"
        return tuple(Check(name, None, None, True, needs, skipped=True) for name in _OF_MODEL)
    # Imported here, because checks of bytes need no model.
    from patchkit.verify.behaviour import behaviour_checks

    try:
        patch = Patch.read(source)
    except FormatError as error:
        return tuple(Check(name, None, None, False, error.message) for name in _OF_MODEL)
    return behaviour_checks(patch, checkpoint, progress)


def _defect(factors: Sequence[Factor]) -> float | str:
    try:
        return defect(factors)
    except InvariantError as error:
        return error.message


def _measured(
    checkpoint: Checkpoint,
    layout: PatchLayout,
    name: str,
    factors: Sequence[Factor],
    deep: bool,
) -> Measured | str:
    """Measure where the base has a tensor of the right shape and type."""
    meta, entry = layout.metadata.tensors[name], checkpoint.tensors.get(name)
    if entry is None or (entry.info.shape, entry.info.dtype) != (meta.shape, meta.dtype):
        return "the base has no tensor of this name, shape and type"
    return measure(checkpoint, name, meta, factors, deep=deep)


def _unreadable(sentence: str) -> Report:
    rest = (
        Check(name, None, None, False, "the file could not be read")
        for name in (*_NAMES, *_OF_MODEL)
    )
    return Report((Check("format", None, FORMAT, False, sentence), *rest))
