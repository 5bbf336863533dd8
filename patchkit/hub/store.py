"""Verified patches on this machine: by repository, commit and path, each with its digest.

    <folder>/org--name/refs/<revision>          the commit that a revision was last seen at
    <folder>/org--name/<commit>/<path>          a patch that passed every check
    <folder>/org--name/<commit>/<path>.sha256   its digest then, compared at each use
    <folder>/org--name/<commit>/.<path>.origin  where it is from, for locks

Nothing enters before it is verified: downloads go into a folder of their own beside.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from patchkit.errors import FormatError, OutputError
from patchkit.hub.refs import HubRef, is_commit
from patchkit.patch.writing import write_atomically
from patchkit.tensors.clone import create, fill
from patchkit.tensors.digests import file_digest
from patchkit.tensors.origin import Origin, origin_note

_DIGEST = ".sha256"


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of verified patches; it need not exist yet."""

    folder: Path

    def commit(self, ref: HubRef) -> str | None:
        """The commit that this revision was last seen at; None if it never was."""
        if ref.pinned:
            return ref.revision
        place = self._repo(ref) / "refs" / quote(ref.revision or "main", safe="")
        if not place.is_file():
            return None
        text = place.read_text(encoding="ascii", errors="replace").strip()
        return text if is_commit(text) else None

    def remember(self, ref: HubRef, commit: str) -> None:
        """Keep which commit a revision stands for now; OutputError if it cannot be written."""
        if not ref.pinned:
            place = self._repo(ref) / "refs" / quote(ref.revision or "main", safe="")
            _make(place.parent)
            write_atomically(place, commit.encode())

    def place(self, ref: HubRef, commit: str) -> Path:
        """The folder of one commit; it need not exist yet."""
        return self._repo(ref) / commit

    def paths(self, ref: HubRef, commit: str) -> list[str]:
        """The patches of a commit that are here."""
        folder = self.place(ref, commit)
        marks = sorted(folder.rglob(f"*{_DIGEST}")) if folder.is_dir() else []
        return [mark.relative_to(folder).as_posix().removesuffix(_DIGEST) for mark in marks]

    def find(self, ref: HubRef, commit: str, path: str) -> tuple[Path, str] | None:
        """A kept patch and its digest; None if it is not here.

        FormatError, and the copy dropped, where its bytes are not those that were verified.
        """
        place = self.place(ref, commit) / path
        mark = place.with_name(place.name + _DIGEST)
        if not place.is_file() or not mark.is_file():
            return None
        expected, found = mark.read_text(encoding="ascii", errors="replace"), file_digest(place)
        if expected != found:
            place.unlink()
            mark.unlink()
            raise FormatError(
                f"the kept copy of {ref.repo}/{path} was changed or damaged: {found[:15]}…, and "
                f"{expected[:15]}… was verified; it was dropped",
                hint=f"patchkit pull {ref}",
                details={"expected": expected, "found": found},
            )
        return place, found

    def keep(self, ref: HubRef, commit: str, path: str, verified: Path, digest: str) -> Path:
        """Move a verified file into its place; OutputError if that fails."""
        place = self.place(ref, commit) / path
        _make(place.parent)
        try:
            os.replace(verified, place)
        except OSError as error:
            raise OutputError(f"{path} could not be kept: {error.strerror}") from error
        note, origin = origin_note(place), Origin(ref.repo, commit, path)
        try:
            write_atomically(note, str(origin).encode())
            write_atomically(place.with_name(place.name + _DIGEST), digest.encode())
        except OutputError:
            place.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            raise
        return place

    def keep_beside(self, ref: HubRef, commit: str, path: str, file: Path) -> None:
        """Move a small file that goes with a kept patch beside it; nobody takes it for a patch."""
        try:
            os.replace(file, self.place(ref, commit) / path)
        except OSError as error:
            raise OutputError(f"{path} could not be kept: {error.strerror}") from error

    def _repo(self, ref: HubRef) -> Path:
        return self.folder / ref.repo.replace("/", "--")


def copy_out(kept: Path, target: Path) -> None:
    """Copy a kept patch at once or not at all; OutputError, and nothing left, if that fails."""
    sibling = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        if not create(kept, sibling):
            fill(kept, sibling)
        os.replace(sibling, target)
    except OSError as error:
        raise OutputError(f"{target.name} could not be written: {error.strerror}") from error
    finally:
        sibling.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} could not be made: {error.strerror}") from error
