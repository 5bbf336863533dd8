"""Stored weights beside what factors make of them, block of rows by block of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from patchkit.factors.action import Action
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import torch_dtype

_BLOCK = 16 << 20


def stored_rows(
    checkpoint: Checkpoint, name: str, max_bytes: int = _BLOCK
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row and the rows (n, columns) of a matrix in its stored type."""
    info = checkpoint.tensor(name).info
    for start, data in checkpoint.blocks(name, max_bytes):
        values = torch.frombuffer(bytearray(data), dtype=torch_dtype(info.dtype))
        yield start, values.reshape(-1, info.shape[-1])


def changed_rows(
    checkpoint: Checkpoint, name: str, action: Action
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first row, the stored rows and the changed rows, both (n, columns) in fp64."""
    if action.needs_prepass:
        for start, rows in stored_rows(checkpoint, name):
            action.prepass(start, rows)
    for start, rows in stored_rows(checkpoint, name):
        yield start, rows.to(torch.float64), action.rows(start, rows)
