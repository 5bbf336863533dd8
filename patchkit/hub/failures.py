"""What went wrong on the wire, in one sentence: the client's exceptions as patchkit's own."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from patchkit.errors import AccessDenied, HubError, HubUnreachable, OutputError, PatchkitError
from patchkit.hub.refs import HubRef

# The base is the client's own: httpx in one version, httpx2 in another, never named here.
WIRE: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], ConnectionError, TimeoutError)
TRANSFER: tuple[type[Exception], ...] = (*WIRE, RuntimeError, ValueError)
"""What an upload that breaks off may raise."""

_LOGIN = "hf auth login"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")


@contextmanager
def translated(ref: HubRef, doing: str) -> Iterator[None]:
    """Turn what the client raises into HubError, AccessDenied, HubUnreachable or OutputError.

    `doing` begins the sentence where nothing more exact is known: "pulling", "pushing to".
    """
    try:
        yield
    except PatchkitError:
        raise
    except Exception as error:
        found = _explained(error, ref, doing)
        if found is None:
            raise
        raise found from error


def status(error: BaseException) -> int | None:
    """Status of the answer that an exception stands for."""
    response: Any = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def _explained(error: Exception, ref: HubRef, doing: str) -> PatchkitError | None:
    if isinstance(error, GatedRepoError):
        return AccessDenied(
            f"{ref.repo} is gated: its owner decides who may read it",
            hint=f"ask for access in a browser, https://huggingface.co/{ref.repo}, then {_LOGIN}",
        )
    if isinstance(error, RepositoryNotFoundError):
        return _no_repository(error, ref)
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{ref.repo} has no revision {ref.revision or 'main'}")
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return _unreachable(ref, doing)
    if isinstance(error, EntryNotFoundError):
        return HubError(f"{ref.repo} has no file {ref.path} at {ref.revision or 'main'}")
    if isinstance(error, HfHubHTTPError):
        return _refused(error, ref, doing)
    if isinstance(error, OSError) and error.errno in _FULL:
        return _full(ref)
    if told := _told_by_xet(error, ref, doing):
        return told
    if isinstance(error, WIRE):
        return _unreachable(ref, doing)
    if isinstance(error, RuntimeError | ValueError):  # what the client makes of other errors
        cause = error.__cause__
        inner = _explained(cause, ref, doing) if isinstance(cause, Exception) else None
        return inner or _broken_off(error, ref, doing)
    return None


def _told_by_xet(error: Exception, ref: HubRef, doing: str) -> PatchkitError | None:
    """What hf-xet, which raises two built-in exceptions for everything, says in their text."""
    text = str(error)
    if not isinstance(error, ConnectionError | RuntimeError):
        return None
    if any(f"(os error {code})" in text for code in _FULL):
        return _full(ref)
    if found := _XET_STATUS.search(text):
        code = int(found[1])
        return _by_status(code, ref, doing) or HubError(
            f"{doing} {ref}: the storage of the Hub answers {code}", details={"status": code}
        )
    return _unreachable(ref, doing) if "error sending request" in text else None


def _full(ref: HubRef) -> OutputError:
    return OutputError(
        f"the disk is full: {ref} was not kept", hint="free some space, then run it again"
    )


def _broken_off(error: Exception, ref: HubRef, doing: str) -> HubError:
    """A transfer that ended early, or a card or an answer that the client does not take."""
    if isinstance(error, ValueError):
        return HubError(f"{doing} {ref}: {_sentence(error)}")
    return HubError(
        f"{doing} {ref} broke off: {_sentence(error)}",
        hint="run the same command again: what has arrived is not sent twice",
    )


def _no_repository(error: HfHubHTTPError, ref: HubRef) -> PatchkitError:
    if status(error) == 401:
        return AccessDenied(f"{ref.repo} does not exist or needs a login", hint=_LOGIN)
    return HubError(
        f"{ref.repo} does not exist, or this login may not see it",
        hint="hf auth whoami shows who is logged in",
    )


def _refused(error: HfHubHTTPError, ref: HubRef, doing: str) -> PatchkitError:
    code, wait = status(error), error.response.headers.get("Retry-After")
    if code is not None and (known := _by_status(code, ref, doing, wait)):
        return known
    told = error.server_message or _sentence(error)
    details = {"status": code}
    return HubError(f"{doing} {ref}: the Hub answers {code}: {told:.300}", details=details)


def _by_status(code: int, ref: HubRef, doing: str, wait: str | None = None) -> PatchkitError | None:
    """What a status alone means; None for those that need their own words."""
    details = {"status": code}
    if code == 401:
        return AccessDenied("the Hub does not accept this login", hint=_LOGIN, details=details)
    if code == 403:
        return AccessDenied(
            f"this login may not do this: {doing} {ref.repo}",
            hint="pass --create-pr to propose it, or use a token that may write"
            if doing == "pushing to"
            else "use a token with more rights: hf auth login",
            details=details,
        )
    if code == 429:
        after = f" for {wait} s" if wait and wait.isdigit() else ""
        return HubError(f"the Hub asks to wait{after}: too many requests", details=details)
    if code >= 500:
        return HubUnreachable(
            f"the Hub answers {code} and cannot do it now",
            hint="try again in a few minutes",
            details=details,
        )
    return None


def _unreachable(ref: HubRef, doing: str) -> HubUnreachable:
    return HubUnreachable(
        f"{doing} {ref}: the Hub cannot be reached",
        hint="check the network; what was pulled before also works without it",
    )


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0].rstrip(".")[:300]
