"""Writing a patch as an adapter, and checking what was written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchkit.events import SILENT, Progress
from patchkit.export import gguf, peft
from patchkit.export.adapter import Storage, build, errors
from patchkit.export.selftest import self_test as run_self_test
from patchkit.patch.patch import Patch
from patchkit.patch.stack import stacked
from patchkit.report import Check
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.rewrite import check_place

Target = Literal["peft", "gguf"]
"""Layout of an adapter: a PEFT folder, or a GGUF file for llama.cpp."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written where.

    `rank` is that of every module, and alpha is the same. `relative_error` is the largest
    ‖B A − (W′ − W)‖ / ‖W′ − W‖ over modules, as read back. `vllm_rank` is the --max-lora-rank that
    vLLM needs, None where it allows none. `self_test` is None unless it was asked for.
    """

    path: Path
    to: Target
    tensors: tuple[str, ...]
    rank: int
    relative_error: float
    bytes_written: int
    vllm_rank: int | None
    self_test: Check | None
    seconds: float

    @property
    def ok(self) -> bool:
        """False when the self-test failed."""
        return self.self_test is None or self.self_test.ok


def export(
    base: str | Path,
    patches: Sequence[str | Path],
    out: str | Path,
    *,
    to: Target = "peft",
    storage: Storage = "float32",
    allow_other_base: bool = False,
    overwrite: bool = False,
    self_test: bool = False,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write patches, first to last, as one LoRA adapter for the folder `base`.

    Exact up to `storage`. Only the edited tensors of the base are read, and the whole model in fp32
    for `self_test`, which compares logits. `out` appears whole or not at all. Raises BaseMismatch,
    CheckpointError (a name that the base does not have), UnsupportedModel (an architecture that the
    target does not know), InvariantError (a factor that is not of low rank), FormatError and
    OutputError.
    """
    begun, out = time.monotonic(), Path(out)
    checkpoint = Checkpoint.open(base)
    _check_target(checkpoint, out, to, overwrite)
    stack = [Patch.read(path) for path in patches]
    joined, origin = stacked(stack), stack[0].metadata.base
    adapter = build(
        checkpoint, joined, origin, allow_other_base=allow_other_base, progress=progress
    )
    writer = peft.write if to == "peft" else gguf.write
    writer(adapter, out, storage, overwrite=overwrite)
    stored = peft.read(out) if to == "peft" else gguf.read(out, adapter)
    return ExportReport(
        path=out,
        to=to,
        tensors=tuple(layer.site.tensor for layer in adapter.layers),
        rank=adapter.rank,
        relative_error=max(errors(adapter, stored)),
        bytes_written=_size(out),
        vllm_rank=peft.vllm_rank(adapter.rank),
        self_test=run_self_test(checkpoint, joined, stored, storage) if self_test else None,
        seconds=time.monotonic() - begun,
    )


def _check_target(checkpoint: Checkpoint, out: Path, to: Target, overwrite: bool) -> None:
    """Refuse what cannot be written before anything is computed."""
    if to == "peft":
        check_place(out, overwrite=overwrite)
        return
    gguf.package()
    gguf.architecture(str(checkpoint.config.get("model_type")))
    gguf.check_place(out, overwrite=overwrite)


def _size(out: Path) -> int:
    files = [out] if out.is_file() else [path for path in out.iterdir() if path.is_file()]
    return sum(path.stat().st_size for path in files)
