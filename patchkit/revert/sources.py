"""Where the base's bytes come from: the base, an undo sidecar, or an estimate."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from math import inf, sqrt
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from patchkit.apply.lock import Lock, patch_paths
from patchkit.errors import BaseMismatch, CheckpointError, FormatError
from patchkit.events import Progress, phase
from patchkit.factors.action import Action
from patchkit.factors.streaming import changed_rows
from patchkit.patch.filestack import FileStack
from patchkit.patch.parts import tensor_bytes
from patchkit.revert.plan import RevertPlan
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from patchkit.tensors.source import FileSource
from patchkit.tensors.torch_dtypes import spacing, torch_dtype
from patchkit.undo import Undo

_BYTES = 8 << 20
_HALF = 0.5 + 2.0**-16  # of a unit: casting to bf16 goes through fp32


class Origin(Protocol):
    """Gives the bytes that tensors had before the patches."""

    def check(self, progress: Progress) -> None:
        """Raise before anything is written if the bytes would not be those recorded."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor, in order."""

    def file(self, shard: str) -> Path | None:
        """A file that holds all of a shard as it was, if there is one."""


class FromBase:
    """The base itself."""

    def __init__(self, base: Checkpoint, patched: Checkpoint, lock: Lock) -> None:
        """Take a base whose headers have been checked."""
        self.base = base
        self.patched = patched
        self.lock = lock

    def check(self, progress: Progress) -> None:
        """BaseMismatch unless the base has the digests that the lock records."""
        for name, found in _digests(self.base, self.lock, progress, "checking base"):
            if found != (expected := self.lock.tensors[name].before):
                raise BaseMismatch(
                    f"{self.base.path} is not the base: {name} should have {expected[:15]}…, "
                    f"found {found[:15]}…",
                    hint="name the base with --base",
                    details={"tensor": name, "expected": expected, "found": found},
                )

    def blocks(self, name: str) -> Iterator[bytes]:
        """Bytes of the base."""
        return (data for _, data in self.base.blocks(name, _BYTES))

    def file(self, shard: str) -> Path | None:
        """The base's own file, where it has one of this name and header."""
        ours, theirs = self.patched.shards[shard], self.base.shards.get(shard)
        if theirs is None or theirs.size != ours.size:
            return None
        paths = self.patched.path / shard, self.base.path / shard
        heads = [FileSource(path).read(0, ours.size) for path in paths]
        return paths[1] if heads[0] == heads[1] else None


class FromUndo:
    """The undo sidecar, the patched weights and the patches."""

    def __init__(self, undo: Undo, patched: Checkpoint, lock: Lock) -> None:
        """Read the headers of the patches; CheckpointError if one is gone."""
        self.undo = undo
        self.patched = patched
        self.lock = lock
        self.stack = open_stack(patched.path, lock)

    def check(self, progress: Progress) -> None:
        """BaseMismatch unless the weights are those that the patches left.

        FormatError if the sidecar is damaged.
        """
        for name in self.undo.damaged():
            raise FormatError(
                f"{self.undo.source.name} is damaged: its corrections of {name} are not those "
                "that were written",
                hint="name the base with --base",
                details={"tensor": name},
            )
        for name, found in _digests(self.patched, self.lock, progress, "checking folder"):
            tensor = self.lock.tensors[name]
            if found not in (tensor.after, tensor.before):
                raise BaseMismatch(
                    f"{name} was changed after the patches were applied: it should have "
                    f"{tensor.after[:15]}…, found {found[:15]}…",
                    hint="name the base with --base",
                    details={"tensor": name, "expected": tensor.after, "found": found},
                )
        for shard, recorded in self.lock.shards.items():
            if recorded.after is None or recorded.before is None:
                continue
            found = file_digest(self.patched.path / shard)
            if found not in (recorded.after, recorded.before):
                raise BaseMismatch(
                    f"{shard} was changed beside the edited tensors: it should have "
                    f"{recorded.after[:15]}…, found {found[:15]}…",
                    hint="name the base with --base",
                    details={"shard": shard, "expected": recorded.after, "found": found},
                )

    def blocks(self, name: str) -> Iterator[bytes]:
        """Bytes restored by the sidecar; FormatError if their digest is not the recorded one."""
        return self.undo.restored(self.patched, self.stack, name)

    def file(self, shard: str) -> Path | None:
        """No file is as it was."""
        return None


class Estimate:
    """The inverse of the patches in fp64, rounded once more: near the base, not the base.

    After `blocks` was read to its end, `error` is a bound on ‖W̃ − W‖_F / ‖W̃‖_F of the worst tensor
    so far and `exact` counts tensors that came out as they were.
    """

    def __init__(self, patched: Checkpoint, lock: Lock) -> None:
        """Read the headers of the patches; CheckpointError if one is gone."""
        self.patched = patched
        self.lock = lock
        self.stack = open_stack(patched.path, lock)
        self.error = 0.0
        self.exact = 0

    def check(self, progress: Progress) -> None:
        """Nothing is promised, so nothing can be broken."""

    def blocks(self, name: str) -> Iterator[bytes]:
        """Estimated bytes.

        A rotation turns the rounding error of the patched weights without changing its norm, and
        a sum leaves it, so half a unit of every patched and every estimated weight is the bound.
        """
        dtype = torch_dtype(self.patched.tensor(name).info.dtype)
        action = Action.of(self.stack.inverse(name), self.stack.layout(name))
        first, second, size, state = 0.0, 0.0, 0.0, sha256()
        for _, moved, predicted in changed_rows(self.patched, name, action):
            rounded = predicted.to(dtype)
            data = tensor_bytes(rounded)
            state.update(data)
            first += _square(spacing(moved, dtype))
            second += _square(spacing(rounded, dtype))
            size += _square(rounded)
            yield data
        error = _HALF * (sqrt(first) + sqrt(second))
        self.error = max(self.error, error / sqrt(size) if size else inf)
        self.exact += "sha256:" + state.hexdigest() == self.lock.tensors[name].before

    def file(self, shard: str) -> Path | None:
        """No file is as it was."""
        return None


def origin_of(plan: RevertPlan) -> FromBase | FromUndo | Estimate:
    """Open what a plan reads from."""
    if plan.source == "base" and plan.base is not None:
        return FromBase(plan.base, plan.patched, plan.lock)
    if plan.source == "undo" and plan.undo is not None:
        return FromUndo(plan.undo, plan.patched, plan.lock)
    return Estimate(plan.patched, plan.lock)


def open_stack(folder: Path, lock: Lock) -> FileStack:
    """Open the patches of a folder; CheckpointError if one is gone or another file."""
    paths = patch_paths(folder, lock)
    for path, patch in zip(paths, lock.patches, strict=True):
        if not path.is_file():
            raise _gone(path, patch.digest, "gone")
    stack = FileStack.open(paths)
    for path, patch, digest in zip(paths, lock.patches, stack.digests, strict=True):
        if digest != patch.digest:
            raise _gone(path, patch.digest, "another file now")
    return stack


def _gone(path: Path, digest: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"taking patches off without the base needs {path.name} ({digest[:15]}…), which is {what}",
        hint=f"put it back at {path}, or name the base with --base",
        details={"expected": digest, "path": str(path)},
    )


def _digests(
    checkpoint: Checkpoint, lock: Lock, progress: Progress, what: str
) -> Iterator[tuple[str, str]]:
    total = sum(checkpoint.tensor(name).info.nbytes for name in lock.tensors)
    with phase(progress, what, total, "B") as advance:
        for name in lock.tensors:
            yield name, checkpoint.digest(name)
            advance(checkpoint.tensor(name).info.nbytes)


def _square(values: Tensor) -> float:
    return float(values.to(torch.float64).square().sum())
