"""Bringing a patched folder up to date with the series of patches that it carries.

A series is a repository's index, read in order (`docs/series.md`): what follows the last patch that
the folder carries, for the same base and not withdrawn, is fetched, verified and applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.apply import ApplyReport, apply_patches
from patchkit.apply.lock import Lock, base_path, patch_paths, read_lock
from patchkit.errors import CheckpointError, HubError, PatchWithdrawn
from patchkit.events import SILENT, Progress
from patchkit.hub.bases import find_base
from patchkit.hub.index import Listed
from patchkit.hub.listing import find_listed, need_index
from patchkit.hub.pulling import pull
from patchkit.hub.refs import HubRef, parse_ref
from patchkit.hub.wire import client, look
from patchkit.tensors.origin import Origin
from patchkit.tensors.rewrite import UNDO


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What a series has for a folder, at one commit.

    `carried` are patches of the series that the folder has, `steps` those to apply now, in order,
    `left_out` withdrawn ones that are not applied.
    """

    path: Path
    lock: Lock
    repo: str
    revision: str
    carried: tuple[Listed, ...]
    steps: tuple[Listed, ...]
    left_out: tuple[Listed, ...]

    @property
    def bytes_fetched(self) -> int:
        """Bytes of the new patches."""
        return sum(step.bytes for step in self.steps)


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What was done: `applied` is None where there was nothing new."""

    plan: UpdatePlan
    applied: ApplyReport | None


def plan_update(
    folder: str | Path,
    *,
    series: str | None = None,
    to: str | None = None,
    endpoint: str | None = None,
) -> UpdatePlan:
    """Find what follows the last patch of a series that a patched folder carries.

    `series` is `org/name[@rev]`; by default the repository that the folder's patches came from.
    `to` names the last patch to apply. Raises CheckpointError for a folder without a lock, HubError
    where it carries nothing of the series, PatchWithdrawn where a withdrawn patch is needed.
    """
    path = Path(folder)
    lock = read_lock(path)
    if lock is None:
        raise CheckpointError(
            f"{path} has no lock, so nothing says which patches it carries",
            hint="patchkit update takes a folder that patchkit apply wrote",
        )
    ref = _series_of(path, lock) if series is None else replace(parse_ref(series), path=None)
    api = client(endpoint)
    remote = look(api, ref)
    listed = need_index(api, remote)
    carried = {patch.digest for patch in lock.patches}
    first = 1 + max((i for i, e in enumerate(listed) if e.digest in carried), default=-1)
    if not first:
        raise HubError(
            f"{path} carries none of the {len(listed)} patches of {ref.repo}",
            hint=f"patchkit apply {path} hf://{ref.repo}/PATCH -o {path} --yes applies one",
        )
    end = len(listed) if to is None else 1 + listed.index(find_listed(ref.repo, listed, to))
    if end < first and to is not None:
        raise HubError(
            f"{path} carries {listed[first - 1].path}, which comes after {to}",
            hint=f"patchkit revert {path} --only PATCH takes a patch off",
        )
    later = [each for each in listed[first:end] if _fits(each, lock) and each.digest not in carried]
    plan = UpdatePlan(
        path=path,
        lock=lock,
        repo=ref.repo,
        revision=remote.commit,
        carried=tuple(each for each in listed if each.digest in carried),
        steps=tuple(each for each in later if each.withdrawn is None),
        left_out=tuple(each for each in later if each.withdrawn is not None),
    )
    _check_needed(plan)
    return plan


def update(
    plan: UpdatePlan,
    cache_dir: str | Path,
    bases_dir: str | Path,
    *,
    endpoint: str | None = None,
    progress: Progress = SILENT,
) -> UpdateReport:
    """Fetch the new patches of a plan into `cache_dir` and apply them, all or none.

    The folder is written anew from its base, so that weights are rounded once, and takes the place
    of the old one at the end; `revert` takes patches off it as before. A base or an earlier patch
    that came from the Hub and is gone from here is fetched again, a base into `bases_dir`. Raises
    what `pull` and `apply_patches` raise; the folder is then as it was.
    """
    if not plan.steps:
        return UpdateReport(plan, None)
    patches = [
        pull(
            HubRef(plan.repo, plan.revision, step.path),
            cache_dir,
            endpoint=endpoint,
            progress=progress,
        ).path
        for step in plan.steps
    ]
    _fetch_again(plan, Path(cache_dir), Path(bases_dir), endpoint, progress)
    shards = plan.lock.shards.values()
    applied = apply_patches(
        plan.path,
        patches,
        plan.path,
        overwrite=True,
        file_digests=any(shard.after is not None for shard in shards),
        undo=(plan.path / UNDO).is_file(),
        progress=progress,
    )
    return UpdateReport(plan, applied)


def _series_of(path: Path, lock: Lock) -> HubRef:
    """The repository that all patches from the Hub came from; HubError unless it is one."""
    origins = [Origin.parse(patch.source) for patch in lock.patches if patch.source]
    repos = sorted({origin.repo for origin in origins if origin is not None})
    if len(repos) != 1:
        told = f"come from {', '.join(repos)}" if repos else "do not come from the Hub"
        raise HubError(
            f"the patches of {path} {told}", hint="name the series to follow: --from org/name"
        )
    return HubRef(repos[0])


def _fits(listed: Listed, lock: Lock) -> bool:
    """Whether a patch was made for the base of the folder, as far as the index says."""
    if listed.base.config_digest is not None:
        return listed.base.config_digest == lock.base.config_digest
    return listed.base.repo is None or listed.base.repo == lock.base.repo


def _check_needed(plan: UpdatePlan) -> None:
    """PatchWithdrawn where a step was made on top of a patch that is left out."""
    gone = {each.digest: each for each in plan.left_out}
    for step in plan.steps:
        for digest in step.after:
            if digest in gone:
                raise _needed(plan.repo, step, gone[digest])


def _needed(repo: str, step: Listed, gone: Listed) -> PatchWithdrawn:
    return PatchWithdrawn(
        f"{repo}/{step.path} was made on top of {gone.path}, which was withdrawn: {gone.withdrawn}",
        hint="pass --to with an earlier patch, or ask its owner for one without it",
        details={"patch": step.digest, "digest": gone.digest, "reason": gone.withdrawn},
    )


def _fetch_again(
    plan: UpdatePlan, cache_dir: Path, bases_dir: Path, endpoint: str | None, progress: Progress
) -> None:
    """Bring back what the folder was made from, where it came from the Hub and is gone."""
    base = plan.lock.base
    pinned = base.repo is not None and base.revision is not None
    if base.path is not None and pinned and not base_path(plan.path, plan.lock).is_dir():
        ref = f"hf://{base.repo}@{base.revision}"
        if not (plan.path / UNDO).is_file():
            find_base(ref, bases_dir, endpoint=endpoint, progress=progress)
    for path, origin in _gone(plan):
        pull(
            HubRef(origin.repo, origin.revision, origin.path),
            cache_dir,
            endpoint=endpoint,
            progress=progress,
        )
        if not path.is_file():
            raise CheckpointError(
                f"{plan.path} was made with {path}, which is gone",
                hint=f"patchkit pull {origin} -o {path} puts it back",
            )


def _gone(plan: UpdatePlan) -> Sequence[tuple[Path, Origin]]:
    paths = patch_paths(plan.path, plan.lock)
    found = [
        (path, Origin.parse(patch.source))
        for path, patch in zip(paths, plan.lock.patches, strict=True)
        if patch.source and not path.is_file()
    ]
    return [(path, origin) for path, origin in found if origin is not None]
