"""Putting other bytes into the shards of a folder: beside it, or where they are, file by file.

In place, a shard is written whole under another name, checked, and renamed over the old one. A
journal stands in the folder from the first of these to the last, so that a kill leaves shards of
both kinds, each whole, and a mark that says so; beginning again completes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from patchkit.errors import FormatError
from patchkit.tensors.clone import create
from patchkit.tensors.digests import canonical_json
from patchkit.tensors.header import TensorInfo
from patchkit.tensors.rewrite import RangeWriter
from patchkit.tensors.seal import Written, seal
from patchkit.tensors.swap import sync_folder

REVERTING = "patchkit.revert.json"
"""Stands in a folder while its shards are being replaced."""

Blocks = Callable[[str], Iterator[bytes]]
"""The bytes of a tensor by its name, in order."""


def restore_shard(source: Path, target: Path, tensors: Sequence[TensorInfo], blocks: Blocks) -> str:
    """Write a copy of a shard in which `tensors` have other bytes; return the file's digest.

    Storage is shared with `source` where the file system can. Raises OSError, and FormatError if
    `blocks` has too few or too many bytes for a tensor.
    """
    shared = create(source, target)
    with RangeWriter(target, sync=False) as writer:
        for info in tensors:
            position = info.start
            for data in blocks(info.name):
                if position + len(data) > info.end:
                    raise FormatError(f"{info.name} should have {info.nbytes} bytes, and has more")
                writer.write(position, data)
                position += len(data)
            if position != info.end:
                found = position - info.start
                raise FormatError(f"{info.name} should have {info.nbytes} bytes, not {found}")
    written = [Written(info.start, info.end, lambda: None) for info in tensors]
    return seal(source, target, written, shared=shared).after


def replace_shards(folder: Path, shards: Sequence[str], write: Callable[[str, Path], None]) -> None:
    """Replace shards of a folder one after another; `write` makes a new one at a path, or raises.

    An error leaves the shard it happened in, and those after it, as they were; the journal then
    stays if any was replaced, by this run or an interrupted one.
    """
    replaced = interrupted(folder)
    if (folder / REVERTING).is_symlink():  # in a folder from elsewhere, to who knows what
        (folder / REVERTING).unlink()
    # Its presence is what counts, so it may be torn.
    (folder / REVERTING).write_bytes(canonical_json({"shards": list(shards)}))
    sync_folder(folder)
    try:
        for shard in shards:
            fresh = _fresh(folder, shard)
            fresh.unlink(missing_ok=True)
            try:
                write(shard, fresh)
                os.replace(fresh, folder / shard)
                replaced = True
                sync_folder(folder)
            finally:
                fresh.unlink(missing_ok=True)
    except BaseException:
        if not replaced:
            (folder / REVERTING).unlink(missing_ok=True)
        raise


def finish(folder: Path, shards: Sequence[str], remove: Sequence[str]) -> None:
    """End what `replace_shards` began: remove files that no longer hold, the journal last."""
    for name in (*(_fresh(folder, shard).name for shard in shards), *remove):
        (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
    (folder / REVERTING).unlink(missing_ok=True)
    sync_folder(folder)


def interrupted(folder: Path) -> bool:
    """Whether replacing the shards of a folder was begun and not ended."""
    return (folder / REVERTING).is_file()


@contextmanager
def scratch_folder(
    patched: Path, beside: Path, shards: Mapping[str, Callable[[Path], object]]
) -> Iterator[Path]:
    """Yield a folder like `patched` with some shards made anew; it goes when the block ends.

    It is for reading only: other files are links to those of `patched`. What a kill left of an
    earlier one is removed first.
    """
    scratch = beside.with_name(f".{beside.name}.base-of-patchkit")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        for path in sorted(path for path in patched.rglob("*") if path.is_file()):
            name = path.relative_to(patched).as_posix()
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in shards:
                shards[name](target)
            elif not name.startswith("patchkit."):
                os.symlink(path.resolve(), target)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fresh(folder: Path, shard: str) -> Path:
    return folder / f".{shard}.restored-by-patchkit"
