"""From this machine to the Hub: verified patches, card and index in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.events import SILENT, Progress
from patchkit.hub.delivering import SentFile, Wish, deliver
from patchkit.hub.parcel import pack
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.remote import base_license, present, ready, tag_commit
from patchkit.hub.wire import client, need_login
from patchkit.report import Report


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
    files: tuple[SentFile, ...]
    checks: dict[str, Report]
    digests: dict[str, str]
    public_facts: int
    licensed: bool
    dry_run: bool


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
    need_login(f"pushing to {ref.repo}")
    parcel = pack(ref, patches, embed_facts=embed_facts, license=license, progress=progress)
    parcel = replace(parcel, overwrite=overwrite)
    api = client(endpoint)
    remote = present(api, ref)
    new = remote is None and (revision is None or present(api, HubRef(ref.repo)) is None)
    if remote is None and not dry_run:
        remote = ready(api, ref, private=private, create_pr=create_pr)
    if new:
        parcel = replace(parcel, inherited=base_license(api, parcel.bases))
    names = ", ".join(item.path for item in parcel.items)
    wish = Wish(message or f"Add {names} with patchkit", create_pr, dry_run)
    done = deliver(api, parcel, remote, wish, progress)
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
        digests=dict(parcel.digests),
        public_facts=parcel.public_facts,
        licensed=done.licensed,
        dry_run=dry_run,
    )
