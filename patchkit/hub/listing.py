"""The index of a repository at a commit: fetched, and searched for a patch."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import HfApi

from patchkit.errors import FormatError, HubError, PatchWithdrawn
from patchkit.hub.index import INDEX, MAX_BYTES, Listed, read_index
from patchkit.hub.refs import HubRef
from patchkit.hub.wire import Remote, fetch, look
from patchkit.patch.naming import begins, stem


def fetch_index(api: HfApi, remote: Remote) -> tuple[Listed, ...] | None:
    """Read the index of a commit; None if it has none.

    Raises FormatError for one that cannot be used, HubError as `fetch`.
    """
    if INDEX not in remote.files:
        return None
    if (size := remote.files[INDEX].size) > MAX_BYTES:
        raise FormatError(f"{INDEX} has {size} bytes; {MAX_BYTES} are allowed")
    with tempfile.TemporaryDirectory() as folder:
        return read_index(fetch(api, remote, INDEX, Path(folder)).read_bytes())


def need_index(api: HfApi, remote: Remote) -> tuple[Listed, ...]:
    """The same; HubError if there is none."""
    listed = fetch_index(api, remote)
    if listed is None:
        raise HubError(
            f"{remote.ref.repo} has no {INDEX}",
            hint="patchkit push writes one: push the patches again",
        )
    return listed


def find_listed(repo: str, listed: Sequence[Listed], wanted: str) -> Listed:
    """The patch that a path, a name without endings or the beginning of a digest means; HubError.

    Of several with one digest it is the first.
    """
    found = [each for each in listed if wanted in _names(each.path) or begins(each.digest, wanted)]
    if len({each.digest for each in found}) == 1:
        return found[0]
    which = f"lists {len(found)} patches" if found else "lists no patch"
    paths = ", ".join(each.path for each in listed[:5]) or "nothing"
    raise HubError(f"{repo} {which} named {wanted!r:.100}", hint=f"it lists {paths}")


def withdrawn_now(api: HfApi, remote: Remote, here: Sequence[Listed] = ()) -> Mapping[str, str]:
    """Reasons of withdrawn patches by digest: those of a commit's index, and of the branch's now.

    A tag or an older commit was made before a patch was withdrawn, so the main branch is asked.
    """
    listed = list(here)
    if remote.ref.revision is not None:
        main = look(api, HubRef(remote.ref.repo))
        if main.commit != remote.commit:
            listed += fetch_index(api, main) or ()
    return {each.digest: each.withdrawn for each in listed if each.withdrawn is not None}


def refuse_withdrawn(repo: str, path: str, digest: str, reasons: Mapping[str, str]) -> None:
    """PatchWithdrawn, with the reason, if a patch is among those withdrawn."""
    if digest in reasons:
        raise PatchWithdrawn(
            f"{repo}/{path} was withdrawn: {reasons[digest]}",
            hint=f"patchkit log {repo} shows what came after it",
            details={"digest": digest, "reason": reasons[digest]},
        )


def _names(path: str) -> set[str]:
    name = Path(path).name
    return {path, name, name.removesuffix(".safetensors"), stem(name)}
