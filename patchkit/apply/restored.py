"""Applying onto a patched folder whose base is gone, but which carries an undo sidecar.

The base's shards are restored into a folder that lives as long as the work; the lock of the output
names the true base, wherever that may be now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from patchkit.apply.lock import base_path, patch_paths, read_lock, root_of
from patchkit.errors import CheckpointError
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.rewrite import UNDO, output_error


def planned_root(folder: Path) -> tuple[Path, tuple[Path, ...], Path | None]:
    """Find what to plan from: a root folder, the patches that the folder carries, and no third.

    Where the base is gone and there is a sidecar, it is the folder itself, whose headers are the
    base's, and the third is where the base should be. Raises as `root_of`.
    """
    lock = read_lock(folder)
    if lock is None or base_path(folder, lock).is_dir() or not (folder / UNDO).is_file():
        return *root_of(folder), None
    return folder, patch_paths(folder, lock), base_path(folder, lock)


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
