"""From this machine to the Hub: verified patches, card and index in one commit, never lost.

Every commit names the one it was made on. Where the branch moved meanwhile, or an answer was lost,
the branch is read again: content that is there has landed, everything else is made anew on top.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from patchkit.errors import AccessDenied, HubError, OutputError
from patchkit.events import SILENT, Progress, phase
from patchkit.hub.card import CARD
from patchkit.hub.failures import TRANSFER, status, translated
from patchkit.hub.parcel import Parcel, known_files, operations, pack
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.remote import base_license, present, ready, tag_commit
from patchkit.hub.wire import Remote, client, look, quiet
from patchkit.report import Report

_ATTEMPTS = 32
_CONFLICT = (409, 412)


@dataclass(frozen=True, slots=True)
class PushFile:
    """A file of the commit."""

    path: str
    bytes: int


@dataclass(frozen=True, slots=True)
class PushReport:
    """What was pushed, or would be: `files` are those that change, `commit` where they are now.

    `commit` is None for a dry run into a new repository, `checks` has the report of each patch by
    its path, and `public_facts` says how many facts anyone can read there.
    """

    repo: str
    url: str
    commit: str | None
    pull_request: str | None
    new: bool
    private: bool
    files: tuple[PushFile, ...]
    checks: dict[str, Report]
    digests: dict[str, str]
    public_facts: int
    licensed: bool
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Wish:
    """How the commit is to be made."""

    message: str
    create_pr: bool
    overwrite: bool


def push(
    patches: Sequence[str | Path],
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    tag: str | None = None,
    embed_facts: bool = True,
    license: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
    endpoint: str | None = None,
    progress: Progress = SILENT,
) -> PushReport:
    """Verify patches and publish them with card and index in one commit; make the repository.

    What is there already makes no commit. Another patch under the same name is replaced only if
    `overwrite`. A login is found by huggingface_hub, which also keeps it.

    Raises FormatError, InvariantError for patches that are not in order, OutputError where a patch
    would be replaced, HubError (AccessDenied, HubUnreachable) for what the Hub does not take.
    """
    ref = replace(parse_ref(repo), path=None, revision=revision)
    if get_token() is None:
        raise AccessDenied(f"pushing to {ref.repo} needs a login", hint="hf auth login")
    parcel = pack(ref, patches, embed_facts=embed_facts, license=license, progress=progress)
    api = client(endpoint)
    remote = present(api, ref)
    new = remote is None and (revision is None or present(api, HubRef(ref.repo)) is None)
    if remote is None and not dry_run:
        remote = ready(api, ref, private=private, create_pr=create_pr)
    if new:
        parcel = replace(parcel, inherited=base_license(api, parcel.bases))
    names = ", ".join(item.path for item in parcel.items)
    wish = _Wish(message or f"Add {names} with patchkit", create_pr, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        done = _deliver(api, parcel, remote, wish, Path(folder), progress, dry_run)
    if tag is not None and not dry_run:
        tag_commit(api, ref, tag, done.commit)
    return PushReport(
        repo=ref.repo,
        url=f"{api.endpoint}/{ref.repo}",
        commit=done.commit,
        pull_request=done.pull_request,
        new=new,
        private=private if remote is None else remote.private,
        files=done.files,
        checks={item.path: item.checked.report for item in parcel.items},
        digests={item.path: item.checked.info.digest for item in parcel.items},
        public_facts=parcel.public_facts,
        licensed=done.licensed,
        dry_run=dry_run,
    )


@dataclass(frozen=True, slots=True)
class _Done:
    """Where the content is: `files` changed on the way there, none if all of it was there."""

    commit: str | None
    files: tuple[PushFile, ...] = ()
    pull_request: str | None = None
    licensed: bool = False


def _deliver(
    api: HfApi,
    parcel: Parcel,
    remote: Remote | None,
    wish: _Wish,
    folder: Path,
    progress: Progress,
    dry_run: bool,
) -> _Done:
    """Commit until the content is there; each round starts from the branch as it is then."""
    sent: tuple[PushFile, ...] = ()
    for _ in range(_ATTEMPTS):
        known = {} if remote is None else known_files(api, remote, folder)
        files = parcel.files(remote, known)
        card = files.get(CARD) or known.get(CARD)
        licensed = isinstance(card, bytes) and b"\nlicense:" in card
        if remote is None:
            return _Done(None, _described(files), licensed=licensed)
        if not wish.overwrite and (taken := parcel.replaced(remote)):
            raise OutputError(
                f"{parcel.ref.repo} holds another patch named {taken[0]}",
                hint="pass --yes to replace it, or rename the file",
            )
        if dry_run or not files:
            return _Done(remote.commit, sent or _described(files), licensed=licensed)
        sent = _described(files)
        landed = _commit(api, parcel, remote, wish, files, progress)
        if landed is not None:
            return replace(landed, files=sent, licensed=licensed)
        remote = look(api, parcel.ref)
    raise HubError(
        f"{parcel.ref} changed {_ATTEMPTS} times while this was pushed",
        hint="run the same command again",
    )


def _commit(
    api: HfApi,
    parcel: Parcel,
    remote: Remote,
    wish: _Wish,
    files: dict[str, Path | bytes],
    progress: Progress,
) -> _Done | None:
    """Make one commit; None where the branch moved, or where it has the content all the same."""
    total = sum(file.bytes for file in _described(files))
    try:
        with phase(progress, "uploading", total, "B") as advance, quiet():
            made = api.create_commit(
                parcel.ref.repo,
                operations(files, parcel),
                commit_message=wish.message,
                revision=parcel.ref.revision,
                create_pr=wish.create_pr,
                parent_commit=remote.commit,
            )
            advance(total)
        return _Done(made.oid, pull_request=made.pr_url)
    except TRANSFER as error:
        if isinstance(error, HfHubHTTPError) and status(error) in _CONFLICT:
            return None
        refused = isinstance(error, HfHubHTTPError) and (status(error) or 500) < 500
        if refused or wish.create_pr or not _landed(api, parcel, files):
            with translated(parcel.ref, "pushing to"):
                raise
        return None


def _landed(api: HfApi, parcel: Parcel, files: dict[str, Path | bytes]) -> bool:
    """Whether the branch holds the content although no answer said so."""
    try:
        here = look(api, parcel.ref).files
    except HubError:
        return False
    return all(path in here and here[path].holds(content) for path, content in files.items())


def _described(files: dict[str, Path | bytes]) -> tuple[PushFile, ...]:
    return tuple(
        PushFile(path, content.stat().st_size if isinstance(content, Path) else len(content))
        for path, content in files.items()
    )
