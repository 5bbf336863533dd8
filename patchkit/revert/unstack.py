"""Taking one patch out of several: the others are applied again to the base, rounded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from patchkit.apply.folder import write_plan
from patchkit.apply.lock import base_path, patch_paths
from patchkit.apply.plan import plan_apply
from patchkit.apply.restored import restored_base
from patchkit.events import Progress
from patchkit.revert.plan import RevertPlan
from patchkit.tensors.checkpoint import Checkpoint


def unstack(plan: RevertPlan, out: Path, *, overwrite: bool, progress: Progress) -> None:
    """Write `out` with the remaining patches alone; a sidecar is made again if there was one.

    Base or weights have been compared with the lock. Raises as `write_plan`.
    """
    if plan.base is not None:
        _write(plan, plan.base, out, overwrite, progress)
        return
    with restored_base(plan.path, out) as base:
        _write(plan, base, out, overwrite, progress)


def _write(
    plan: RevertPlan, base: Checkpoint, out: Path, overwrite: bool, progress: Progress
) -> None:
    files = dict(zip(plan.lock.patches, patch_paths(plan.path, plan.lock), strict=True))
    # The base has been compared with the lock, and the order was the caller's choice.
    remaining = plan_apply(
        base.path, [files[patch] for patch in plan.remaining], allow_other_base=True
    )
    root = base_path(plan.path, plan.lock) if plan.base is None else None
    write_plan(
        replace(remaining, checkpoint=base, root=root),
        out,
        allow_other_base=True,
        overwrite=overwrite,
        undo=plan.undo is not None,
        progress=progress,
    )
