"""Withdrawing a published patch: its file stays, the index says why nobody should use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.errors import HubError
from patchkit.hub.card import Subject, changed_card
from patchkit.hub.delivering import Wish, deliver
from patchkit.hub.index import INDEX, Listed, check_reason, read_index, write_index
from patchkit.hub.listing import find_listed, need_index
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.wire import Remote, client, look, need_login

_TITLE = 200  # characters of a commit's title


@dataclass(frozen=True, slots=True)
class YankReport:
    """Which patch is withdrawn now, or no longer (`reason` is None), and in which commit.

    `changed` is False where it was so already.
    """

    repo: str
    url: str
    commit: str | None
    path: str
    digest: str
    reason: str | None
    changed: bool
    pull_request: str | None


def yank(
    repo: str,
    patch: str,
    reason: str | None,
    *,
    create_pr: bool = False,
    endpoint: str | None = None,
) -> YankReport:
    """Mark a patch of `org/name[@branch]` as withdrawn, for `reason`; None takes that back.

    `patch` is a path, a name without endings, or the beginning of a digest. `pull` and `update`
    refuse a withdrawn patch. Raises HubError (AccessDenied, HubUnreachable) for what the Hub does
    not take and for a name that the index does not list, FormatError for a bad index or reason.
    """
    ref = replace(parse_ref(repo), path=None)
    if reason is not None:
        check_reason(reason, "the reason")
    need_login(f"changing {ref.repo}")
    api = client(endpoint)
    remote = look(api, ref)
    listed = find_listed(ref.repo, need_index(api, remote), patch)
    message = f"Withdraw {listed.path}: {reason}" if reason else f"Reinstate {listed.path}"
    done = deliver(api, _Mark(ref, listed, reason), remote, Wish(message[:_TITLE], create_pr))
    return YankReport(
        repo=ref.repo,
        url=f"{api.endpoint}/{ref.repo}",
        commit=done.commit,
        path=listed.path,
        digest=listed.digest,
        reason=reason,
        changed=bool(done.files),
        pull_request=done.pull_request,
    )


@dataclass(frozen=True, slots=True)
class _Mark:
    """An index, and a card, in which one patch is withdrawn or no longer so."""

    ref: HubRef
    listed: Listed
    reason: str | None

    @property
    def digests(self) -> Mapping[str, str]:
        """Nothing here was verified before."""
        return {}

    def files(self, remote: Remote | None, known: Mapping[str, bytes]) -> dict[str, Path | bytes]:
        """Index and card where they do not say so yet; HubError if the patch is gone meanwhile."""
        old = read_index(known.get(INDEX, b""))
        if self.listed.digest not in {each.digest for each in old}:
            raise HubError(f"{self.ref.repo} no longer lists {self.listed.path}")
        marked = [
            replace(each, withdrawn=self.reason) if each.digest == self.listed.digest else each
            for each in old
        ]
        files: dict[str, Path | bytes] = {}
        if marked != list(old):
            files[INDEX] = write_index(marked)
        return {**files, **changed_card(known, Subject(self.ref.repo, marked, {}))}
