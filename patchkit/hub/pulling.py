"""From the Hub to this machine: one patch, pinned to a commit, kept only once it is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from patchkit.errors import FormatError, HubError, HubUnreachable
from patchkit.events import SILENT, Progress, phase
from patchkit.hub.index import INDEX, Listed
from patchkit.hub.listing import fetch_index, refuse_withdrawn, withdrawn_now
from patchkit.hub.quarantine import quarantine
from patchkit.hub.refs import HubRef, check_path, parse_ref
from patchkit.hub.sound import FindBase, Sound, sound
from patchkit.hub.store import Store
from patchkit.hub.wire import Remote, client, fetch, look
from patchkit.patch.metadata import PatchMetadata
from patchkit.patch.naming import ENDING
from patchkit.report import Report
from patchkit.signing import MAX_BYTES as MAX_SIGNATURE
from patchkit.signing import SUFFIX


@dataclass(frozen=True, slots=True)
class PullReport:
    """What was pulled: the verified file, where it comes from, and its checks.

    `listed` says whether the repository's index names the patch, None if it was not read this
    time; `cached` whether the bytes were here already, `offline` whether the Hub could not be asked
    what the revision stands for now.
    """

    path: Path
    repo: str
    revision: str
    file: str
    digest: str
    bytes: int
    metadata: PatchMetadata
    checks: Report
    listed: bool | None
    cached: bool
    offline: bool


def pull(
    ref: str | HubRef,
    cache_dir: str | Path,
    *,
    base: str | Path | FindBase | None = None,
    endpoint: str | None = None,
    progress: Progress = SILENT,
) -> PullReport:
    """Bring a patch of `org/name[@rev][/path]` into `cache_dir`, verified.

    The revision is resolved to a commit; the file's sha256 is compared with what the Hub states
    and with the repository's index, then the patch is verified, against the folder `base` too (or
    the one that it finds for the patch's metadata) if given, and only then moved into its place. A
    commit pulled before needs no network, and a revision pulled before is used as it was where the
    Hub gives no answer.

    Raises HubError (AccessDenied, HubUnreachable) for what the Hub does not give, PatchWithdrawn,
    FormatError for bytes that are not what was stated or no patch, BaseMismatch, InvariantError,
    OutputError.
    """
    ref = parse_ref(ref) if isinstance(ref, str) else ref
    store = Store(Path(cache_dir))
    folder = Path(base) if isinstance(base, str) else base
    if ref.pinned and ref.path and (kept := _kept(store, ref, folder, progress, offline=False)):
        return kept
    api = client(endpoint)
    try:
        remote = look(api, ref)
        path = _choose(ref, [path for path in remote.files if path.endswith(ENDING)])
        pinned = HubRef(ref.repo, remote.commit, path)
        report = _kept(store, pinned, folder, progress, offline=False)
        if report is None:
            report = _fetched(api, store, remote, path, folder, progress)
        else:
            refuse_withdrawn(ref.repo, path, report.digest, withdrawn_now(api, remote))
    except HubUnreachable:
        if kept := _kept(store, ref, folder, progress, offline=True):
            return kept
        raise
    store.remember(ref, remote.commit)
    return report


def _kept(
    store: Store, ref: HubRef, base: Path | FindBase | None, progress: Progress, *, offline: bool
) -> PullReport | None:
    """The verified copy on this machine, checked again; None if there is none."""
    commit = store.commit(ref)
    paths = [] if commit is None else store.paths(ref, commit)
    if commit is None or not paths or (ref.path is not None and ref.path not in paths):
        return None
    path = _choose(ref, paths)
    found = store.find(ref, commit, path)
    if found is None:
        return None
    checked = sound(found[0], base, name=path, progress=progress)
    return _report(found[0], HubRef(ref.repo, commit, path), checked, None, True, offline)


def _fetched(
    api: HfApi,
    store: Store,
    remote: Remote,
    path: str,
    base: Path | FindBase | None,
    progress: Progress,
) -> PullReport:
    pinned = HubRef(remote.ref.repo, remote.commit, path)
    with quarantine(store.folder) as folder:
        listed = fetch_index(api, remote)
        entry = _entry(remote, path, listed)
        reasons = withdrawn_now(api, remote, listed or ())
        if entry is not None:  # before anything large is fetched
            refuse_withdrawn(pinned.repo, path, entry.digest, reasons)
        with phase(progress, "downloading", remote.files[path].size, "B") as advance:
            file = fetch(api, remote, path, folder, advance)
        checked = sound(file, base, name=path, progress=progress)
        if entry is not None and entry != Listed.of(path, checked.info):
            raise FormatError(
                f"{path} is not the patch that {INDEX} lists: {checked.info.digest[:15]}… came, "
                f"and {entry.digest[:15]}… is listed with its base",
                hint="tell the owner of the repository",
                details={"expected": entry.digest, "found": checked.info.digest},
            )
        refuse_withdrawn(pinned.repo, path, checked.info.digest, reasons)
        signature = _signature(api, remote, path, folder)
        place = store.keep(pinned, remote.commit, path, file, checked.info.digest)
        if signature is not None:
            store.keep_beside(pinned, remote.commit, path + SUFFIX, signature)
    return _report(place, pinned, checked, entry is not None, False, False)


def _signature(api: HfApi, remote: Remote, path: str, folder: Path) -> Path | None:
    """The signature of a patch, unread; None where there is none, or one too large to be one."""
    found = remote.files.get(path + SUFFIX)
    if found is None or found.size > MAX_SIGNATURE:
        return None
    return fetch(api, remote, found.path, folder)


def _entry(remote: Remote, path: str, listed: Sequence[Listed] | None) -> Listed | None:
    """What the repository's index says of a file; None without an index."""
    if listed is None:
        return None
    found = next((each for each in listed if each.path == path), None)
    if found is None:
        raise FormatError(
            f"{remote.ref.repo} holds {path}, and its {INDEX} does not list it",
            hint="tell the owner of the repository: patchkit push writes both",
        )
    return found


def _choose(ref: HubRef, paths: list[str]) -> str:
    """The file that is meant; HubError unless there is exactly one."""
    where = f"{ref.repo} at {ref.revision or 'main'}"
    if ref.path is not None:
        if not ref.path.endswith(ENDING):
            raise HubError(f"{ref.path} is not a patch: patches end in {ENDING}")
        if ref.path not in paths:
            raise HubError(f"{where} has no file {ref.path}", hint=_names(paths))
        return ref.path
    if len(paths) == 1:
        return check_path(paths[0])
    if not paths:
        raise HubError(f"{where} holds no patch (*{ENDING})")
    raise HubError(
        f"{where} holds {len(paths)} patches; name one of them",
        hint=f"patchkit pull {ref.repo} --file {sorted(paths)[0]}",
        details={"patches": sorted(paths)},
    )


def _names(paths: list[str]) -> str:
    return f"it holds {', '.join(sorted(paths)[:5])}" if paths else "it holds no patch"


def _report(
    place: Path, pinned: HubRef, checked: Sound, listed: bool | None, cached: bool, offline: bool
) -> PullReport:
    return PullReport(
        path=place,
        repo=pinned.repo,
        revision=pinned.revision or "",
        file=pinned.path or "",
        digest=checked.info.digest,
        bytes=checked.info.bytes,
        metadata=checked.info.metadata,
        checks=checked.report,
        listed=listed,
        cached=cached,
        offline=offline,
    )
