"""Weights of a checkpoint beside what factors make of them, block of rows by block of rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from patchkit.factors.action import Action
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.dtypes import itemsize
from patchkit.tensors.torch_dtypes import torch_dtype

BLOCK = 1 << 20
"""Numbers of one block, 8 MB in fp64, unless a single row is longer."""


def stored_rows(
    checkpoint: Checkpoint, name: str, block: int = BLOCK
) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row and the rows (n, columns) of a matrix in its stored type."""
    info = checkpoint.tensor(name).info
    for start, data in checkpoint.blocks(name, block * itemsize(info.dtype)):
        # A bytearray, because torch warns about memory that cannot be written to.
        values = torch.frombuffer(bytearray(data), dtype=torch_dtype(info.dtype))
        yield start, values.reshape(-1, info.shape[-1])


def changed_rows(
    checkpoint: Checkpoint, name: str, action: Action, block: int = BLOCK
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield the first row, the stored rows, and the changed rows in fp64, both (n, columns)."""
    if action.needs_prepass:
        for start, rows in stored_rows(checkpoint, name, block):
            action.prepass(start, rows)
    for start, rows in stored_rows(checkpoint, name, block):
        yield start, rows, action.rows(start, rows)
