"""Writing the patched folder: check the base, copy on write, lock."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.lock import (
    Lock,
    LockedPatch,
    LockedShard,
    LockedTensor,
    locked_base,
    relative_path,
)
from patchkit.apply.plan import ApplyPlan, plan_apply
from patchkit.apply.restored import keep_undo, with_base
from patchkit.apply.shards import Choices, Filled, ShardWriter
from patchkit.errors import BaseMismatch, OutputError
from patchkit.events import SILENT, Progress, phase
from patchkit.patch.writing import write_atomically
from patchkit.tensors.clone import can_reflink
from patchkit.tensors.digests import json_digest
from patchkit.tensors.journal import Journal
from patchkit.tensors.origin import read_origin
from patchkit.tensors.rewrite import LOCK, check_place, staged_folder

Digests = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was written where; sizes in bytes.

    `shards` counts those `rewritten`, `cloned` (sharing storage with the base) and `copied`;
    `resumed` are those of them that an earlier run had finished.
    `other_base` names edited tensors whose base bytes were not those the patch was made for.
    `undo_bytes` is the size of the undo sidecar, None without one.
    `peak_memory_bytes` is of the whole process so far, None where the system does not tell.
    """

    path: Path
    lock: Path
    patches: tuple[str, ...]
    tensors_changed: int
    tensors_total: int
    shards: Mapping[str, int]
    resumed: tuple[str, ...]
    left_out: tuple[str, ...]
    other_base: tuple[str, ...]
    bytes_changed: int
    bytes_written: int
    undo_bytes: int | None
    seconds: float
    peak_memory_bytes: int | None


def apply_patches(
    base: str | Path,
    patches: Sequence[str | Path],
    out: str | Path,
    *,
    allow_other_base: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    link: bool = False,
    file_digests: bool = False,
    undo: bool = False,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> ApplyReport:
    """Write a copy of the folder `base` with patches applied in order, and its lock file.

    Edited byte ranges are the only difference. Every edited tensor's digest is compared with the
    patch before anything is written; `allow_other_base` goes on where they differ. `out` appears
    whole or not at all; `overwrite` replaces a model there, `resume` goes on with what a killed
    run of the same base and patches left. `link` makes untouched shards hard links to the base's
    where the disk cannot share blocks. `file_digests` locks those of rewritten shards before and
    after, for two passes of sha256 over them; `undo` does so too, and keeps what brings the base
    back where it is gone (`docs/revert.md`). `threads` bounds those of the arithmetic: while
    files are copied it is slower on all cores than on some. Memory as `ApplyPlan.memory_bytes`.

    Raises BaseMismatch, OutputError, InvariantError (a value would not be finite), and what
    `plan_apply` raises.
    """
    out = Path(out)
    check_place(out, overwrite=overwrite)
    plan = plan_apply(base, patches, allow_other_base=allow_other_base)
    with with_base(plan, Path(base), out) as plan:
        return write_plan(
            plan,
            out,
            allow_other_base=allow_other_base,
            overwrite=overwrite,
            resume=resume,
            link=link,
            file_digests=file_digests,
            undo=undo,
            threads=threads,
            progress=progress,
        )


def write_plan(
    plan: ApplyPlan,
    out: Path,
    *,
    allow_other_base: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    link: bool = False,
    file_digests: bool = False,
    undo: bool = False,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> ApplyReport:
    """Write what a plan says; arguments and errors as in `apply_patches`."""
    begun = time.monotonic()
    check_place(out, overwrite=overwrite)
    _check_apart(plan, out)
    before = _digests(plan, progress)
    others = _check_base(plan, before, allow_other_base)
    inputs = _inputs(plan, out, before)
    with staged_folder(out, overwrite=overwrite, inputs=inputs, resume=resume) as folder:
        _check_space(plan, folder, out, link=link, undo=undo)
        choices = Choices(link, file_digests or undo, threads)
        filled = ShardWriter(plan, folder, choices, progress).write()
        lock = _lock(plan, out, before, filled)
        write_atomically(folder / LOCK, lock.to_json())
        undo_bytes = keep_undo(plan, folder, progress) if undo else None
    return ApplyReport(
        path=out,
        lock=out / LOCK,
        patches=tuple(patch.info.digest for patch in plan.patches),
        tensors_changed=sum(tensor.before != tensor.after for tensor in lock.tensors.values()),
        tensors_total=len(plan.checkpoint.tensors),
        shards={
            "rewritten": len(plan.rewritten),
            "cloned": len(filled.shared),
            "copied": len(plan.cloned) - len(filled.shared),
        },
        resumed=tuple(sorted(filled.resumed)),
        left_out=plan.left_out,
        other_base=others,
        bytes_changed=plan.bytes_changed,
        bytes_written=filled.bytes_written,
        undo_bytes=undo_bytes,
        seconds=time.monotonic() - begun,
        peak_memory_bytes=_peak_memory(),
    )


def _check_apart(plan: ApplyPlan, out: Path) -> None:
    """OutputError if replacing `out` would remove what is being read, or grow inside it."""
    target, root = out.resolve(), plan.checkpoint.path.resolve()
    if target == root or root in target.parents or target in root.parents:
        raise OutputError(
            f"{out} and the base {plan.checkpoint.path} lie inside each other",
            hint="name an output beside the base with -o",
        )
    for patch in plan.patches:
        if target in patch.path.resolve().parents:
            raise OutputError(
                f"{out} holds {patch.path.name}, which is being applied",
                hint="move the patch elsewhere first",
            )


def _digests(plan: ApplyPlan, progress: Progress) -> dict[str, str]:
    """Digests of the edited tensors in the base; hashing leaves the interpreter free."""
    names = [tensor.name for tensor in plan.tensors]
    found = {}
    with (
        phase(progress, "checking base", plan.bytes_changed, "B") as advance,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
    ):
        digests = pool.map(plan.checkpoint.digest, names)
        for tensor, digest in zip(plan.tensors, digests, strict=True):
            found[tensor.name] = digest
            advance(tensor.nbytes)
    return found


def _check_base(plan: ApplyPlan, found: Digests, allow_other_base: bool) -> tuple[str, ...]:
    """Names of tensors that the patches were not made for; BaseMismatch if not allowed."""
    others = []
    for patch in plan.patches:
        for name, meta in patch.info.metadata.tensors.items():
            if meta.base_sha256 == found[name]:
                continue
            if not allow_other_base:
                raise _other_base(
                    plan, patch.info.metadata.base.repo, name, meta.base_sha256, found
                )
            others.append(name)
    return tuple(dict.fromkeys(others))


def _other_base(
    plan: ApplyPlan, repo: str | None, name: str, expected: str, found: Digests
) -> BaseMismatch:
    shard = plan.checkpoint.tensor(name).shard
    return BaseMismatch(
        f"the patch was made for another base: {name} should have {expected[:15]}…"
        f"{f' (as in {repo})' if repo else ''}, and {plan.checkpoint.path / shard} has "
        f"{found[name][:15]}…",
        hint="pass --allow-other-base to rotate these weights anyway "
        "(the facts may not come with it)",
        details={"tensor": name, "shard": shard, "expected": expected, "found": found[name]},
    )


def _inputs(plan: ApplyPlan, out: Path, before: Digests) -> dict[str, str]:
    """What a run is made from, as texts that a resumed run must have again."""
    base = plan.checkpoint
    return {
        "base": relative_path(plan.root or base.path, out),
        "configuration": base.config_digest,
        "weights": json_digest(dict(before)),
        "patches": ", ".join(patch.info.digest for patch in plan.patches),
    }


def _check_space(plan: ApplyPlan, folder: Path, out: Path, *, link: bool, undo: bool) -> None:
    base = plan.checkpoint.path
    if can_reflink(base / next(iter(plan.checkpoint.shards)), folder):
        needed = plan.bytes_changed
    else:
        finished = Journal.read(folder).finished.keys() & plan.checkpoint.shards.keys()
        there = {*finished, *(plan.cloned if link else ())}
        needed = plan.bytes_total - sum((base / name).stat().st_size for name in there)
    if undo:
        needed += plan.undo_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{out} needs {needed} bytes and its disk has {free} left",
            hint="free some space or name an output on another disk with -o",
            details={"needed": needed, "free": free},
        )


def _lock(plan: ApplyPlan, out: Path, before: Digests, filled: Filled) -> Lock:
    base = plan.checkpoint
    after = {name: d for entry in filled.rewritten.values() for name, d in entry.parts.items()}
    return Lock(
        base=locked_base(
            plan.root or base.path,
            out,
            repo=base.repo,
            revision=base.revision,
            config_digest=base.config_digest,
        ),
        patches=tuple(
            LockedPatch(patch.info.digest, relative_path(patch.path, out), _source(patch.path))
            for patch in plan.patches
        ),
        tensors={
            tensor.name: LockedTensor(tensor.entry.shard, before[tensor.name], after[tensor.name])
            for tensor in plan.tensors
        },
        shards={
            **{
                name: LockedShard("rewritten", entry.base_digest, entry.digest)
                for name, entry in filled.rewritten.items()
            },
            **dict.fromkeys(plan.cloned, LockedShard("unchanged", None, None)),
        },
    )


def _source(patch: Path) -> str | None:
    """Where on the Hub a patch is from; None for a file that nothing says it of."""
    origin = read_origin(patch)
    return None if origin is None else str(origin)


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
