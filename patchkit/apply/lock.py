"""The lock of a patched folder: what it was made from, and what was made.

Local state beside the weights: paths are relative to the folder, nothing depends on when or where
it was written, and its own digest shows a change by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from patchkit.errors import CheckpointError, FormatError
from patchkit.models import atlas_path
from patchkit.tensors.checkpoint import ATLAS, MAX_NAME, is_file_name
from patchkit.tensors.digests import file_digest, json_digest
from patchkit.tensors.rewrite import LOCK, UNDO
from patchkit.tensors.source import FileSource

SCHEMA = "patchkit.lock/1"
_MAX_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class LockedBase:
    """The root base: `path` relative to the patched folder, None for the embedded model."""

    path: str | None
    repo: str | None
    revision: str | None
    config_digest: str


@dataclass(frozen=True, slots=True)
class LockedPatch:
    """One applied patch: `path` relative to the patched folder, `source` where on the Hub it is."""

    digest: str
    path: str
    source: str | None = None


@dataclass(frozen=True, slots=True)
class LockedTensor:
    """One edited tensor: its shard, and digests of its bytes in the base and in the output."""

    shard: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class LockedShard:
    """What became of a shard: `state` is "rewritten" or "unchanged".

    `before` and `after` are digests of the whole file, in the base and in the output: None where a
    shard is unchanged, or where nobody asked for them.
    """

    state: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Lock:
    """Base, patches in the order applied, edited tensors, and what became of each shard."""

    base: LockedBase
    patches: tuple[LockedPatch, ...]
    tensors: Mapping[str, LockedTensor]
    shards: Mapping[str, LockedShard]

    def to_json(self) -> bytes:
        """Return indented JSON with sorted keys, ending with the digest of the rest."""
        body = self._body()
        body["digest"] = json_digest(body)
        return json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    def _body(self) -> dict[str, object]:
        return {
            "schema": SCHEMA,
            "base": asdict(self.base),
            "patches": [_stated(patch) for patch in self.patches],
            "tensors": {name: asdict(tensor) for name, tensor in self.tensors.items()},
            "shards": {name: asdict(shard) for name, shard in self.shards.items()},
        }


def read_lock(folder: Path) -> Lock | None:
    """Read the lock of a folder, None if it has none.

    Raises FormatError for a lock of a newer schema, or one that was changed since it was written.
    """
    if not (folder / LOCK).is_file():
        return None
    source = FileSource(folder / LOCK)
    if source.size > _MAX_BYTES:
        raise FormatError(f"{LOCK} has {source.size} bytes; {_MAX_BYTES} are allowed")
    try:
        data = source.read(0, source.size)
        found = json.loads(data.decode())
        schema = found.get("schema")
        if schema != SCHEMA:
            raise FormatError(f"{LOCK} is of schema {schema!r}; this patchkit reads {SCHEMA}")
        lock = _lock(found)
        unchanged = lock.to_json() == data
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"{LOCK} is damaged: {error}") from error
    if not unchanged:
        raise FormatError(f"{LOCK} was changed after it was written")
    return lock


def root_of(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Find the unpatched base behind a folder, and the patches that lead from it to the folder.

    A folder without a lock is its own root. Raises CheckpointError when the base or a patch that
    the lock names is gone or has changed.
    """
    lock = read_lock(folder)
    if lock is None:
        return folder, ()
    root, patches = base_path(folder, lock), patch_paths(folder, lock)
    if not root.is_dir():
        raise CheckpointError(
            f"{folder} was made from {lock.base.path}, which is gone",
            hint="put the base back, or apply all patches to it where it is now",
            details={"base": str(root)},
        )
    for path, patch in zip(patches, lock.patches, strict=True):
        if not path.is_file() or file_digest(path) != patch.digest:
            raise CheckpointError(
                f"{folder} was made with {patch.path} ({patch.digest[:15]}…), "
                f"which is {'another file now' if path.is_file() else 'gone'}",
                hint=f"patchkit apply {root} PATCH… -o OUT with all patches in order",
                details={"expected": patch.digest, "path": str(path)},
            )
    return root, patches


def planned_root(folder: Path) -> tuple[Path, tuple[Path, ...], Path | None]:
    """Find what to plan from: a root folder, the patches that the folder carries, and no third.

    Where the base is gone and there is a sidecar, it is the folder itself, whose headers are the
    base's, and the third is where the base should be. Raises as `root_of`.
    """
    lock = read_lock(folder)
    if lock is None or base_path(folder, lock).is_dir() or not (folder / UNDO).is_file():
        return *root_of(folder), None
    return folder, patch_paths(folder, lock), base_path(folder, lock)


def base_path(folder: Path, lock: Lock) -> Path:
    """Where the root base of a folder should be."""
    return atlas_path() if lock.base.path is None else _joined(folder, lock.base.path)


def patch_paths(folder: Path, lock: Lock) -> tuple[Path, ...]:
    """Where the patches of a folder should be, in the order applied."""
    return tuple(_joined(folder, patch.path) for patch in lock.patches)


def locked_base(
    root: Path, out: Path, *, repo: str | None, revision: str | None, config_digest: str
) -> LockedBase:
    """Describe a root base as seen from the folder made of it."""
    path = None if repo == ATLAS else relative_path(root, out)
    return LockedBase(path, repo, revision, config_digest)


def relative_path(path: Path, folder: Path) -> str:
    """Return the way from a folder to a path, absolute only where there is none."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def _joined(folder: Path, path: str) -> Path:
    return Path(os.path.normpath(folder.resolve() / path))


def _stated(patch: LockedPatch) -> dict[str, object]:
    return {key: value for key, value in asdict(patch).items() if value is not None}


def _lock(found: Mapping[str, object]) -> Lock:
    base, patches, tensors = found["base"], found["patches"], found["tensors"]
    if not isinstance(base, dict) or not isinstance(patches, list) or not isinstance(tensors, dict):
        raise TypeError("base, patches or tensors has the wrong type")
    shards = found["shards"]
    if not isinstance(shards, dict):
        raise TypeError("shards has the wrong type")
    lock = Lock(
        base=LockedBase(**base),
        patches=tuple(LockedPatch(**patch) for patch in patches),
        tensors={name: LockedTensor(**tensor) for name, tensor in tensors.items()},
        shards={name: LockedShard(**shard) for name, shard in shards.items()},
    )
    _check_texts(lock)
    return lock


def _check_texts(lock: Lock) -> None:
    texts = [text for text in asdict(lock.base).values() if text is not None]
    texts += [text for patch in lock.patches for text in _stated(patch).values()]
    texts += [text for tensor in lock.tensors.values() for text in asdict(tensor).values()]
    shards = lock.shards.values()
    texts += [text for shard in shards for text in asdict(shard).values() if text is not None]
    if not all(isinstance(text, str) for text in (*texts, *(shard.state for shard in shards))):
        raise TypeError("a value is not a text")
    for name in (*lock.shards, *(tensor.shard for tensor in lock.tensors.values())):
        # What is put back is written under these names.
        if not is_file_name(name):
            raise ValueError(f"{name!r:.80} is not the name of a shard")
    for path in filter(None, (lock.base.path, *(patch.path for patch in lock.patches))):
        if "\0" in path or any(len(part.encode()) > MAX_NAME for part in Path(path).parts):
            raise ValueError(f"{path!r:.80} is not a path")
