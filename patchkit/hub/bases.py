"""A base by its name on the Hub: planned from headers, and only the shards that are needed fetched.

Everything is pinned to a commit. A file is taken from this machine where it is here already, and
compared with what the Hub states before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from patchkit.errors import CheckpointError, FormatError, HubError, HubUnreachable
from patchkit.events import SILENT, Progress, phase
from patchkit.hub.clientcache import cached_repo
from patchkit.hub.quarantine import quarantine
from patchkit.hub.ranges import remote_header, write_outline
from patchkit.hub.refs import HubRef, check_path, parse_ref
from patchkit.hub.shelf import Shelf
from patchkit.hub.store import Store
from patchkit.hub.wire import Remote, cached_file, client, fetch, look
from patchkit.tensors.checkpoint import CONFIG, INDEX, SINGLE, Checkpoint
from patchkit.tensors.refs import on_hub, resolve_base

# Configuration and tokenizer; no code, no pickle, no weights in other formats.
_ENDINGS = frozenset({".json", ".jinja", ".md", ".model", ".safetensors", ".txt"})
_NAMES = frozenset({"LICENSE", "NOTICE"})
_MAX_SMALL = 200_000_000


@dataclass(frozen=True, slots=True)
class FoundBase:
    """A base's folder on this machine; `repo` and commit `revision` if it is from the Hub.

    `bytes_fetched` came over the network for it; `offline` says that the Hub could not be asked
    what the revision stands for now.
    """

    path: Path
    repo: str | None = None
    revision: str | None = None
    bytes_fetched: int = 0
    offline: bool = False


def find_base(
    ref: str | Path,
    cache_dir: str | Path,
    *,
    tensors: Collection[str] | None = None,
    endpoint: str | None = None,
    progress: Progress = SILENT,
) -> FoundBase:
    """Find the folder of a base: `atlas`, a local folder, or `[hf://]org/name[@rev]` on the Hub.

    Of a base on the Hub all files are fetched into `cache_dir`; with `tensors` only the shards that
    hold these, so that other tensors of the folder must not be read (none: for planning, from
    headers that are read by range). The client's own cache is read and never written; a commit that
    is here needs no network, and a branch that was seen before is used as it was where the Hub
    gives no answer. A folder here wins over a name there.

    Raises CheckpointError for a folder that is missing or no safetensors checkpoint, HubError
    (AccessDenied, HubUnreachable), FormatError for bytes that are not what was stated, OutputError.
    """
    if not on_hub(ref):
        return FoundBase(resolve_base(ref))
    named = parse_ref(str(ref))
    if named.path is not None:
        raise HubError(
            f"{named} names a file, and a base is a whole repository",
            hint=f"write {replace(named, path=None)}",
        )
    work = _Work(client(endpoint), Path(cache_dir), progress)
    remote, offline = work.resolve(named)
    shelf = Shelf(work.place(remote.ref, remote.commit))
    shelf.open(remote, stated=not offline)
    fetched = work.bring(shelf, remote, [name for name in remote.files if _is_small(name)])
    shards = _shards(shelf, remote, offline=offline)
    wanted = shards if tensors is None else work.outline(shelf, remote, shards, tensors)
    fetched += work.bring(shelf, remote, wanted)
    complete = all((shelf.whole / name).is_file() for name in shards)
    for name in () if complete else wanted:
        shelf.show(name)
    folder = shelf.whole if complete else shelf.outline
    return FoundBase(folder, remote.ref.repo, remote.commit, fetched, offline)


@dataclass(frozen=True, slots=True)
class _Work:
    """The client, the folder of all bases, and who is told how far it is."""

    api: HfApi
    folder: Path
    progress: Progress

    def place(self, ref: HubRef, commit: str) -> Path:
        """The folder of one commit."""
        return Store(self.folder).place(ref, commit)

    def resolve(self, ref: HubRef) -> tuple[Remote, bool]:
        """The commit that a reference names and its files, and whether the Hub was out of reach."""
        store = Store(self.folder)
        if ref.pinned and (known := self._known(ref, ref.revision)):
            return known, False
        try:
            remote = _useful(look(self.api, ref))
        except HubUnreachable:
            if found := self._known(ref, store.commit(ref)) or cached_repo(ref):
                with suppress(CheckpointError):  # not all of it is there
                    return _useful(found), True
            raise
        except HubError as error:
            raise _unknown(error, ref) from error
        store.remember(ref, remote.commit)
        return remote, False

    def bring(self, shelf: Shelf, remote: Remote, names: Iterable[str]) -> int:
        """Have these files in `whole`; return how many bytes came over the network."""
        missing = [name for name in names if not shelf.has(remote.files[name])]
        missing = [name for name in missing if not _linked(shelf, remote, name)]
        total = sum(remote.files[name].size for name in missing)
        if not missing:
            return 0
        with phase(self.progress, "downloading the base", total, "B") as advance:
            for name in missing:
                with quarantine(self.folder) as folder:
                    shelf.take(remote.files[name], fetch(self.api, remote, name, folder, advance))
        return total

    def outline(
        self, shelf: Shelf, remote: Remote, shards: Collection[str], tensors: Collection[str]
    ) -> set[str]:
        """Have every shard's header in `outline`; return the shards that hold `tensors`."""
        for name in filter(_is_small, remote.files):
            shelf.show(name)
        todo = [name for name in shards if not (shelf.outline / name).is_file()]
        with phase(self.progress, "reading headers", len(todo), "files") as advance:
            for name in todo:
                if shelf.has(remote.files[name]) or _linked(shelf, remote, name):
                    shelf.show(name)
                else:
                    self._head(shelf, remote, name)
                advance(1)
        places = Checkpoint.open(shelf.outline).tensors
        return {places[name].shard for name in tensors if name in places}

    def _head(self, shelf: Shelf, remote: Remote, name: str) -> None:
        _, head = remote_header(self.api, remote, name)
        with quarantine(self.folder) as folder:
            write_outline(folder / name, head, remote.files[name].size)
            (folder / name).replace(shelf.outline / name)

    def _known(self, ref: HubRef, commit: str | None) -> Remote | None:
        return None if commit is None else Shelf(self.place(ref, commit)).listing(ref, commit)


def _useful(remote: Remote) -> Remote:
    """The repository without what no base needs; CheckpointError without safetensors weights."""
    kept = {}
    for name, file in remote.files.items():
        fits = PurePosixPath(name).suffix in _ENDINGS or name in _NAMES
        fits = fits and (not _is_small(name) or file.size <= _MAX_SMALL)
        if fits and "/" not in name and not name.startswith("."):
            kept[check_path(name)] = file
    if CONFIG not in kept or not {SINGLE, INDEX} & kept.keys():
        lacks = CONFIG if CONFIG not in kept else f"{SINGLE} or {INDEX}"
        raise CheckpointError(
            f"{remote.ref.repo} at {remote.commit[:8]} has no {lacks}, so it is no base",
            hint="a base is a repository in the layout that transformers' save_pretrained writes",
        )
    return replace(remote, files=kept)


def _is_small(name: str) -> bool:
    return not name.endswith(".safetensors")


def _shards(shelf: Shelf, remote: Remote, *, offline: bool) -> list[str]:
    """The files that hold the weights; a single one wins over an index."""
    if SINGLE in remote.files:
        return [SINGLE]
    try:
        names = set(json.loads((shelf.whole / INDEX).read_bytes())["weight_map"].values())
        shards = sorted(check_path(name) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{INDEX} of {remote.ref.repo} has no weight_map") from error
    missing = [name for name in shards if name not in remote.files]
    if missing and offline:
        raise HubUnreachable(
            f"{len(missing)} of {len(shards)} shards of {remote.ref} are not on this machine, and "
            "the Hub cannot be reached",
            details={"missing": missing},
        )
    if missing:
        raise CheckpointError(
            f"{remote.ref.repo} at {remote.commit[:8]} lacks {len(missing)} of {len(shards)} "
            f"shards: {', '.join(missing[:5])}",
            details={"missing": missing},
        )
    return shards


def _linked(shelf: Shelf, remote: Remote, name: str) -> bool:
    """Take a file from the client's cache, if it is there and has the right bytes."""
    found = cached_file(replace(remote.at, path=name))
    return found is not None and shelf.link(remote.files[name], found)


def _unknown(error: HubError, ref: HubRef) -> HubError:
    """The same error; for an unknown repository it also says that there is no such folder."""
    cause = error.__cause__
    if not isinstance(cause, RepositoryNotFoundError) or isinstance(cause, GatedRepoError):
        return error
    sentence = f"{error.message}; there is no folder {ref.repo} here either"
    return type(error)(sentence, hint=error.hint, details=error.details)
