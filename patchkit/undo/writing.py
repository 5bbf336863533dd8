"""Making the sidecar of a patched folder while the base is still there."""

from __future__ import annotations

import os
from hashlib import sha256
from io import BufferedWriter

from patchkit.events import SILENT, Progress, phase
from patchkit.factors.action import Action
from patchkit.factors.streaming import changed_rows, stored_rows
from patchkit.patch.filestack import FileStack
from patchkit.patch.parts import tensor_bytes
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.rewrite import UNDO
from patchkit.undo.blocks import encode_block
from patchkit.undo.sidecar import BLOCK, MAGIC, Corrections, to_json


def write_undo(
    base: Checkpoint, patched: Checkpoint, stack: FileStack, *, progress: Progress = SILENT
) -> int:
    """Write the sidecar into the patched folder; return its size in bytes.

    O(d_out d_in r) for each tensor, a few blocks in memory. OSError if it cannot be written; the
    caller removes what is left of it then.
    """
    tensors: dict[str, Corrections] = {}
    total = sum(base.tensor(name).info.nbytes for name in stack.names)
    with (
        open(patched.path / UNDO, "xb") as file,
        phase(progress, "keeping undo", total, "B") as advance,
    ):
        file.write(MAGIC)
        for name in stack.names:
            tensors[name] = _write_tensor(file, base, patched, stack, name)
            advance(base.tensor(name).info.nbytes)
        text = to_json(stack.digests, tensors)
        file.write(text + len(text).to_bytes(8, "little"))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _write_tensor(
    file: BufferedWriter, base: Checkpoint, patched: Checkpoint, stack: FileStack, name: str
) -> Corrections:
    action = Action.of(stack.inverse(name), stack.layout(name))
    start, blocks, before, after = file.tell(), sha256(), sha256(), sha256()
    rows = zip(
        stored_rows(base, name, BLOCK), changed_rows(patched, name, action, BLOCK), strict=True
    )
    for (_, wanted), (_, moved, predicted) in rows:
        data = encode_block(wanted, moved, predicted)
        file.write(data)
        blocks.update(data)
        before.update(tensor_bytes(wanted))
        after.update(tensor_bytes(moved))
    digests = ("sha256:" + state.hexdigest() for state in (blocks, before, after))
    return Corrections(start, file.tell(), *digests)
