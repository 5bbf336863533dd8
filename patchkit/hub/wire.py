"""The Hub through its client: the state of a repository, and files of one commit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token, try_to_load_from_cache
from huggingface_hub.utils import logging
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    tqdm,
)

from patchkit import __version__
from patchkit.errors import AccessDenied, FormatError, HubError
from patchkit.hub.failures import translated
from patchkit.hub.refs import HubRef, is_commit
from patchkit.tensors.digests import bytes_digest, file_digest

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the Hub states it: `sha256` of a large one, `blob_id` as git computes it."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None

    def holds(self, content: Path | bytes) -> bool:
        """Whether this is that content, without fetching it."""
        if isinstance(content, Path):
            if content.stat().st_size != self.size:
                return False
            if self.sha256 is not None:
                return file_digest(content) == self.sha256
            content = content.read_bytes()
        if self.sha256 is not None:
            return bytes_digest(content) == self.sha256
        return git_blob_id(content) == self.blob_id


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository at one commit."""

    ref: HubRef
    commit: str
    private: bool
    files: Mapping[str, RemoteFile]

    @property
    def at(self) -> HubRef:
        """The repository pinned to the commit."""
        return HubRef(self.ref.repo, self.commit)


def client(endpoint: str | None) -> HfApi:
    """The client; who is logged in, and where the Hub is without `endpoint`, is its own affair."""
    return HfApi(endpoint=endpoint, library_name="patchkit", library_version=__version__)


def need_login(doing: str) -> None:
    """AccessDenied unless huggingface_hub finds a login; `doing` begins the sentence."""
    if get_token() is None:
        raise AccessDenied(f"{doing} needs a login", hint="hf auth login")


def look(api: HfApi, ref: HubRef) -> Remote:
    """Resolve a revision to its commit and list the files there.

    Raises HubError, AccessDenied or HubUnreachable; HubError too for an answer without a commit.
    """
    with translated(ref, "looking at"), quiet():
        info = api.model_info(ref.repo, revision=ref.revision, files_metadata=True)
    if not isinstance(info.sha, str) or not is_commit(info.sha):
        raise HubError(f"the Hub names no commit for {ref}")
    if ref.pinned and info.sha != ref.revision:
        raise HubError(f"the Hub gives commit {info.sha} where {ref.revision} was asked for")
    files = {
        file.rfilename: RemoteFile(file.rfilename, file.size or 0, _sha256(file.lfs), file.blob_id)
        for file in info.siblings or ()
    }
    return Remote(ref, info.sha, bool(info.private), files)


def fetch(
    api: HfApi,
    remote: Remote,
    path: str,
    folder: Path,
    advance: Callable[[int], None] = lambda _: None,
) -> Path:
    """Bring one file of a commit into an empty folder and compare it with what the Hub states.

    Raises FormatError where the bytes are not those, whatever the storage sent.
    """
    stated, ref = remote.files[path], HubRef(remote.ref.repo, remote.commit, path)
    found = _download(api, ref, path, folder, advance)
    if not stated.holds(found) and cached_file(ref) is not None:
        # The client copies what its own cache has, damaged or not.
        found = _download(api, ref, path, folder, advance, force=True)
    if not stated.holds(found):
        expected = stated.sha256 or f"blob {stated.blob_id}"
        digest = file_digest(found)
        raise FormatError(
            f"{path} arrived damaged: {digest[:15]}… came, and the Hub states {expected[:15]}…",
            hint="pull it again; if it stays so, tell the owner of the repository",
            details={"expected": expected, "found": digest},
        )
    return found


def _download(
    api: HfApi,
    ref: HubRef,
    path: str,
    folder: Path,
    advance: Callable[[int], None],
    *,
    force: bool = False,
) -> Path:
    """Bring a file of a commit; with `force` never from the client's cache, and not retried."""
    with translated(ref, "pulling"), quiet():
        return Path(
            api.hf_hub_download(
                ref.repo,
                path,
                revision=ref.revision,
                local_dir=folder,
                force_download=force,
                tqdm_class=_meter(advance),
            )
        )


def cached_file(ref: HubRef) -> Path | None:
    """The copy of a file of a commit that the client's own cache has, unverified; None if none."""
    found = try_to_load_from_cache(ref.repo, ref.path or "", revision=ref.revision)
    return Path(found) if isinstance(found, str) else None


def git_blob_id(data: bytes) -> str:
    """Name that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the client's bars and log lines off the terminal, and put its settings back."""
    verbosity, hidden = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity(ERROR)
    if not hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not hidden:
            enable_progress_bars()


def _meter(advance: Callable[[int], None]) -> type[tqdm]:
    """A bar of the client that shows nothing and tells `advance`."""

    class Meter(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            advance(int(n or 0))
            return None

    return Meter


def _sha256(lfs: Any) -> str | None:
    """`sha256:…` of a large file; None for a small one."""
    return None if lfs is None else f"sha256:{lfs.sha256}"
