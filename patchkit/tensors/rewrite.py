"""Writing a folder so that it appears whole or not at all.

Work happens in a sibling, `NAME.partial`, that a journal marks as ours. Errors and Ctrl-C remove
it; only a kill leaves it, and the next run starts afresh. At the end the sibling is renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from patchkit.errors import OutputError
from patchkit.tensors.checkpoint import CONFIG
from patchkit.tensors.digests import canonical_json

JOURNAL = "patchkit.journal.json"
LOCK = "patchkit.lock.json"

_REASONS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
}


class RangeWriter:
    """Overwrites ranges of an existing file and brings them to the disk when closed."""

    def __init__(self, path: Path) -> None:
        """Open the file; OSError if it cannot be written."""
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Put all bytes at a position; OSError if the disk takes fewer."""
        self._file.seek(start)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def __enter__(self) -> RangeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())


@contextmanager
def staged_folder(out: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder that becomes `out` when the block ends without an error.

    An existing `out` is refused, or replaced at the end if `overwrite` is set and it holds a
    model or nothing. Raises OutputError, also for any OSError inside the block.
    """
    out = Path(os.path.abspath(out))
    partial = out.with_name(out.name + ".partial")
    try:
        check_place(out, overwrite=overwrite)
        _begin(out, partial)
    except OSError as error:
        raise output_error(out, error) from error
    try:
        yield partial
        (partial / JOURNAL).unlink()
        _sync_folder(partial)
        _swap(partial, out)
    except OSError as error:
        raise output_error(out, error) from error
    finally:
        if partial.exists():
            shutil.rmtree(partial, ignore_errors=True)


def output_error(out: Path, error: OSError) -> OutputError:
    """Say in one sentence why a path cannot be written."""
    reason = _REASONS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space or name an output on another disk with -o"
    return OutputError(
        f"{out} cannot be written: {reason}", hint=hint, details={"errno": error.errno}
    )


def check_place(out: Path, *, overwrite: bool = False) -> None:
    """OutputError unless a folder can be made at `out`, or replaced there if `overwrite`."""
    out = Path(os.path.abspath(out))
    if not out.name:
        raise OutputError(f"{out} cannot be an output folder")
    if not out.parent.is_dir():
        raise OutputError(
            f"{out} cannot be written: {out.parent} is not a folder", hint=f"mkdir -p {out.parent}"
        )
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise OutputError(f"{out} exists", hint="replace it with --yes, or name another with -o")
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out} exists and is not a folder", hint="name another output with -o")
    if any(out.iterdir()) and not (out / CONFIG).exists() and not (out / LOCK).exists():
        raise OutputError(
            f"{out} exists and holds no model, so it is not replaced",
            hint="name another output with -o",
        )


def _begin(out: Path, partial: Path) -> None:
    if os.path.lexists(partial):
        if not (partial / JOURNAL).is_file():
            raise OutputError(
                f"{partial} is in the way and was not made by patchkit", hint="move it elsewhere"
            )
        shutil.rmtree(partial)
    partial.mkdir()
    journal = {"schema": "patchkit.journal/1", "output": out.name}
    (partial / JOURNAL).write_bytes(canonical_json(journal))


def _swap(partial: Path, out: Path) -> None:
    previous = out.with_name(f".{out.name}.replaced-by-patchkit")
    if not out.exists():
        os.rename(partial, out)
    else:
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(out, previous)
        try:
            os.rename(partial, out)
        except BaseException:
            os.rename(previous, out)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _sync_folder(out.parent)


def _sync_folder(folder: Path) -> None:
    # Some systems cannot open a folder; there the rename alone has to do.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
