"""What taking patches off a folder would do, known from headers and lock alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchkit.apply.lock import (
    Lock,
    LockedBase,
    LockedPatch,
    base_path,
    patch_paths,
    read_lock,
    root_of,
)
from patchkit.errors import BaseMismatch, CheckpointError, FormatError, PatchkitError
from patchkit.patch.naming import ENDING, begins
from patchkit.patch.order import Place, check_order
from patchkit.patch.reader import PatchInfo, read_info
from patchkit.tensors.checkpoint import Checkpoint, Entry
from patchkit.undo import Undo, read_undo

Source = Literal["base", "undo", "estimate"]
"""Where the bytes come from: the base, the undo sidecar, or the inverse rounded once more."""


@dataclass(frozen=True, slots=True)
class RevertPlan:
    """What is put back into which shards.

    `base` is the base, None where it is gone, `undo` the sidecar, None where there is none.
    `reverted` are the patches that come off, `remaining` those that are applied again, in order.
    """

    patched: Checkpoint
    lock: Lock
    source: Source
    base: Checkpoint | None
    undo: Undo | None
    reverted: tuple[LockedPatch, ...]
    remaining: tuple[LockedPatch, ...]

    @property
    def path(self) -> Path:
        """The patched folder."""
        return self.patched.path

    @property
    def shards(self) -> tuple[str, ...]:
        """Files that hold edited tensors."""
        return tuple(sorted({tensor.shard for tensor in self.lock.tensors.values()}))

    @property
    def bytes_restored(self) -> int:
        """Bytes of the edited tensors."""
        return sum(self.patched.tensor(name).info.nbytes for name in self.lock.tensors)

    @property
    def bytes_rewritten(self) -> int:
        """Bytes of the files that hold them."""
        return sum((self.path / shard).stat().st_size for shard in self.shards)

    def entries(self, shard: str) -> tuple[Entry, ...]:
        """Edited tensors of a file, in the order of their places."""
        found = [self.patched.tensor(name) for name in self.lock.tensors]
        inside = [entry for entry in found if entry.shard == shard]
        return tuple(sorted(inside, key=lambda entry: entry.info.start))


def plan_revert(
    folder: str | Path,
    *,
    only: str | Path | None = None,
    base: str | Path | None = None,
    approximate: bool = False,
    allow_missing: bool = False,
) -> RevertPlan:
    """Plan taking all patches off a folder that apply wrote, or `only` one of them.

    `only` is the patch's file, its name, or the beginning of its digest. Bytes come from `base`,
    from the base in the lock, from the undo sidecar, or, if `approximate`, from the inverse; a
    base is recognised here by shapes and types, and by its bytes when it is read. Raises
    CheckpointError where there is nothing to take off or nothing to take it off with, BaseMismatch
    for another base, and for a remaining patch that was made on top of the one that comes off
    unless `allow_missing`; FormatError for a damaged lock or sidecar.
    """
    path = Path(folder)
    lock = read_lock(path)
    if lock is None:
        Checkpoint.open(path)
        raise CheckpointError(
            f"{path} has no lock, so nothing says what would be taken off",
            hint="patchkit revert takes a folder that patchkit apply wrote",
        )
    patched = Checkpoint.open(path)
    for name, locked in lock.tensors.items():
        if (shard := patched.tensor(name).shard) != locked.shard:
            raise CheckpointError(
                f"{path} holds {name} in {shard}, and its lock says {locked.shard}",
                hint="the folder was changed since patchkit apply wrote it: apply again",
            )
    reverted, remaining = _split(path, lock, only)
    if remaining:
        _check_remaining(path, lock, remaining, allow_missing)
    found, reason = _find_base(path, lock, patched, base)
    undo = _read_undo(path, lock, needed=found is None)
    source = _source(path, lock, found, undo, approximate and not remaining, reason)
    return RevertPlan(patched, lock, source, found, undo, reverted, remaining)


def _split(
    path: Path, lock: Lock, only: str | Path | None
) -> tuple[tuple[LockedPatch, ...], tuple[LockedPatch, ...]]:
    """The patches that come off, and those that stay; the last of several that `only` names."""
    if only is None:
        return lock.patches, ()
    wanted = read_info(only).digest if Path(only).is_file() else str(only)
    named = [i for i, patch in enumerate(lock.patches) if _is_named(patch, wanted)]
    if not named:
        carried = ", ".join(Path(patch.path).name for patch in lock.patches)
        raise CheckpointError(
            f"{path} does not carry {only}; it carries {carried}",
            hint="name a patch by its file, its name, or the beginning of its digest",
            details={"wanted": str(only), "carried": [patch.digest for patch in lock.patches]},
        )
    if len({lock.patches[i].digest for i in named}) > 1:
        raise CheckpointError(
            f"{only} names {len(named)} patches of {path}",
            hint="name it by the beginning of its digest: "
            + ", ".join(lock.patches[i].digest[:19] for i in named),
        )
    return (lock.patches[named[-1]],), lock.patches[: named[-1]] + lock.patches[named[-1] + 1 :]


def _is_named(patch: LockedPatch, wanted: str) -> bool:
    name = Path(patch.path).name
    names = {name, name.removesuffix(".safetensors"), name.removesuffix(ENDING)}
    return wanted in names or begins(patch.digest, wanted)


def _check_remaining(
    path: Path, lock: Lock, remaining: tuple[LockedPatch, ...], allow_missing: bool
) -> None:
    """CheckpointError for a remaining patch that is gone, BaseMismatch for one made on top."""
    files = dict(zip(lock.patches, patch_paths(path, lock), strict=True))
    places = [Place(files[p].name, p.digest, _info(files[p], p).metadata) for p in remaining]
    try:
        check_order([] if allow_missing else places)
    except BaseMismatch as error:
        raise BaseMismatch(
            f"{error.message} once that patch is taken off",
            hint="take all patches off, or pass --allow-missing (its facts may not stay)",
            details=error.details,
        ) from error


def _info(file: Path, patch: LockedPatch) -> PatchInfo:
    info = read_info(file) if file.is_file() else None
    if info is None or info.digest != patch.digest:
        raise CheckpointError(
            f"{file.name} ({patch.digest[:15]}…) has to be applied again, and it is "
            + ("gone" if info is None else "another file now"),
            hint=f"put it back at {file}",
            details={"expected": patch.digest, "path": str(file)},
        )
    return info


def _read_undo(path: Path, lock: Lock, *, needed: bool) -> Undo | None:
    """The sidecar, if it is of these patches; one that nobody needs may be damaged."""
    try:
        undo = read_undo(path)
    except FormatError:
        if needed:
            raise
        return None
    fits = undo is not None and undo.patches == tuple(patch.digest for patch in lock.patches)
    return undo if fits else None


def _find_base(
    path: Path, lock: Lock, patched: Checkpoint, base: str | Path | None
) -> tuple[Checkpoint | None, str]:
    """The base to read from; or None, and a sentence that says why there is none."""
    if base is not None:
        found = Checkpoint.open(root_of(Path(base))[0])
        _check_shapes(found, patched, lock)
        return found, ""
    stated = lock.base.path or "atlas"
    try:
        found = Checkpoint.open(base_path(path, lock))
        _check_shapes(found, patched, lock)
    except PatchkitError as error:
        gone = not base_path(path, lock).is_dir()
        why = "is gone" if gone else f"cannot be used: {error.message}"
        return None, f"{path} was made from {stated}, which {why}"
    return found, ""


def _check_shapes(base: Checkpoint, patched: Checkpoint, lock: Lock) -> None:
    for name in lock.tensors:
        wanted, found = patched.tensor(name).info, base.tensor(name).info
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            raise BaseMismatch(
                f"{name} is {wanted.shape} {wanted.dtype} in {patched.path} and {found.shape} "
                f"{found.dtype} in {base.path}",
                details={"tensor": name, "expected": wanted.shape, "found": found.shape},
            )


def _source(
    path: Path,
    lock: Lock,
    base: Checkpoint | None,
    undo: Undo | None,
    approximate: bool,
    reason: str,
) -> Source:
    if base is not None:
        return "base"
    if undo is not None:
        return "undo"
    if approximate:
        return "estimate"
    raise CheckpointError(
        f"{reason}, and it has no undo sidecar",
        hint=f"{_how_to_name(lock.base)}; or patchkit revert {path} --approximate -o NEW for "
        "weights that are near the base's",
        details={"lacks": ["base", "undo"]},
    )


def _how_to_name(base: LockedBase) -> str:
    """How a base that is gone can be given: one from the Hub is fetched again."""
    if base.path is None or base.repo is None or base.revision is None:
        return "name a base with --base"
    return f"fetch it again with --base {base.repo}@{base.revision}"
