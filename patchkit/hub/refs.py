"""What a name on the Hub stands for: a repository, a revision of it, a file in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from patchkit.errors import HubError
from patchkit.tensors.origin import SCHEME

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_REF = re.compile(
    rf"(?:{SCHEME})?(?P<repo>{_PART}/{_PART})"
    r"(?:@(?P<revision>refs/[a-z]+/[\w.-]+|[\w.%-]+))?"
    r"(?:/(?P<path>.+))?"
)
_STEP = r"(?!\.{1,2}(?:/|$))[\w.-]+"
_REVISION = re.compile(rf"{_STEP}(?:/{_STEP})*")
_FILE = re.compile(r"(?:[A-Za-z0-9_][\w.+-]*/)*[A-Za-z0-9_][\w.+-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repository `org/name`, a revision (None is the main branch) and a file (None is any)."""

    repo: str
    revision: str | None = None
    path: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, whose files never change."""
        return self.revision is not None and is_commit(self.revision)

    def __str__(self) -> str:
        """`org/name@rev/path`."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}" + (f"/{self.path}" if self.path else "")


def parse_ref(text: str) -> HubRef:
    """Read `org/name[@rev][/path]`, with or without `hf://`; a slash in `rev` is written %2F.

    Raises HubError for anything else, and for a path that could lead out of a folder.
    """
    match = _REF.fullmatch(text)
    if match is None or ".." in match["repo"] or "--" in match["repo"]:
        raise HubError(
            f"{text!r:.200} is not the name of a repository on the Hub",
            hint="write org/name, org/name@revision or hf://org/name@revision/file",
        )
    revision = unquote(match["revision"]) if match["revision"] else None
    if revision is not None and not _REVISION.fullmatch(revision):
        raise HubError(f"{revision!r:.200} is not the name of a revision")
    path = match["path"]
    return HubRef(match["repo"], revision, None if path is None else check_path(path))


def check_path(path: str) -> str:
    """Return the path of a file in a repository if it is one that is safe to write; HubError."""
    if not _FILE.fullmatch(path) or len(path) > 200:
        raise HubError(f"{path!r:.200} is not a file name that patchkit reads or writes")
    return path


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit id."""
    return _COMMIT.fullmatch(revision) is not None
