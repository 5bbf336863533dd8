"""Writing a folder so that it appears whole or not at all.

Work happens in a sibling, `NAME.partial`, that a journal marks as ours. Errors and Ctrl-C remove
it; only a kill leaves it, and the next run resumes it or starts afresh. At the end the sibling is
renamed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType

from patchkit.errors import OutputError
from patchkit.tensors.checkpoint import CONFIG
from patchkit.tensors.journal import JOURNAL, Journal
from patchkit.tensors.seal import write_all
from patchkit.tensors.swap import discard, recover, swap, sync_folder

LOCK = "patchkit.lock.json"
UNDO = "patchkit.undo"

# A folder with one of these is a model or an adapter, and not someone's documents.
_REPLACEABLE = (CONFIG, LOCK, "adapter_config.json")
_HUB_FOLDER = re.compile(r"(?:models|datasets|spaces)--.+")

_REASONS = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
}


class RangeWriter:
    """Overwrites ranges of an existing file and brings them to the disk when closed.

    Without `sync` they are left to whoever completes the file.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """Open the file; OSError if it cannot be written."""
        self._file = FileIO(path, "r+")
        self._sync = sync

    def write(self, start: int, data: bytes | memoryview) -> None:
        """Put all bytes at a position; OSError if the disk takes fewer."""
        self._file.seek(start)
        write_all(self._file, memoryview(data))

    def __enter__(self) -> RangeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None and self._sync:
                os.fsync(self._file.fileno())


@contextmanager
def staged_folder(
    out: Path,
    *,
    overwrite: bool = False,
    inputs: Mapping[str, str] | None = None,
    resume: bool = False,
) -> Iterator[Path]:
    """Yield a folder that becomes `out` when the block ends without an error.

    It is empty but for a journal of `inputs`; with `resume` it is what a killed run left, if that
    had the same inputs. An existing `out` is refused, or replaced at the end if `overwrite` is set
    and it holds a model or nothing. Raises OutputError, also for any OSError inside the block.
    """
    out = Path(os.path.abspath(out))
    partial = out.with_name(out.name + ".partial")
    try:
        recover(out)
        check_place(out, overwrite=overwrite)
        _begin(partial, out, inputs or {}, resume)
    except OSError as error:
        raise output_error(out, error) from error
    try:
        yield partial
        sync_folder(partial)
        swap(partial, out, drop=JOURNAL)
    except OSError as error:
        raise output_error(out, error) from error
    finally:
        if partial.exists():
            with suppress(OSError):
                discard(partial, out)


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
    for place in (out, out.parent.resolve()):
        if any(_HUB_FOLDER.fullmatch(part) for part in place.parts):
            raise OutputError(
                f"{out} lies in a download cache of the Hub, which other programs share",
                hint="name an output elsewhere with -o",
            )
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise OutputError(f"{out} exists", hint="replace it with --yes, or name another with -o")
    if not out.is_dir() or out.is_symlink():
        raise OutputError(f"{out} exists and is not a folder", hint="name another output with -o")
    if any(out.iterdir()) and not any((out / name).exists() for name in _REPLACEABLE):
        raise OutputError(
            f"{out} exists and holds no model, so it is not replaced",
            hint="name another output with -o",
        )


def _begin(partial: Path, out: Path, inputs: Mapping[str, str], resume: bool) -> None:
    if os.path.lexists(partial):
        if not (partial / JOURNAL).is_file():
            raise OutputError(
                f"{partial} is in the way and was not made by patchkit", hint="move it elsewhere"
            )
        if resume:
            Journal.read(partial).check(inputs)
            return
        discard(partial, out)
    # The journal comes with the name: a folder without one would not be known as ours.
    fresh = out.with_name(f".{out.name}.begun-by-patchkit")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    Journal.begin(fresh, inputs)
    os.rename(fresh, partial)
