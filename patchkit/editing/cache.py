"""Tensors kept from one run to the next: a file for each thing, whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Entry:
    """The place in `folder` of the tensors made from what `key` was computed of."""

    folder: Path
    key: str

    @property
    def path(self) -> Path:
        """The file, which need not exist."""
        return self.folder / f"{self.key}.safetensors"

    def load(self) -> dict[str, Tensor] | None:
        """Read the tensors, None where there is nothing, or nothing readable."""
        if not self.path.is_file():
            return None
        try:
            return load_file(self.path)
        except Exception:  # a damaged entry is worth recomputing, whatever the reader calls it
            return None

    def save(self, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors`, completely or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{self.key}.{os.getpid()}.part"
        try:
            save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, part)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget the tensors."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Shelf:
    """The entries in `folder` that have `parts` of their keys in common."""

    folder: Path
    parts: Mapping[str, object]

    def entry(self, kind: str, **more: object) -> Entry:
        """Return the entry of one kind of thing, told apart by `more`."""
        return Entry(self.folder, cache_key({"kind": kind, **self.parts, **more}))


def cache_key(parts: Mapping[str, object]) -> str:
    """Return the file stem under which tensors made from `parts` are kept."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
