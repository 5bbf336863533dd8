"""Taking patches off a folder: in place, file by file, or into another folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.apply.lock import read_lock
from patchkit.errors import BaseMismatch, OutputError
from patchkit.events import SILENT, Progress, phase
from patchkit.report import Check, Report
from patchkit.revert.plan import RevertPlan, Source, plan_revert
from patchkit.revert.sources import Estimate, FromBase, FromUndo, origin_of
from patchkit.revert.unstack import unstack
from patchkit.tensors.clone import create, fill
from patchkit.tensors.rewrite import LOCK, UNDO, check_place, output_error, staged_folder
from patchkit.undo.restoring import finish, interrupted, replace_shards, restore_shard


@dataclass(frozen=True, slots=True)
class RevertReport:
    """What came off, from what, and how it was checked.

    `restored` counts tensors and `shards` names the files that hold them; `reverted` and
    `remaining` are digests of patches. `error` bounds ‖W̃ − W‖_F / ‖W̃‖_F of the worst tensor and is
    0 where `bit_exact`. Checks: `tensors` have their recorded digests, `files` are byte for byte
    the base's.
    """

    path: Path
    source: Source
    restored: int
    shards: tuple[str, ...]
    reverted: tuple[str, ...]
    remaining: tuple[str, ...]
    bit_exact: bool
    error: float
    checks: Report
    seconds: float


def revert(
    folder: str | Path,
    *,
    only: str | Path | None = None,
    base: str | Path | None = None,
    out: str | Path | None = None,
    approximate: bool = False,
    allow_missing: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> RevertReport:
    """Take all patches off a folder that apply wrote, or `only` one of them, to the bit.

    In place, or into the folder `out` (`overwrite` replaces a model there). What a kill
    interrupted in place is completed. Removing one patch of several applies the others again to
    the base, so that weights are rounded once. `approximate` is for when base and sidecar are
    gone, and needs `out`: weights are then the inverse rounded once more, with a bound on the
    error. Memory is a few blocks, below 300 MB above torch for patches of up to 512 dimensions.

    Raises OutputError, BaseMismatch for a base or weights other than those recorded, and what
    `plan_revert` raises; nothing is replaced then, but for shards that were completed before.
    """
    begun = time.monotonic()
    path = Path(folder)
    if interrupted(path) and not (path / LOCK).is_file():
        finish(path, (), (UNDO,))
        return _completed(path, begun)
    plan = plan_revert(
        path, only=only, base=base, approximate=approximate, allow_missing=allow_missing
    )
    target = None if out is None else Path(out)
    if target is not None:
        check_place(target, overwrite=overwrite)
        _check_apart(plan, target)
    plan = _checked(plan, fall_back=base is None, progress=progress)
    _check_whole(plan, target)
    if plan.remaining:
        unstack(plan, target or path, overwrite=overwrite or target is None, progress=progress)
        return _unstacked(plan, target or path, begun)
    work = _Restoring(plan, progress)
    if target is None:
        work.in_place()
    else:
        work.into(target, overwrite)
    return work.report(target or path, begun)


def _checked(plan: RevertPlan, *, fall_back: bool, progress: Progress) -> RevertPlan:
    """Compare what is read with the lock; a base that has changed gives way to a sidecar."""
    try:
        origin_of(plan).check(progress)
    except BaseMismatch:
        if plan.source != "base" or plan.undo is None or not fall_back:
            raise
        plan = replace(plan, source="undo", base=None)
        origin_of(plan).check(progress)
    return plan


def _check_whole(plan: RevertPlan, out: Path | None) -> None:
    """OutputError where the patched weights are needed, and are not all there or would be lost."""
    if plan.source == "estimate" and out is None:
        raise OutputError(
            f"an estimate does not replace {plan.path}, which could then no longer be reverted",
            hint="name another folder with -o",
        )
    in_place = out is None and not plan.remaining
    if plan.source != "base" and interrupted(plan.path) and not in_place:
        raise OutputError(
            f"taking all patches off {plan.path} was interrupted, so some of it is restored",
            hint=f"patchkit revert {plan.path} completes it",
        )


class _Restoring:
    """One run of putting back the bytes of every edited tensor."""

    def __init__(self, plan: RevertPlan, progress: Progress) -> None:
        self.plan = plan
        self.progress = progress
        self.origin: FromBase | FromUndo | Estimate = origin_of(plan)
        self.same: list[str] = []  # files that are the base's, by digest or by being its copy

    def in_place(self) -> None:
        """Replace the shards that are not restored yet, then remove what spoke of patches."""
        plan = self.plan
        todo = [shard for shard in plan.shards if not self._done(shard)]
        try:
            with phase(self.progress, "restoring", len(todo), "files") as advance:

                def write(shard: str, target: Path) -> None:
                    self._write(shard, target)
                    advance(1)

                replace_shards(plan.path, todo, write)
            finish(plan.path, plan.shards, (LOCK, UNDO))
        except OSError as error:
            raise output_error(plan.path, error) from error

    def into(self, out: Path, overwrite: bool) -> None:
        """Write a folder with everything of the patched one, restored."""
        plan = self.plan
        paths = sorted(path for path in plan.path.rglob("*") if path.is_file())
        with (
            staged_folder(out, overwrite=overwrite) as folder,
            phase(self.progress, "restoring", len(paths), "files") as advance,
        ):
            for path in paths:
                name = path.relative_to(plan.path).as_posix()
                if name in plan.shards:
                    self._write(name, folder / name)
                elif not path.name.startswith(("patchkit.", ".")):
                    _copy(path, folder / name)
                advance(1)

    def report(self, path: Path, begun: float) -> RevertReport:
        """Say what was done."""
        plan, origin = self.plan, self.origin
        total = len(plan.lock.tensors)
        exact = origin.exact if isinstance(origin, Estimate) else total
        estimated = isinstance(origin, Estimate)
        checks = (
            Check("tensors", exact, total, estimated or exact == total, "have the base's digests"),
            Check(
                "files",
                len(self.same),
                len(plan.shards),
                True,
                "are byte for byte the base's",
                skipped=len(self.same) < len(plan.shards),
            ),
        )
        return RevertReport(
            path=path,
            source=plan.source,
            restored=total,
            shards=plan.shards,
            reverted=tuple(patch.digest for patch in plan.reverted),
            remaining=(),
            bit_exact=exact == total,
            error=origin.error if isinstance(origin, Estimate) and exact < total else 0.0,
            checks=Report(checks),
            seconds=time.monotonic() - begun,
        )

    def _done(self, shard: str) -> bool:
        """Whether an interrupted run has restored a shard, which has no corrections any more."""
        if self.plan.source != "undo" or not interrupted(self.plan.path):
            return False
        tensors, patched = self.plan.lock.tensors, self.plan.patched
        names = [entry.info.name for entry in self.plan.entries(shard)]
        done = all(patched.digest(name) == tensors[name].before for name in names)
        if done and self.plan.lock.shards[shard].before is not None:
            self.same.append(shard)
        return done

    def _write(self, shard: str, target: Path) -> None:
        """Write one restored shard; BaseMismatch if it is not the file that the lock records."""
        whole = self.origin.file(shard)
        recorded = self.plan.lock.shards.get(shard)
        expected = None if recorded is None else recorded.before
        if whole and expected is None:
            _copy(whole, target)
            self.same.append(shard)
            return
        infos = [] if whole else [entry.info for entry in self.plan.entries(shard)]
        digest = restore_shard(whole or self.plan.path / shard, target, infos, self.origin.blocks)
        if expected not in (None, digest) and not isinstance(self.origin, Estimate):
            raise BaseMismatch(
                f"{shard} would not be the base's: it should have {expected[:15]}…, and "
                f"{digest[:15]}… came out, so something beside the edited tensors was changed",
                hint="patchkit verify looks for it",
                details={"shard": shard, "expected": expected, "found": digest},
            )
        if expected == digest:
            self.same.append(shard)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not create(source, target):
        fill(source, target)


def _check_apart(plan: RevertPlan, out: Path) -> None:
    """OutputError if replacing `out` would remove what is being read, or grow inside it."""
    target = out.resolve()
    read = [plan.path.resolve(), *([plan.base.path.resolve()] if plan.base else [])]
    for folder in read:
        if target == folder or folder in target.parents or target in folder.parents:
            raise OutputError(
                f"{out} and {folder} lie inside each other",
                hint="name an output beside them with -o, or none to revert in place",
            )


def _unstacked(plan: RevertPlan, path: Path, begun: float) -> RevertReport:
    lock = read_lock(path)
    remaining: Sequence[str] = () if lock is None else [patch.digest for patch in lock.patches]
    wanted = [patch.digest for patch in plan.remaining]
    check = Check(
        "patches", len(remaining), len(wanted), list(remaining) == wanted, "applied again"
    )
    return RevertReport(
        path=path,
        source=plan.source,
        restored=len(plan.lock.tensors),
        shards=plan.shards,
        reverted=tuple(patch.digest for patch in plan.reverted),
        remaining=tuple(remaining),
        bit_exact=True,
        error=0.0,
        checks=Report((check,)),
        seconds=time.monotonic() - begun,
    )


def _completed(path: Path, begun: float) -> RevertReport:
    """The report of a run that only had to remove the marks of an earlier one."""
    check = Check("tensors", 0, 0, True, "were restored before")
    seconds = time.monotonic() - begun
    return RevertReport(path, "base", 0, (), (), (), True, 0.0, Report((check,)), seconds)
