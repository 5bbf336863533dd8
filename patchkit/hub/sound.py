"""Whether a patch keeps what its kind of factors promises: asked before a push, and of a pull."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchkit.errors import BaseMismatch, FormatError, InvariantError
from patchkit.events import SILENT, Progress
from patchkit.patch.metadata import PatchMetadata
from patchkit.patch.reader import PatchInfo, as_source, read_info
from patchkit.report import Report
from patchkit.verify import verify_patch

_OF_ROTATIONS = frozenset({"orthogonality", "norm", "condition"})


FindBase = Callable[[PatchMetadata], Path]
"""Finds the folder that a patch is to be compared with, from what it says about itself."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A patch file in order, and the checks that say so."""

    info: PatchInfo
    report: Report


def sound(
    patch: Path | bytes,
    base: Path | FindBase | None = None,
    *,
    name: str,
    progress: Progress = SILENT,
) -> Sound:
    """Read and verify a patch; what only rotations promise is not asked of additive factors.

    Raises FormatError for what is not a patch, BaseMismatch for another base's, InvariantError
    for any other check that fails.
    """
    try:
        info = read_info(patch)
    except FormatError as error:
        raise FormatError(
            f"{name} is not a patch that can be shared: {error.message}",
            hint=error.hint,
            details=error.details,
        ) from error
    folder = base(info.metadata) if callable(base) else base
    report = verify_patch(as_source(patch), base=folder, progress=progress)
    excused: frozenset[str] = frozenset() if _turns_only(info.metadata) else _OF_ROTATIONS
    failed = [check for check in report.failed if check.name not in excused]
    if not failed:
        return Sound(info, report)
    first = failed[0]
    if first.name == "base-match":
        raise BaseMismatch(
            f"{name} was made for another base: {first.value} of {first.limit} tensors match",
            hint="patchkit inspect shows which base a patch was made for",
        )
    raise InvariantError(
        f"{name} fails {len(failed)} of {len(report.checks)} checks "
        f"({', '.join(check.name for check in failed)}): {first.detail or first.value}",
        hint="patchkit verify shows all checks",
    )


def _turns_only(metadata: PatchMetadata) -> bool:
    return all(
        factor.kind.startswith("rotation")
        for tensor in metadata.tensors.values()
        for factor in tensor.factors
    )
