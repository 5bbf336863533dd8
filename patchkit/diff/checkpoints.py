"""Two checkpoints, tensor by tensor, in blocks: what changed, how much, and which patch did it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import torch
from torch import Tensor

from patchkit.diff.explain import explanation, known_patches
from patchkit.diff.report import CheckpointDiff, TensorChange
from patchkit.events import SILENT, Progress, phase
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.dtypes import EDITABLE, itemsize
from patchkit.tensors.torch_dtypes import torch_dtype
from patchkit.verify.prediction import same_bytes, unlike

_NUMBERS = 1 << 20  # of one block, 8 MB in fp64, unless a single row is longer


def diff_checkpoints(
    a: str | Path,
    b: str | Path,
    *,
    patches: Sequence[str | Path] = (),
    progress: Progress = SILENT,
) -> CheckpointDiff:
    """Compare the checkpoint folders `a` and `b`, whatever shards they are cut into.

    A change is explained by one of `patches`, or of the patches that the locks of the folders
    name, alone or as the lock's stack, if applying it to one tensor gives the other. Both folders
    are read once, in blocks; memory is a few blocks and the factors of one tensor, below 300 MB
    for factors of up to 512 dimensions. Raises CheckpointError and FormatError for what cannot be
    read.
    """
    first, second = Checkpoint.open(a), Checkpoint.open(b)
    known = known_patches(list(map(Path, patches)), [first.path, second.path])
    changes = _changes(first, second, progress)
    edited = [change for change in changes if change.change == "changed"]
    with phase(progress, "looking for patches", len(edited), "tensors") as advance:
        found = {}
        for change in edited:
            found[change.name] = explanation(first, second, change.name, known.of(change.name))
            advance(1)
    touched = {second.tensors[each.name].shard for each in changes if each.name in second.tensors}
    return CheckpointDiff(
        tensors=len(second.tensors),
        shards=len(second.shards),
        shards_changed=len(touched),
        same_config=first.config_digest == second.config_digest,
        changes=tuple(replace(each, explanation=found.get(each.name)) for each in changes),
        known=known.patches,
    )


def _changes(a: Checkpoint, b: Checkpoint, progress: Progress) -> list[TensorChange]:
    changes = []
    total = sum(entry.info.nbytes for entry in b.tensors.values())
    with phase(progress, "comparing tensors", total, "B") as advance:
        for name in dict.fromkeys((*a.tensors, *b.tensors)):
            if (change := _change(a, b, name)) is not None:
                changes.append(change)
            advance(b.tensors[name].info.nbytes if name in b.tensors else 0)
    return changes


def _change(a: Checkpoint, b: Checkpoint, name: str) -> TensorChange | None:
    """Compare one tensor; None if its bytes are the same."""
    if name not in a.tensors:
        return TensorChange(name, "added")
    if name not in b.tensors:
        return TensorChange(name, "removed")
    if problem := unlike(a, b, name):
        return TensorChange(name, "unlike", detail=problem)
    if _one_place(a, b, name) or same_bytes(a, b, name):
        return None
    return _measured(a, b, name)


def _one_place(a: Checkpoint, b: Checkpoint, name: str) -> bool:
    """Whether both tensors are the same bytes of the same file, as with hard links."""
    one, two = a.tensor(name), b.tensor(name)
    same = os.path.samefile(a.path / one.shard, b.path / two.shard)
    return same and one.info.start == two.info.start


def _measured(a: Checkpoint, b: Checkpoint, name: str) -> TensorChange:
    """How much a tensor of one shape and type has changed; without figures for whole numbers."""
    if a.tensor(name).info.dtype not in EDITABLE:
        return TensorChange(name, "changed")
    entries, differing, before, moved, largest = 0, 0, 0.0, 0.0, 0.0
    for old, new in _values(a, b, name):
        before += float(old.square().sum())
        delta = new.sub_(old)
        entries += len(delta)
        differing += int(torch.count_nonzero(delta))  # not a number differs, too
        moved += float(delta.square().sum())
        # Where one is not a number, the largest difference is not known to be less than any.
        largest = max(largest, float(delta.abs_().nan_to_num_(nan=inf).max()))
    relative = sqrt(moved / before) if before else inf
    return TensorChange(name, "changed", "", differing / entries, relative, largest)


def _values(a: Checkpoint, b: Checkpoint, name: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Both tensors as blocks of numbers (n,) in fp64, which may be overwritten."""
    dtype = a.tensor(name).info.dtype
    size = _NUMBERS * itemsize(dtype)
    for (_, one), (_, two) in zip(a.blocks(name, size), b.blocks(name, size), strict=True):
        # Bytearrays, because torch warns about memory that cannot be written to.
        old, new = (
            torch.frombuffer(bytearray(data), dtype=torch_dtype(dtype)) for data in (one, two)
        )
        yield old.to(torch.float64), new.to(torch.float64, copy=True)
