"""Putting a finished folder where another one stands, in one step where the system can.

Linux exchanges two names at once. Elsewhere the old folder is moved aside first; `recover` puts it
back if a kill came between the two steps.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE


def recover(out: Path) -> None:
    """Undo or complete what a kill interrupted at `out`."""
    if os.path.lexists(_aside(out)):
        if os.path.lexists(out):
            discard(_aside(out), out)
        else:
            os.rename(_aside(out), out)
    shutil.rmtree(_discarded(out), ignore_errors=True)


def discard(folder: Path, out: Path) -> None:
    """Remove a folder beside `out`, under a name that `recover` knows as rubbish."""
    rubbish = _discarded(out)
    shutil.rmtree(rubbish, ignore_errors=True)
    try:
        os.rename(folder, rubbish)
    except OSError:
        rubbish = folder
    shutil.rmtree(rubbish, ignore_errors=True)


def swap(finished: Path, out: Path, *, drop: str) -> None:
    """Make `finished`, without its file `drop`, appear as `out` and remove a folder there.

    OSError leaves `out` as it was.
    """
    # Under a name that is rubbish to `recover`, because from here on nothing else marks it as ours.
    waiting = _discarded(out)
    shutil.rmtree(waiting, ignore_errors=True)
    os.rename(finished, waiting)
    try:
        (waiting / drop).unlink()
        if not os.path.lexists(out):
            os.rename(waiting, out)
        elif not exchange(waiting, out):
            _in_two_steps(waiting, out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(waiting, ignore_errors=True)


def exchange(one: Path, two: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    paths = os.fsencode(one), os.fsencode(two)
    return bool(rename(_HERE, paths[0], _HERE, paths[1], _EXCHANGE) == 0)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    # Some systems cannot open a folder; there the rename alone has to do.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _in_two_steps(finished: Path, out: Path) -> None:
    aside = _aside(out)
    os.rename(out, aside)
    try:
        os.rename(finished, out)
    except BaseException:
        os.rename(aside, out)
        raise
    discard(aside, out)


def _aside(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced-by-patchkit")


def _discarded(out: Path) -> Path:
    return out.with_name(f".{out.name}.discarded-by-patchkit")
