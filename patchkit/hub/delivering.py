"""One commit that arrives whole and once, whatever the network and other people do meanwhile.

Every commit names the one it was made on. Where the branch moved meanwhile, or an answer was lost,
the branch (or the open pull requests) are read again: content that is there has landed, everything
else is made anew on top.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from patchkit.errors import FormatError, HubError
from patchkit.events import SILENT, Progress, phase
from patchkit.hub.card import CARD
from patchkit.hub.card import MAX_BYTES as MAX_CARD
from patchkit.hub.failures import TRANSFER, status, translated
from patchkit.hub.index import INDEX
from patchkit.hub.index import MAX_BYTES as MAX_INDEX
from patchkit.hub.metered import Meter, MeteredAdd
from patchkit.hub.refs import HubRef
from patchkit.hub.wire import Remote, fetch, look, quiet

_ATTEMPTS = 32
_CONFLICT = (409, 412)
_PROPOSALS = 20  # newest open pull requests that are looked at
Files = Mapping[str, Path | bytes]


class Cargo(Protocol):
    """What should be in a repository; `digests` has those of contents that must not change."""

    @property
    def ref(self) -> HubRef:
        """The repository and the branch."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests that contents had when they were verified, by path."""

    def files(self, remote: Remote | None, known: Mapping[str, bytes]) -> Files:
        """What has to change there, given index and card as they are; nothing if nothing has to."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a commit is to be made."""

    message: str
    create_pr: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file of a commit."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where the content is; `files` changed on the way there, none if all of it was there.

    `licensed` says whether the card there names a licence.
    """

    commit: str | None
    files: tuple[SentFile, ...] = ()
    pull_request: str | None = None
    licensed: bool = False


def deliver(
    api: HfApi,
    cargo: Cargo,
    remote: Remote | None,
    wish: Wish,
    progress: Progress = SILENT,
) -> Delivered:
    """Commit until the content is there; each round starts from the branch as it is then.

    A pull request that is open and brings the same already is taken for it. Raises what
    `Cargo.files` raises, HubError (AccessDenied, HubUnreachable), FormatError for a content that
    changed since it was verified.
    """
    sent: tuple[SentFile, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(_ATTEMPTS):
            known = {} if remote is None else _known(api, remote, Path(folder))
            files = cargo.files(remote, known)
            card = files.get(CARD) or known.get(CARD)
            licensed = isinstance(card, bytes) and b"\nlicense:" in card
            sent = _described(files) if files else sent
            if remote is None or wish.dry_run or not files:
                commit = None if remote is None else remote.commit
                return Delivered(commit, sent, licensed=licensed)
            landed = _proposed(api, cargo.ref, files) if wish.create_pr else None
            landed = landed or _commit(api, cargo, remote, wish, files, progress)
            if landed is not None:
                return replace(landed, files=sent, licensed=licensed)
            remote = look(api, cargo.ref)
    raise HubError(
        f"{cargo.ref} changed {_ATTEMPTS} times while this was pushed",
        hint="run the same command again",
    )


def _commit(
    api: HfApi, cargo: Cargo, remote: Remote, wish: Wish, files: Files, progress: Progress
) -> Delivered | None:
    """Make one commit; None where the branch moved, or where it has the content all the same."""
    total = sum(file.bytes for file in _described(files))
    try:
        with phase(progress, "uploading", total, "B") as advance, quiet():
            meter = Meter(total, advance)
            made = api.create_commit(
                cargo.ref.repo,
                _operations(files, cargo.digests, meter),
                commit_message=wish.message,
                revision=cargo.ref.revision,
                create_pr=wish.create_pr,
                parent_commit=remote.commit,
            )
            meter.finish()
        return Delivered(made.oid, pull_request=made.pr_url)
    except TRANSFER as error:
        if isinstance(error, HfHubHTTPError) and status(error) in _CONFLICT:
            return None
        refused = isinstance(error, HfHubHTTPError) and (status(error) or 500) < 500
        if refused or not _landed(api, cargo.ref, files, create_pr=wish.create_pr):
            with translated(cargo.ref, "pushing to"):
                raise
        return None


def _landed(api: HfApi, ref: HubRef, files: Files, *, create_pr: bool) -> bool:
    """Whether the Hub holds the content although no answer said so."""
    try:
        if create_pr:
            return _proposed(api, ref, files) is not None
        return _holds(look(api, ref), files)
    except HubError:
        return False


def _proposed(api: HfApi, ref: HubRef, files: Files) -> Delivered | None:
    """An open pull request that brings exactly this; None if there is none."""
    with translated(ref, "looking at"), quiet():
        proposals = api.get_repo_discussions(
            ref.repo, discussion_type="pull_request", discussion_status="open"
        )
        for each in islice(proposals, _PROPOSALS):
            remote = look(api, HubRef(ref.repo, f"refs/pr/{each.num}"))
            if _holds(remote, files):
                return Delivered(remote.commit, pull_request=each.url)
    return None


def _holds(remote: Remote, files: Files) -> bool:
    here = remote.files
    return all(path in here and here[path].holds(content) for path, content in files.items())


def _operations(files: Files, digests: Mapping[str, str], meter: Meter) -> list[CommitOperationAdd]:
    """The client's operations; FormatError if a content changed since it was verified."""
    made: list[CommitOperationAdd] = []
    for path, content in sorted(files.items()):
        operation = MeteredAdd(path, content)
        operation.meter = meter
        digest = f"sha256:{operation.upload_info.sha256.hex()}"
        if digest != digests.get(path, digest):
            raise FormatError(
                f"{path} changed while it was pushed: {digest[:15]}…, and {digests[path][:15]}… "
                "was verified",
                details={"expected": digests[path], "found": digest},
            )
        made.append(operation)
    return made


def _known(api: HfApi, remote: Remote, folder: Path) -> dict[str, bytes]:
    """Index and card of a repository as they are now; FormatError for absurd sizes."""
    found = {}
    for path, limit in ((INDEX, MAX_INDEX), (CARD, MAX_CARD)):
        if path not in remote.files:
            continue
        if (size := remote.files[path].size) > limit:
            raise FormatError(f"{path} on the Hub has {size} bytes; {limit} are allowed")
        found[path] = fetch(api, remote, path, folder / remote.commit).read_bytes()
    return found


def _described(files: Files) -> tuple[SentFile, ...]:
    return tuple(
        SentFile(path, content.stat().st_size if isinstance(content, Path) else len(content))
        for path, content in files.items()
    )
