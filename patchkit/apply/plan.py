"""What applying patches to a folder would do, known from headers alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.lock import planned_root
from patchkit.errors import BaseMismatch
from patchkit.patch.metadata import FactorMeta, TensorMeta
from patchkit.patch.order import Place, check_order
from patchkit.patch.reader import PatchInfo, read_info
from patchkit.tensors.checkpoint import Checkpoint, Entry
from patchkit.tensors.journal import JOURNAL
from patchkit.tensors.rewrite import LOCK, UNDO

_MEMORY = 300_000_000
_MEMORY_DIMENSIONS = 512
_EXPONENTIAL = 10  # matrices that one exponential needs, with its argument
# Formats that would keep the base's facts beside patched weights, or run code when loaded.
_OTHER_WEIGHTS = frozenset({
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".gguf", ".onnx",
    ".onnx_data", ".h5", ".msgpack", ".tflite", ".mlmodel", ".npz", ".ot",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlannedPatch:
    """A patch to apply, and what it says about itself."""

    path: Path
    info: PatchInfo


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor to edit: where it is, and which patches (by position) have factors for it."""

    name: str
    entry: Entry
    patches: tuple[int, ...]
    dimensions: int

    @property
    def nbytes(self) -> int:
        """Bytes that are overwritten."""
        return self.entry.info.nbytes


@dataclass(frozen=True, slots=True)
class ApplyPlan:
    """What is written and what is copied; all sizes in bytes.

    `checkpoint` is the root base, `patches` all patches in order, those that the folder carries
    already first. `rewritten` and `cloned` are shards, `others` files that are copied, `left_out`
    files that are not: pickles, and weights in other formats, which would stay unpatched. `root` is
    where the base should be, if `checkpoint` has to be restored from an undo sidecar.
    """

    checkpoint: Checkpoint
    patches: tuple[PlannedPatch, ...]
    tensors: tuple[PlannedTensor, ...]
    rewritten: tuple[str, ...]
    cloned: tuple[str, ...]
    others: tuple[str, ...]
    left_out: tuple[str, ...]
    root: Path | None = None

    @property
    def bytes_changed(self) -> int:
        """Bytes of the edited tensors, also what a disk with reflinks has to hold anew."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def bytes_total(self) -> int:
        """Bytes of the output, what a disk without reflinks has to hold anew."""
        names = (*self.rewritten, *self.cloned, *self.others)
        return sum((self.checkpoint.path / name).stat().st_size for name in names)

    @property
    def undo_bytes(self) -> int:
        """Most bytes of an undo sidecar beside its index: what does not shrink is kept as it is."""
        return self.bytes_changed

    @property
    def memory_bytes(self) -> int:
        """Most memory that applying takes above an interpreter with torch loaded.

        300 MB, and for a tensor whose factors span m > 512 dimensions 8·d·m on top.
        """
        above = (
            8 * max(tensor.entry.info.shape) * tensor.dimensions
            for tensor in self.tensors
            if tensor.dimensions > _MEMORY_DIMENSIONS
        )
        return _MEMORY + max(above, default=0)


def plan_apply(
    base: str | Path, patches: Sequence[str | Path], *, allow_other_base: bool = False
) -> ApplyPlan:
    """Plan the application of patches, in order, to a local checkpoint folder.

    A folder that carries patches already is planned from its root base with those patches first,
    so that weights are rounded once. Raises BaseMismatch for a tensor of another shape or type or,
    unless `allow_other_base`, a predecessor that is missing or out of order; FormatError and
    CheckpointError for unusable files; ValueError when there is no patch.
    """
    if not patches:
        raise ValueError("there is no patch to apply")
    root, earlier, gone = planned_root(Path(base))
    checkpoint = Checkpoint.open(root)
    planned = tuple(PlannedPatch(path, read_info(path)) for path in (*earlier, *map(Path, patches)))
    if not allow_other_base:
        check_order([Place(p.path.name, p.info.digest, p.info.metadata) for p in planned])
    tensors = _tensors(checkpoint, planned)
    touched = {tensor.entry.shard for tensor in tensors}
    others, left_out = _files(checkpoint)
    return ApplyPlan(
        checkpoint=checkpoint,
        patches=planned,
        tensors=tensors,
        rewritten=tuple(name for name in checkpoint.shards if name in touched),
        cloned=tuple(name for name in checkpoint.shards if name not in touched),
        others=others,
        left_out=left_out,
        root=gone,
    )


def _tensors(checkpoint: Checkpoint, patches: Sequence[PlannedPatch]) -> tuple[PlannedTensor, ...]:
    """Edited tensors in the order of their places on the disk."""
    users: dict[str, list[int]] = {}
    for index, patch in enumerate(patches):
        for name, meta in patch.info.metadata.tensors.items():
            _check_shape(checkpoint, name, meta)
            earlier = users.setdefault(name, [])
            if earlier:
                _check_layout(patches[earlier[0]], patch, name)
            earlier.append(index)
    found = [
        PlannedTensor(
            name,
            checkpoint.tensor(name),
            tuple(indices),
            _dimensions([patches[i].info.metadata.tensors[name] for i in indices]),
        )
        for name, indices in users.items()
    ]
    return tuple(sorted(found, key=lambda tensor: (tensor.entry.shard, tensor.entry.info.start)))


def _dimensions(metas: Sequence[TensorMeta]) -> int:
    """Columns of all factor bases together, or as many as hold what factors without one keep."""
    factors = [(factor, meta) for meta in metas for factor in meta.factors]
    sums = sum(factor.kind == "additive-dense" for factor, _ in factors)
    # Where blocks mix rows, all of them are kept: the matrix's own, and those of each dense sum.
    kept = any(_mixes_all_rows(*each) for each in factors) * min(metas[0].shape) * (1 + sums)
    return sum(_dimensions_of(*each) for each in factors) + kept


def _dimensions_of(factor: FactorMeta, meta: TensorMeta) -> int:
    if factor.kind == "additive":
        return factor.rank
    if factor.kind == "additive-dense":
        return -(-min(meta.shape) // 2)  # the sum itself, in at most four bytes
    if factor.blocks is None:
        return 2 * factor.rank
    size = meta.d_in if factor.side == "input" else meta.d_out
    n = size // factor.blocks
    # Exponentials are made one block after another.
    return -(-(size * n + _EXPONENTIAL * n * n) // max(meta.shape))


def _mixes_all_rows(factor: FactorMeta, meta: TensorMeta) -> bool:
    return factor.blocks is not None and (factor.side == "output") == (meta.layout == "linear")


def _check_shape(checkpoint: Checkpoint, name: str, meta: TensorMeta) -> None:
    info = checkpoint.tensor(name).info
    expected, found = (tuple(meta.shape), meta.dtype), (info.shape, info.dtype)
    if expected != found:
        raise BaseMismatch(
            f"the patch was made for another base: {name} should be "
            f"{_described(*expected)}, and {checkpoint.path} has {_described(*found)}",
            hint="patchkit inspect PATCH shows its base",
            details={"tensor": name, "expected": list(expected), "found": list(found)},
        )


def _check_layout(first: PlannedPatch, second: PlannedPatch, name: str) -> None:
    layouts = [patch.info.metadata.tensors[name].layout for patch in (first, second)]
    if layouts[0] != layouts[1]:
        raise BaseMismatch(
            f"the patches disagree on how {name} is stored: {layouts[0]} in {first.path.name}, "
            f"{layouts[1]} in {second.path.name}",
            details={"tensor": name, "expected": layouts[0], "found": layouts[1]},
        )


def _described(shape: tuple[int, ...], dtype: str) -> str:
    return f"{'x'.join(map(str, shape)) or 'a number'} {dtype}"


def _files(checkpoint: Checkpoint) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Files of the folder that are no shards: those to copy, and those to leave out."""
    copied: list[str] = []
    left_out: list[str] = []
    for folder, folders, names in os.walk(checkpoint.path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            relative = path.relative_to(checkpoint.path).as_posix()
            ours = name in (LOCK, JOURNAL, UNDO)
            if relative in checkpoint.shards or name.startswith(".") or ours:
                continue
            ordinary = path.is_file() and path.suffix not in _OTHER_WEIGHTS
            (copied if ordinary else left_out).append(relative)
    return tuple(copied), tuple(left_out)
