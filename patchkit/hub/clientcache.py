"""What huggingface_hub keeps of repositories for other programs: looked at, never written."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from patchkit.hub.refs import HubRef, is_commit
from patchkit.hub.wire import Remote, RemoteFile

_SHA256 = 64
_SHA1 = 40


def cached_repo(ref: HubRef) -> Remote | None:
    """A repository as far as the client's cache knows it, without any network; None if not at all.

    Blobs there are named by the digests that the Hub stated, so that copies can be compared.
    """
    try:
        folder = Path(snapshot_download(ref.repo, revision=ref.revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None
    if not is_commit(folder.name):
        return None
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.is_symlink())
    found = [_stated(path, path.relative_to(folder).as_posix()) for path in paths]
    return Remote(ref, folder.name, False, {file.path: file for file in found if file is not None})


def _stated(path: Path, name: str) -> RemoteFile | None:
    blob = path.resolve().name
    if len(blob) not in (_SHA256, _SHA1):
        return None
    large = len(blob) == _SHA256
    sha256, blob_id = (f"sha256:{blob}", None) if large else (None, blob)
    return RemoteFile(name, path.stat().st_size, sha256, blob_id)
