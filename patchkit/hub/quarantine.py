"""Folders for what is being downloaded: gone when it ends, and after a kill with the next one.

Each is locked by the process that works in it, so that one without a lock is known to be left over.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchkit.errors import OutputError

_PREFIX = ".incoming-"


@contextmanager
def quarantine(parent: Path) -> Iterator[Path]:
    """Yield an empty folder inside `parent`, which is made; OutputError if that fails."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(parent):  # nobody takes a folder for left over before it is locked
            for left in parent.glob(f"{_PREFIX}*"):
                _discard(left)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
            handle = _lock(folder, wait=True)
    except OSError as error:
        raise OutputError(f"nothing can be written in {parent}: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = _lock(folder, wait=True)
    try:
        yield
    finally:
        _unlock(handle)


def _discard(left: Path) -> None:
    """Remove a folder in which no process works any more."""
    handle = _lock(left, wait=False)
    if handle is not None:
        shutil.rmtree(left, ignore_errors=True)
        _unlock(handle)


def _lock(folder: Path, *, wait: bool) -> int | None:
    """Lock a folder; None where another process has it, or where folders cannot be locked."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by another, or a file system without locks
        os.close(handle)
        return None
    return handle


def _unlock(handle: int | None) -> None:
    if handle is not None:
        os.close(handle)
