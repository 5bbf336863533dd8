"""Which known patch leads from one tensor to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.lock import patch_paths, read_lock
from patchkit.diff.prediction import match
from patchkit.diff.report import Explanation
from patchkit.patch.filestack import FileStack
from patchkit.patch.metadata import TensorMeta
from patchkit.tensors.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Known:
    """Patches that may explain changes: single ones, and the stacks that locks name."""

    stacks: tuple[FileStack, ...]
    patches: int

    def of(self, name: str) -> tuple[FileStack, ...]:
        """The stacks that edit a tensor."""
        return tuple(stack for stack in self.stacks if name in stack.names)


def known_patches(patches: Sequence[Path], folders: Sequence[Path]) -> Known:
    """Read the headers of `patches` and of those that the locks of `folders` name.

    A patch that a lock names and that is gone or another file now is left out; FormatError for a
    file of `patches` that is no patch, or a damaged lock.
    """
    stacks = {stack.digests: stack for stack in map(_alone, patches)}
    for folder in folders:
        for stack in _locked(folder):
            stacks.setdefault(stack.digests, stack)
    single = [stack for stack in stacks.values() if len(stack.digests) == 1]
    # One patch is a simpler explanation than several.
    several = [stack for stack in stacks.values() if len(stack.digests) > 1]
    return Known((*single, *several), len(single))


def explanation(
    a: Checkpoint, b: Checkpoint, name: str, stacks: Sequence[FileStack]
) -> Explanation | None:
    """Find patches that lead from a tensor of `a` to that of `b`, of one shape and type, or back.

    A patch is tried only where its base has the digest of one of the two. The first exact
    explanation counts, else the first within rounding.
    """
    near = None
    for base, other in ((a, b), (b, a)):
        fitting = [stack for stack in stacks if _describes(stack, name, base)]
        digest = base.digest(name) if fitting else ""
        for stack in fitting:
            if _meta(stack, name).base_sha256 != digest:
                continue
            found = match(base, other, name, stack.factors(name), stack.layout(name))
            if found.within_rounding:
                told = _told(stack, exact=found.exact, undone=base is b)
                if found.exact:
                    return told
                near = near or told
    return near


def _alone(path: Path) -> FileStack:
    return FileStack.open([path])


def _locked(folder: Path) -> Iterator[FileStack]:
    """The patches of a folder one by one, then all of them; those that are there, unchanged."""
    lock = read_lock(folder)
    if lock is None:
        return
    found = [
        stack
        for path, patch in zip(patch_paths(folder, lock), lock.patches, strict=True)
        if path.is_file() and (stack := _alone(path)).digests == (patch.digest,)
    ]
    yield from found
    if len(found) == len(lock.patches) > 1:
        yield FileStack.open([stack.paths[0] for stack in found])


def _meta(stack: FileStack, name: str) -> TensorMeta:
    """What the first patch that edits a tensor says of it."""
    tables = [info.metadata.tensors for info in stack.infos]
    return next(tensors[name] for tensors in tables if name in tensors)


def _describes(stack: FileStack, name: str, base: Checkpoint) -> bool:
    """Whether a tensor is of the shape and type that is edited; a digest is of bytes alone."""
    meta, info = _meta(stack, name), base.tensor(name).info
    return (tuple(meta.shape), meta.dtype) == (tuple(info.shape), info.dtype)


def _told(stack: FileStack, *, exact: bool, undone: bool) -> Explanation:
    return Explanation(stack.digests, tuple(path.name for path in stack.paths), exact, undone)
