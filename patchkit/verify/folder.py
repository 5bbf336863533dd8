"""Checks of a patched folder: it holds what its lock says, and that is what the patches make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchkit.apply.lock import Lock, read_lock, root_of
from patchkit.errors import CheckpointError, FormatError, PatchkitError
from patchkit.events import SILENT, Progress, phase
from patchkit.patch.patch import Patch
from patchkit.report import Check, Report
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify.prediction import Prediction, difference, predictions, unlike


def verify_folder(folder: str | Path, *, progress: Progress = SILENT) -> Report:
    """Check lock, digest, base-match, patched-match and unchanged for a folder that apply wrote.

    `patched-match` computes every edited tensor again in fp64 from the base and the patches that
    the lock names, and allows one unit in the last place or 1e-6 of the row's rms; `unchanged`
    compares all other tensors bit by bit. Where base or patches are gone these are skipped and say
    so. Raises CheckpointError for a folder without a lock or without usable weights.
    """
    path = Path(folder)
    patched = Checkpoint.open(path)
    try:
        lock = read_lock(path)
    except FormatError as error:
        rest = _skipped("the lock could not be read", "digest", *_NEED_BASE)
        return Report((Check("lock", None, None, False, error.message), *rest))
    if lock is None:
        raise CheckpointError(
            f"{path} has no lock, so nothing says what it was made from",
            hint="patchkit verify PATCH --base FOLDER checks a patch",
        )
    own = (
        Check("lock", len(lock.patches), None, True, "patches applied"),
        _recorded("digest", patched, {name: t.after for name, t in lock.tensors.items()}),
    )
    return Report((*own, *_against_base(path, patched, lock, progress)))


_NEED_BASE = ("base-match", "patched-match", "unchanged")


def _against_base(
    path: Path, patched: Checkpoint, lock: Lock, progress: Progress
) -> tuple[Check, ...]:
    try:
        root, files = root_of(path)
        base = Checkpoint.open(root)
        wanted = predictions([Patch.read(file) for file in files])
    except PatchkitError as error:
        return _skipped(error.message, *_NEED_BASE)
    return (
        _recorded("base-match", base, {name: t.before for name, t in lock.tensors.items()}),
        _patched_match(base, patched, wanted, progress),
        _unchanged(base, patched, wanted, progress),
    )


def _recorded(check: str, checkpoint: Checkpoint, digests: Mapping[str, str]) -> Check:
    """Compare digests of some tensors with those the lock records."""
    wrong: dict[str, str] = {}
    for name, expected in digests.items():
        if name not in checkpoint.tensors:
            wrong[name] = "is missing"
        elif (found := checkpoint.digest(name)) != expected:
            wrong[name] = f"should have {expected[:15]}…, found {found[:15]}…"
    return _verdict(check, wrong, len(digests))


def _patched_match(
    base: Checkpoint, patched: Checkpoint, wanted: Mapping[str, Prediction], progress: Progress
) -> Check:
    wrong: dict[str, str] = {}
    with phase(progress, "comparing edited tensors", len(wanted), "tensors") as advance:
        for name, prediction in wanted.items():
            if problem := difference(base, patched, name, prediction):
                wrong[name] = problem
            advance(1)
    return _verdict("patched-match", wrong, len(wanted))


def _unchanged(
    base: Checkpoint, patched: Checkpoint, wanted: Mapping[str, Prediction], progress: Progress
) -> Check:
    names = sorted((base.tensors.keys() | patched.tensors.keys()) - wanted.keys())
    wrong: dict[str, str] = {}
    with phase(progress, "comparing other tensors", len(names), "tensors") as advance:
        for name in names:
            if problem := unlike(base, patched, name):
                wrong[name] = problem
            elif base.digest(name) != patched.digest(name):
                wrong[name] = "has other bytes than in the base"
            advance(1)
    return _verdict("unchanged", wrong, len(names))


def _verdict(check: str, wrong: Mapping[str, str], total: int) -> Check:
    tensor = next(iter(wrong), None)
    detail = f"{tensor} {wrong[tensor]}" if tensor else "tensors"
    return Check(check, total - len(wrong), total, not wrong, detail, tensor)


def _skipped(reason: str, *names: str) -> tuple[Check, ...]:
    return tuple(Check(name, None, None, True, reason, skipped=True) for name in names)
