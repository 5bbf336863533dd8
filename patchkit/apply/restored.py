"""Undo sidecars of patched folders: keeping one, and applying where only one is left of the base.

The base's shards are then restored into a folder that lives as long as the work; the lock of the
output names the true base, wherever that may be now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from patchkit.apply.lock import patch_paths, read_lock
from patchkit.apply.plan import ApplyPlan
from patchkit.errors import CheckpointError
from patchkit.events import Progress
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.rewrite import UNDO, output_error


@contextmanager
def with_base(plan: ApplyPlan, folder: Path, out: Path) -> Iterator[ApplyPlan]:
    """Yield the plan with a base that is there, restored from the sidecar of `folder` if need be.

    Raises as `restored_base`.
    """
    if plan.root is None:
        yield plan
        return
    with restored_base(folder, out) as checkpoint:
        yield replace(plan, checkpoint=checkpoint)


def keep_undo(plan: ApplyPlan, folder: Path, progress: Progress) -> int:
    """Write the sidecar of a folder that is otherwise complete; return its size in bytes."""
    from patchkit.patch.filestack import FileStack
    from patchkit.undo import write_undo

    (folder / UNDO).unlink(missing_ok=True)  # of a run that is resumed
    stack = FileStack.open([patch.path for patch in plan.patches])
    return write_undo(plan.checkpoint, Checkpoint.open(folder), stack, progress=progress)


@contextmanager
def restored_base(folder: Path, out: Path) -> Iterator[Checkpoint]:
    """Yield the base of a patched folder, restored from its sidecar beside `out`.

    Raises CheckpointError without a sidecar, BaseMismatch when a patch is another, FormatError
    when sidecar, patches and weights do not belong together, OutputError where the disk refuses.
    """
    # Imported here so that a plan does not wait for torch.
    from patchkit.patch.filestack import FileStack
    from patchkit.undo import read_undo
    from patchkit.undo.restoring import restore_shard, scratch_folder

    lock, undo, patched = read_lock(folder), read_undo(folder), Checkpoint.open(folder)
    if lock is None or undo is None:
        raise CheckpointError(f"{folder} has no undo sidecar to restore its base from")
    stack = FileStack.open(patch_paths(folder, lock))
    if stack.digests != undo.patches:
        raise CheckpointError(
            f"the undo sidecar of {folder} takes back other patches than those that are there now",
            hint="put back the patches that its lock names",
            details={"expected": undo.patches, "found": stack.digests},
        )

    def write(shard: str, target: Path) -> None:
        infos = [patched.tensor(name).info for name in undo.tensors]
        inside = [info for info in infos if patched.tensor(info.name).shard == shard]
        blocks = partial(undo.restored, patched, stack)
        restore_shard(folder / shard, target, inside, blocks)

    touched = {patched.tensor(name).shard for name in undo.tensors}
    try:
        with scratch_folder(folder, out, {s: partial(write, s) for s in touched}) as scratch:
            yield Checkpoint.open(scratch, repo=lock.base.repo, revision=lock.base.revision)
    except OSError as error:
        raise output_error(out, error) from error
