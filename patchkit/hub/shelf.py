"""Bases from the Hub on this machine: by repository and commit, each file verified when it came.

    <folder>/org--name/refs/<revision>     the commit that a revision was last seen at
    <folder>/org--name/<commit>.json       the files of the commit, as the Hub states them
    <folder>/org--name/<commit>/whole/     files that are here, each with a stamp beside it
    <folder>/org--name/<commit>/outline/   the same, and of every other shard its header and a hole

`outline` is a checkpoint folder from which everything can be planned, and of which only the tensors
of shards that are in `whole` can be read. What another program of the Hub has in its cache is
linked to, never written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from patchkit.errors import FormatError, OutputError
from patchkit.hub.refs import HubRef, check_path
from patchkit.hub.wire import Remote, RemoteFile
from patchkit.patch.writing import write_atomically
from patchkit.tensors.origin import Origin, origin_note, read_origin


@dataclass(frozen=True, slots=True)
class Shelf:
    """The place of one commit of one repository; it need not exist yet."""

    folder: Path

    @property
    def whole(self) -> Path:
        """The folder of files that are here."""
        return self.folder / "whole"

    @property
    def outline(self) -> Path:
        """The folder in which every shard has at least its header."""
        return self.folder / "outline"

    def listing(self, ref: HubRef, commit: str) -> Remote | None:
        """The files of the commit as the Hub stated them; None if it was not asked yet."""
        try:
            found = json.loads(self._listing.read_bytes())
            files = {check_path(path): RemoteFile(**file) for path, file in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return Remote(ref, commit, False, files)

    def open(self, remote: Remote, *, stated: bool) -> None:
        """Make the folders, and keep the listing if the Hub `stated` it; OutputError on failure."""
        for place in (self.whole, self.outline):
            try:
                place.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"{place} could not be made: {error.strerror}") from error
            if read_origin(place) is None:
                origin = Origin(remote.ref.repo, remote.commit)
                write_atomically(origin_note(place), str(origin).encode())
        if stated and not self._listing.is_file():
            files: Mapping[str, object] = {p: asdict(file) for p, file in remote.files.items()}
            write_atomically(self._listing, json.dumps(files, sort_keys=True).encode())

    def has(self, stated: RemoteFile) -> bool:
        """Whether a file is here; one that changed since it was verified is read again.

        FormatError, and the file dropped, where its bytes are not those of the commit.
        """
        place = self.whole / stated.path
        if not place.is_file():
            return False
        if _stamp(place) == _read(_mark(place)):
            return True
        if stated.holds(place):
            self._seal(place)
            return True
        place.unlink()
        raise FormatError(
            f"the kept copy of {stated.path} was changed or damaged; it was dropped",
            hint="run the same command again",
            details={"path": stated.path},
        )

    def take(self, stated: RemoteFile, verified: Path) -> None:
        """Move a verified file into its place; OutputError if that fails."""
        place = self.whole / stated.path
        try:
            os.replace(verified, place)
        except OSError as error:
            raise OutputError(f"{stated.path} could not be kept: {error.strerror}") from error
        self._seal(place)

    def link(self, stated: RemoteFile, elsewhere: Path) -> bool:
        """Link to a copy that another program keeps, if it has the bytes of the commit."""
        if not stated.holds(elsewhere):
            return False
        if not _symlink(elsewhere.resolve(), self.whole / stated.path):
            return False
        self._seal(self.whole / stated.path)
        return True

    def show(self, name: str) -> None:
        """Let the outline have a file that is here."""
        target = self.outline / name
        if not target.is_symlink():
            target.unlink(missing_ok=True)
            if not _symlink(Path("..", "whole", name), target):
                os.link((self.whole / name).resolve(), target)

    @property
    def _listing(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    def _seal(self, place: Path) -> None:
        write_atomically(_mark(place), _stamp(place).encode())


def _stamp(place: Path) -> str:
    """What changes when somebody writes into a file."""
    found = place.stat()
    return f"{found.st_size} {found.st_mtime_ns}"


def _mark(place: Path) -> Path:
    return place.with_name(f".{place.name}.verified")


def _read(mark: Path) -> str | None:
    return mark.read_text(encoding="ascii", errors="replace") if mark.is_file() else None


def _symlink(target: Path, place: Path) -> bool:
    fresh = place.with_name(f".{place.name}.{os.getpid()}.link")
    try:
        os.symlink(target, fresh)
    except OSError:  # a file system or a Windows account without links
        return False
    os.replace(fresh, place)
    return True
