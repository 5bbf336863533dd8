"""Whether a patch is applied in a checkpoint: by its lock, by digests, or by prediction."""

from __future__ import annotations

from pathlib import Path

from patchkit.apply.lock import Lock, patch_paths, read_lock
from patchkit.diff.prediction import match
from patchkit.diff.report import AppliedDiff, AppliedTensor, State
from patchkit.errors import BaseMismatch
from patchkit.events import SILENT, Progress, phase
from patchkit.patch.filestack import FileStack
from patchkit.patch.metadata import Leaf
from patchkit.patch.reader import read_info
from patchkit.tensors.checkpoint import Checkpoint


def diff_applied(
    patch: str | Path,
    folder: str | Path,
    *,
    base: str | Path | None = None,
    progress: Progress = SILENT,
) -> AppliedDiff:
    """Say whether a patch file is applied in a checkpoint folder, tensor by tensor.

    The folder's lock says what is there, and digests whether that is still so. Without a lock a
    tensor is the patch's base or it is not; with `base`, the unpatched folder, it is also compared
    with what the patch makes of it. BaseMismatch where a tensor is missing or of another shape or
    type, in the folder or in `base`, or where `base` is another; FormatError for a damaged file.
    """
    stack, checkpoint = FileStack.open([Path(patch)]), Checkpoint.open(folder)
    root = None if base is None else Checkpoint.open(base)
    lock = read_lock(checkpoint.path)
    place = None if lock is None else _place(checkpoint.path, lock, stack.digests[0])
    tensors = []
    with phase(progress, "comparing tensors", len(stack.names), "tensors") as advance:
        for name in stack.names:
            tensors.append(_tensor(stack, name, checkpoint, root, lock, place is not None))
            advance(1)
    carried = None if lock is None else tuple(patch.digest for patch in lock.patches)
    return AppliedDiff(stack.digests[0], carried, place, tuple(tensors))


def _place(folder: Path, lock: Lock, digest: str) -> int | None:
    """The place in the lock of a patch, or of one that was composed of it, as it is."""
    files = patch_paths(folder, lock)
    for place, (path, patch) in enumerate(zip(files, lock.patches, strict=True)):
        if patch.digest == digest:
            return place
        info = read_info(path) if path.is_file() else None
        if info and info.digest == patch.digest and Leaf(digest) in info.metadata.leaves:
            return place
    return None


def _tensor(
    stack: FileStack,
    name: str,
    folder: Checkpoint,
    root: Checkpoint | None,
    lock: Lock | None,
    listed: bool,
) -> AppliedTensor:
    meta = stack.infos[0].metadata.tensors[name]
    _check(stack, name, folder)
    found = folder.digest(name)
    locked = None if lock is None else lock.tensors.get(name)
    if locked is not None and found == locked.after and locked.before == meta.base_sha256:
        return AppliedTensor(name, "patched" if listed else "other patches", found)
    if found == meta.base_sha256:
        return AppliedTensor(name, "base", found)
    if root is None:
        return AppliedTensor(name, "changed", found)
    return _predicted(stack, name, folder, root, found)


def _predicted(
    stack: FileStack, name: str, folder: Checkpoint, root: Checkpoint, found: str
) -> AppliedTensor:
    meta = stack.infos[0].metadata.tensors[name]
    _check(stack, name, root)
    if (digest := root.digest(name)) != meta.base_sha256:
        raise BaseMismatch(
            f"{root.path} is not the base of the patch: {name} should have "
            f"{meta.base_sha256[:15]}…, found {digest[:15]}…",
            hint="patchkit inspect PATCH shows its base",
            details={"tensor": name, "expected": meta.base_sha256, "found": digest},
        )
    near = match(root, folder, name, stack.factors(name), stack.layout(name))
    state: State = "patched" if near.within_rounding else "changed"
    return AppliedTensor(name, state, found, rounding=near.within_rounding and not near.exact)


def _check(stack: FileStack, name: str, folder: Checkpoint) -> None:
    """BaseMismatch unless a folder has a tensor of the shape and type that the patch edits."""
    meta = stack.infos[0].metadata.tensors[name]
    info = folder.tensor(name).info
    expected, found = (tuple(meta.shape), meta.dtype), (tuple(info.shape), info.dtype)
    if expected != found:
        raise BaseMismatch(
            f"{name} is {found[0]} {found[1]} in {folder.path}, and the patch edits one of "
            f"{expected[0]} {expected[1]}",
            details={"tensor": name, "expected": list(expected), "found": list(found)},
        )
