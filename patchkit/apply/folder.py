"""Writing the patched folder: check the base, copy on write, lock."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.lock import Lock, LockedPatch, LockedTensor, locked_base, relative_path
from patchkit.apply.plan import ApplyPlan, plan_apply
from patchkit.errors import BaseMismatch, OutputError
from patchkit.events import SILENT, Progress, phase
from patchkit.patch.writing import write_atomically
from patchkit.tensors.clone import can_reflink, create, fill
from patchkit.tensors.rewrite import LOCK, RangeWriter, check_place, staged_folder

Digests = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What was written where; sizes in bytes.

    `shards` counts those `rewritten`, `cloned` (sharing storage with the base) and `copied`.
    `other_base` names edited tensors whose base bytes were not those the patch was made for.
    `peak_memory_bytes` is of the whole process so far, None where the system does not tell.
    """

    path: Path
    lock: Path
    patches: tuple[str, ...]
    tensors_changed: int
    tensors_total: int
    shards: Mapping[str, int]
    left_out: tuple[str, ...]
    other_base: tuple[str, ...]
    bytes_changed: int
    bytes_written: int
    seconds: float
    peak_memory_bytes: int | None


def apply_patches(
    base: str | Path,
    patches: Sequence[str | Path],
    out: str | Path,
    *,
    allow_other_base: bool = False,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> ApplyReport:
    """Write a copy of the folder `base` with patches applied in order, and its lock file.

    Edited byte ranges are the only difference. Every edited tensor's digest is compared with the
    patch before anything is written; `allow_other_base` goes on where they differ. `out` appears
    whole or not at all; `overwrite` replaces a model there. Memory as `ApplyPlan.memory_bytes`.

    Raises BaseMismatch, OutputError, InvariantError (a value would not be finite), and what
    `plan_apply` raises.
    """
    begun = time.monotonic()
    out = Path(out)
    check_place(out, overwrite=overwrite)
    plan = plan_apply(base, patches, allow_other_base=allow_other_base)
    _check_apart(plan, out)
    before = _digests(plan, progress)
    others = _check_base(plan, before, allow_other_base)
    with staged_folder(out, overwrite=overwrite) as folder:
        _check_space(plan, folder, out)
        after, written, cloned = _write(plan, folder, progress)
        lock = _lock(plan, out, before, after)
        write_atomically(folder / LOCK, lock.to_json())
    return ApplyReport(
        path=out,
        lock=out / LOCK,
        patches=tuple(patch.info.digest for patch in plan.patches),
        tensors_changed=sum(after[name] != before[name] for name in after),
        tensors_total=len(plan.checkpoint.tensors),
        shards={
            "rewritten": len(plan.rewritten),
            "cloned": cloned,
            "copied": len(plan.cloned) - cloned,
        },
        left_out=plan.left_out,
        other_base=others,
        bytes_changed=plan.bytes_changed,
        bytes_written=written,
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


def _check_space(plan: ApplyPlan, folder: Path, out: Path) -> None:
    shard = plan.checkpoint.path / next(iter(plan.checkpoint.shards))
    needed = plan.bytes_changed if can_reflink(shard, folder) else plan.bytes_total
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{out} needs {needed} bytes and its disk has {free} left",
            hint="free some space or name an output on another disk with -o",
            details={"needed": needed, "free": free},
        )


def _write(plan: ApplyPlan, folder: Path, progress: Progress) -> tuple[dict[str, str], int, int]:
    """Fill the folder; return digests of new tensors, bytes written, and shards cloned."""
    # Copying what stays and computing what changes touch different ranges, so they overlap; and
    # while one copy waits for the disk another reads.
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        try:
            copies = _start_copies(plan, folder, pool, stop)
            after = _rewrite(plan, folder, progress)
            with phase(progress, "copying", len(copies), "files") as advance:
                written = sum(_counted(copy, advance) for copy in copies.values())
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    cloned = sum(name not in copies for name in plan.cloned)
    return after, written + plan.bytes_changed, cloned


def _start_copies(
    plan: ApplyPlan, folder: Path, pool: ThreadPoolExecutor, stop: threading.Event
) -> dict[str, Future[int]]:
    """Make every file; those that share no storage with the base are filled in the background."""

    def check() -> None:
        if stop.is_set():
            raise InterruptedError

    copies = {}
    for name in (*plan.rewritten, *plan.cloned, *plan.others):
        source, target = plan.checkpoint.path / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not create(source, target):
            edited = [t.entry.info for t in plan.tensors if t.entry.shard == name]
            ranges = [(info.start, info.end) for info in edited]
            copies[name] = pool.submit(fill, source, target, leave_out=ranges, check=check)
    return copies


def _counted(copy: Future[int], advance: Callable[[int], None]) -> int:
    size = copy.result()
    advance(1)
    return size


def _rewrite(plan: ApplyPlan, folder: Path, progress: Progress) -> dict[str, str]:
    # Imported here so that a plan, or a refusal, does not wait for torch.
    from patchkit.apply.weights import rewrite_tensor

    after = {}
    with phase(progress, "rewriting", plan.bytes_changed, "B") as advance:
        for shard in plan.rewritten:
            with RangeWriter(folder / shard) as writer:
                for tensor in (t for t in plan.tensors if t.entry.shard == shard):
                    after[tensor.name] = rewrite_tensor(
                        plan.checkpoint, tensor, plan.patches, writer, advance
                    )
    return after


def _lock(plan: ApplyPlan, out: Path, before: Digests, after: Digests) -> Lock:
    base = plan.checkpoint
    return Lock(
        base=locked_base(
            base.path,
            out,
            repo=base.repo,
            revision=base.revision,
            config_digest=base.config_digest,
        ),
        patches=tuple(
            LockedPatch(patch.info.digest, relative_path(patch.path, out)) for patch in plan.patches
        ),
        tensors={
            tensor.name: LockedTensor(tensor.entry.shard, before[tensor.name], after[tensor.name])
            for tensor in plan.tensors
        },
        shards={
            **dict.fromkeys(plan.rewritten, "rewritten"),
            **dict.fromkeys(plan.cloned, "unchanged"),
        },
    )


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
