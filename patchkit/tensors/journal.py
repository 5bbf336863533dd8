"""The journal of a folder that is being written: what from, and which files of it are finished.

It lies in the folder itself, marks it as ours, and is replaced whole at each entry, so that a kill
at any moment leaves a journal that is true.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from patchkit.errors import OutputError
from patchkit.tensors.digests import canonical_json
from patchkit.tensors.source import FileSource

JOURNAL = "patchkit.journal.json"
SCHEMA = "patchkit.journal/1"

_MAX_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Finished:
    """A file that is complete and on the disk.

    `digest` is of the file, `base_digest` of the one it was made from, both only where they were
    computed; `parts` are digests of the tensors that were rewritten in it.
    """

    digest: str | None = None
    base_digest: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict)


class Journal:
    """Finished files by name, and the `inputs` that all of them were made from."""

    def __init__(
        self, folder: Path, inputs: Mapping[str, str], finished: Mapping[str, Finished]
    ) -> None:
        """Take over what is known; nothing is written."""
        self.folder = folder
        self.inputs = dict(inputs)
        self.finished = dict(finished)
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, folder: Path, inputs: Mapping[str, str]) -> Journal:
        """Put an empty journal into a folder."""
        journal = cls(folder, inputs, {})
        journal._write()
        return journal

    @classmethod
    def read(cls, folder: Path) -> Journal:
        """Read the journal of a folder; OutputError if it is not one of ours."""
        source = FileSource(folder / JOURNAL)
        try:
            if source.size > _MAX_BYTES:
                raise ValueError(f"it has {source.size} bytes")
            found = json.loads(source.read(0, source.size).decode())
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']!r}")
            finished = {name: _entry(entry) for name, entry in found["finished"].items()}
            inputs = {str(key): str(value) for key, value in found["inputs"].items()}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise OutputError(
                f"{folder.name}/{JOURNAL} cannot be resumed from: {error}",
                hint="start afresh, without --resume",
            ) from error
        return cls(folder, inputs, finished)

    def add(self, name: str, entry: Finished) -> None:
        """Note that a file is finished; call it when its bytes are on the disk."""
        with self._lock:
            self.finished[name] = entry
            self._write()

    def check(self, inputs: Mapping[str, str]) -> None:
        """OutputError naming both values where the journal is of a run with other inputs."""
        for key in sorted(self.inputs.keys() | inputs.keys()):
            began, now = self.inputs.get(key, "none"), inputs.get(key, "none")
            if began != now:
                raise OutputError(
                    f"{self.folder.name} was begun with {key} {began}, and this run has {now}",
                    hint="start afresh, without --resume",
                    details={"input": key, "expected": began, "found": now},
                )

    def _write(self) -> None:
        body = {
            "schema": SCHEMA,
            "inputs": self.inputs,
            "finished": {
                name: {
                    "digest": entry.digest,
                    "base_digest": entry.base_digest,
                    "parts": dict(entry.parts),
                }
                for name, entry in self.finished.items()
            },
        }
        fresh = self.folder / f".{JOURNAL}"
        with open(fresh, "wb") as file:
            file.write(canonical_json(body))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.folder / JOURNAL)


def _entry(found: dict[str, object]) -> Finished:
    digest, base_digest, parts = (found[key] for key in ("digest", "base_digest", "parts"))
    texts = [text for text in (digest, base_digest) if text is not None]
    if not isinstance(parts, dict) or not all(
        isinstance(t, str) for t in (*texts, *parts.values())
    ):
        raise TypeError("a digest is not a text")
    return Finished(**found)  # type: ignore[arg-type]
