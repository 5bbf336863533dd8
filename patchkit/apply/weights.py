"""Computing one edited tensor in blocks of rows as they lie in the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

import torch
from torch import Tensor

from patchkit.apply.plan import PlannedPatch, PlannedTensor
from patchkit.errors import InvariantError
from patchkit.factors.action import Action, Factor
from patchkit.patch.parts import read_factors
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.rewrite import RangeWriter
from patchkit.tensors.seal import read_all
from patchkit.tensors.source import FileSource
from patchkit.tensors.torch_dtypes import torch_dtype

_BLOCK = 16 << 20
_FP64 = 8


def rewrite_tensor(
    checkpoint: Checkpoint,
    tensor: PlannedTensor,
    patches: Sequence[PlannedPatch],
    writer: RangeWriter,
    advance: Callable[[int], None],
) -> str:
    """Overwrite a tensor with its edited values and return the digest of the new bytes.

    fp64 throughout, from the base's own bytes, rounded once to the stored type. Memory is a few
    blocks of 16 MB and the factors. InvariantError if a value would not be finite.
    """
    action = _action(tensor, patches)
    if action.needs_prepass:
        for start, _, values in _rows(checkpoint, tensor):
            action.prepass(start, values)
    state, position = sha256(), tensor.entry.info.start
    for start, stored, values in _rows(checkpoint, tensor):
        stored.copy_(action.rows_(start, values))
        _check_finite(tensor, start, stored)
        data = _bytes_of(stored)
        state.update(data)
        writer.write(position, data)
        position += len(data)
        advance(len(data))
    return "sha256:" + state.hexdigest()


@contextmanager
def computing_with(threads: int | None) -> Iterator[None]:
    """Let torch compute with at most so many threads inside the block; None leaves its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(threads or before, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _action(tensor: PlannedTensor, patches: Sequence[PlannedPatch]) -> Action:
    """All factors of all patches for this tensor, as one operation."""
    factors: list[Factor] = []
    for index in tensor.patches:
        patch = patches[index]
        factors += read_factors(
            FileSource(patch.path), patch.info.metadata, patch.info.header, tensor.name
        )
    meta = patches[tensor.patches[0]].info.metadata.tensors[tensor.name]
    return Action.of(factors, meta.layout)


def _rows(checkpoint: Checkpoint, tensor: PlannedTensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Blocks of rows (n, columns), as stored and in fp64, with the index of the first row.

    Both may be overwritten, and are valid until the next block.
    """
    info = tensor.entry.info
    step = max(1, _BLOCK // (_FP64 * info.shape[1]))
    # One buffer for all blocks: fresh pages would cost as much time as the arithmetic saves.
    stored = torch.empty(step, info.shape[1], dtype=torch_dtype(info.dtype))
    values = torch.empty(step, info.shape[1], dtype=torch.float64)
    with checkpoint.source(tensor.name).open() as file:
        file.seek(info.start)
        for start in range(0, info.shape[0], step):
            count = min(step, info.shape[0] - start)
            read_all(file, _bytes_of(stored[:count]))
            yield start, stored[:count], values[:count].copy_(stored[:count])


def _bytes_of(t: Tensor) -> memoryview:
    """The memory of a contiguous tensor."""
    return memoryview(t.view(torch.uint8).numpy()).cast("B")  # type: ignore[arg-type]


def _check_finite(tensor: PlannedTensor, start: int, rows: Tensor) -> None:
    # The largest magnitude is finite where all are, and is found ten times faster than asking each.
    if not bool(torch.isfinite(rows.abs().max())):
        finite = torch.isfinite(rows).all(dim=1)
        row = start + int((~finite).nonzero()[0])
        raise InvariantError(
            f"{tensor.name} would hold values in row {row} that are not finite as "
            f"{tensor.entry.info.dtype}; nothing was written",
            hint="patchkit verify PATCH --base BASE looks at the patch and the base",
            details={"tensor": tensor.name, "row": row},
        )
