"""The history of a repository of patches: what each commit did to them, with digests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Literal

from huggingface_hub import HfApi

from patchkit.hub.failures import translated
from patchkit.hub.index import INDEX
from patchkit.hub.listing import fetch_index
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.wire import Remote, client, look, quiet
from patchkit.patch.naming import ENDING

Kind = Literal["added", "replaced", "removed", "withdrawn", "reinstated"]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one patch; `digest` is of its file (its git id where the Hub states no other).

    `reason` is given for a withdrawn one.
    """

    kind: Kind
    path: str
    digest: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """One commit, and what it did to patches; nothing if it changed other files."""

    commit: str
    when: datetime
    authors: tuple[str, ...]
    title: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class _State:
    """The patches of one commit: digest by path, reason by path of those withdrawn."""

    digests: Mapping[str, str]
    reasons: Mapping[str, str]


def log(repo: str, *, limit: int = 20, endpoint: str | None = None) -> tuple[Logged, ...]:
    """List the newest commits of `org/name[@rev]`, newest first, at most `limit`.

    Each needs one request, and a second one where it changed the index. Digests are those that the
    Hub states of the files; reasons come from the index. Raises HubError (AccessDenied,
    HubUnreachable), FormatError for an index that cannot be used.
    """
    ref, api = parse_ref(repo), client(endpoint)
    with translated(ref, "looking at"), quiet():
        commits = list(islice(api.list_repo_commits(ref.repo, revision=ref.revision), limit + 1))
    remotes = [look(api, HubRef(ref.repo, commit.commit_id)) for commit in commits]
    states = _states(api, remotes)
    if len(commits) <= limit:
        states.append(_State({}, {}))
    return tuple(
        Logged(
            commit=commit.commit_id,
            when=commit.created_at,
            authors=tuple(commit.authors),
            title=commit.title,
            changes=tuple(_changes(before, after)),
        )
        for commit, after, before in zip(commits, states, states[1:], strict=False)
    )


def _states(api: HfApi, remotes: list[Remote]) -> list[_State]:
    """What each commit holds; an index that did not change is read once."""
    known: dict[str | None, Mapping[str, str]] = {None: {}}
    states = []
    for remote in remotes:
        file = remote.files.get(INDEX)
        name = None if file is None else file.blob_id or file.sha256
        if name not in known:
            listed = fetch_index(api, remote) or ()
            known[name] = {e.path: e.withdrawn for e in listed if e.withdrawn is not None}
        digests = {
            path: file.sha256 or f"git:{file.blob_id}"
            for path, file in remote.files.items()
            if path.endswith(ENDING)
        }
        states.append(_State(digests, known[name]))
    return states


def _changes(before: _State, after: _State) -> list[Change]:
    changes = []
    for path in sorted({*before.digests, *after.digests}):
        old, new = before.digests.get(path), after.digests.get(path)
        if old != new:
            kind: Kind = "added" if old is None else "removed" if new is None else "replaced"
            changes.append(Change(kind, path, new or old))
        was, now = before.reasons.get(path), after.reasons.get(path)
        if now is not None and was != now:
            changes.append(Change("withdrawn", path, new, now))
        elif now is None and was is not None and old == new:
            changes.append(Change("reinstated", path, new))
    return changes
