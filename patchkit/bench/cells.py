"""Finished cells of a benchmark, each a JSON file under the digest of what decides it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchkit.bench.row import Row, row_from
from patchkit.errors import OutputError, RecipeError
from patchkit.patch.writing import write_atomically
from patchkit.tensors.digests import json_digest


@dataclass(frozen=True, slots=True)
class Cells:
    """The folder of a benchmark's cells; several processes may fill it at a time."""

    folder: Path

    @classmethod
    def within(cls, folder: Path) -> Cells:
        """Open, or make, the cells of a benchmark's output folder; OutputError if it cannot be."""
        cells = folder / "cells"
        try:
            cells.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{cells} cannot be made: {error.strerror}") from error
        return cls(cells)

    def path(self, key: Mapping[str, object]) -> Path:
        """Return the file of the cell that `key` decides."""
        return self.folder / f"{name_of(key)}.json"

    def find(self, key: Mapping[str, object]) -> Row | None:
        """Return the finished row of `key`; None where there is none that can be read."""
        try:
            found = json.loads(self.path(key).read_text("utf-8"))
            return row_from(found["row"]) if found["key"] == plain(key) else None
        except (OSError, ValueError, KeyError, TypeError, RecipeError):
            return None  # what was cut short or changed is measured again

    def keep(self, key: Mapping[str, object], row: Row) -> None:
        """Write the row of `key` at once or not at all; OutputError if that fails."""
        text = json.dumps({"key": key, "row": row.as_dict()}, indent=1, ensure_ascii=False)
        write_atomically(self.path(key), (text + "\n").encode())


def name_of(key: Mapping[str, object]) -> str:
    """Return the file stem for what `key` says."""
    return json_digest(plain(key)).removeprefix("sha256:")[:32]


def plain(key: Mapping[str, object]) -> object:
    """Return `key` as it comes back from a JSON file."""
    return json.loads(json.dumps(key))
