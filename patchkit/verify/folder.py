"""Checks of a patched folder: it holds what its lock says, and that is what the patches make."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.apply.lock import Lock, read_lock, root_of
from patchkit.errors import CheckpointError, FormatError, PatchkitError
from patchkit.events import SILENT, Progress, phase
from patchkit.facts.jsonl import parse_jsonl
from patchkit.models import atlas_path
from patchkit.patch.filestack import FileStack
from patchkit.report import Check, Report
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from patchkit.tensors.rewrite import LOCK
from patchkit.tensors.source import FileSource
from patchkit.undo import read_undo
from patchkit.undo.restoring import interrupted
from patchkit.verify.prediction import difference, same_bytes, unlike
from patchkit.verify.suspect import header_difference, suspect_in_lock

_OF_BASE = ("base-match", "patched-match", "unchanged")
_OF_WEIGHTS = ("digest", *_OF_BASE)
_OF_MORE = ("undo", "facts")


@dataclass(frozen=True, slots=True)
class _Origin:
    """The base behind a folder and the patches that lead from it, as the lock names them."""

    base: Checkpoint
    stack: FileStack


def verify_folder(
    folder: str | Path, *, behaviour: bool = False, progress: Progress = SILENT
) -> Report:
    """Check lock, shards, digest, base-match, patched-match, unchanged, undo and facts.

    `patched-match` computes every edited tensor again in fp64 from the base and the patches that
    the lock names, and allows one unit in the last place or 1e-6 of the row's rms; `unchanged`
    compares all other tensors, and `shards` the headers, byte for byte. Where base or patches are
    gone these are skipped and say so. `facts` asks the model, with `behaviour`. Raises
    CheckpointError for a folder without a lock.
    """
    path = Path(folder)
    if not (path / LOCK).is_file():
        Checkpoint.open(path)
        raise CheckpointError(
            f"{path} has no lock, so nothing says what it was made from",
            hint="patchkit verify PATCH --base FOLDER checks a patch",
        )
    try:
        lock = read_lock(path)
    except FormatError as error:
        return _without_lock(path, error.message)
    assert lock is not None
    origin = _origin(path)
    try:
        patched = Checkpoint.open(path)
    except (FormatError, CheckpointError) as error:
        return _without_weights(path, lock, origin, error.message)
    return Report((
        _lock_check(path, lock),
        _shards(path, lock, origin),
        _recorded("digest", patched, {name: t.after for name, t in lock.tensors.items()}),
        *_against_base(patched, lock, origin, progress),
        _undo(path, lock),
        _facts(patched, origin, behaviour, progress),
    ))  # fmt: skip


def _origin(path: Path) -> _Origin | str:
    try:
        root, files = root_of(path)
        return _Origin(Checkpoint.open(root), FileStack.open(files))
    except PatchkitError as error:
        return error.message


def _without_lock(path: Path, sentence: str) -> Report:
    """All checks of a folder whose lock cannot be believed; it still names a suspect tensor."""
    tensor = None
    with suppress(PatchkitError):
        source, patched = FileSource(path / LOCK), Checkpoint.open(path)
        text = source.read(0, source.size).decode("utf-8", "replace")
        tensor = suspect_in_lock(text, patched, _stated_base(path, text))
    detail = f"{sentence}; it is wrong about {tensor}" if tensor else sentence
    rest = _skipped("the lock could not be read", "shards", *_OF_WEIGHTS, *_OF_MORE)
    return Report((Check("lock", None, None, False, detail, tensor), *rest))


def _stated_base(path: Path, lock: str) -> Checkpoint | None:
    """The base that a lock names, damaged or not, if it is there."""
    try:
        stated = json.loads(lock)["base"]["path"]
        return Checkpoint.open(atlas_path() if stated is None else path / stated)
    except (PatchkitError, TypeError, KeyError, ValueError, RecursionError, OSError):
        return None


def _without_weights(path: Path, lock: Lock, origin: _Origin | str, sentence: str) -> Report:
    """All checks of a folder with a header that cannot be read."""
    shards = _shards(path, lock, origin)
    if shards.ok:
        shards = replace(shards, ok=False, detail=sentence, skipped=False)
    failed = (
        Check(name, None, None, False, "the weights could not be read") for name in _OF_WEIGHTS
    )
    return Report((_lock_check(path, lock), shards, *failed, *_skipped(sentence, *_OF_MORE)))


def _lock_check(path: Path, lock: Lock) -> Check:
    if interrupted(path):
        detail = f"a revert was interrupted; patchkit revert {path} completes it"
        return Check("lock", len(lock.patches), None, False, detail)
    return Check("lock", len(lock.patches), None, True, "patches applied")


def _shards(path: Path, lock: Lock, origin: _Origin | str) -> Check:
    """Headers are the base's; where that is gone, rewritten files are as they were written."""
    if isinstance(origin, _Origin):
        return _headers(path, origin.base)
    wrong: dict[str, str] = {}
    recorded = {name: shard.after for name, shard in lock.shards.items() if shard.after is not None}
    for name, expected in recorded.items():
        found = file_digest(path / name) if (path / name).is_file() else "nothing"
        if found != expected:
            wrong[name] = f"should have {expected[:15]}…, found {found[:15]}…"
    first = next(iter(wrong), None)
    detail = f"{first} {wrong[first]}" if first else "rewritten files"
    return Check("shards", len(recorded) - len(wrong), len(recorded), not wrong, detail)


def _headers(path: Path, base: Checkpoint) -> Check:
    wrong: list[tuple[str, str | None]] = []
    for shard, header in base.shards.items():
        if not (path / shard).is_file():
            wrong.append((f"{shard} is missing", None))
        elif different := header_difference(base.path / shard, path / shard, header):
            position, tensor = different
            place = f", where it describes {tensor}" if tensor else ""
            wrong.append((f"{shard} has another header from byte {position} on{place}", tensor))
    detail, tensor = wrong[0] if wrong else ("headers", None)
    total = len(base.shards)
    return Check("shards", total - len(wrong), total, not wrong, detail, tensor)


def _against_base(
    patched: Checkpoint, lock: Lock, origin: _Origin | str, progress: Progress
) -> tuple[Check, ...]:
    if isinstance(origin, str):
        return _skipped(origin, *_OF_BASE)
    return (
        _recorded("base-match", origin.base, {name: t.before for name, t in lock.tensors.items()}),
        _patched_match(origin, patched, progress),
        _unchanged(origin, patched, progress),
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


def _patched_match(origin: _Origin, patched: Checkpoint, progress: Progress) -> Check:
    wrong: dict[str, str] = {}
    names = origin.stack.names
    with phase(progress, "comparing edited tensors", len(names), "tensors") as advance:
        for name in names:
            if problem := difference(origin.base, patched, name, origin.stack):
                wrong[name] = problem
            advance(1)
    return _verdict("patched-match", wrong, len(names))


def _unchanged(origin: _Origin, patched: Checkpoint, progress: Progress) -> Check:
    base, edited = origin.base, set(origin.stack.names)
    names = sorted((base.tensors.keys() | patched.tensors.keys()) - edited)
    wrong: dict[str, str] = {}
    with phase(progress, "comparing other tensors", len(names), "tensors") as advance:
        for name in names:
            if problem := unlike(base, patched, name):
                wrong[name] = problem
            elif not same_bytes(base, patched, name):
                wrong[name] = "has other bytes than in the base"
            advance(1)
    return _verdict("unchanged", wrong, len(names))


def _undo(path: Path, lock: Lock) -> Check:
    """The sidecar is whole, and of these patches."""
    try:
        undo = read_undo(path)
    except FormatError as error:
        return Check("undo", None, len(lock.tensors), False, error.message)
    if undo is None:
        return _skipped("made without --undo", "undo")[0]
    if undo.patches != tuple(patch.digest for patch in lock.patches):
        return Check("undo", None, len(lock.tensors), False, "it takes back other patches")
    wrong = dict.fromkeys(undo.damaged(), "has damaged corrections")
    wrong |= dict.fromkeys(lock.tensors.keys() - undo.tensors.keys(), "has no corrections")
    return _verdict("undo", wrong, len(lock.tensors))


def _facts(
    patched: Checkpoint, origin: _Origin | str, behaviour: bool, progress: Progress
) -> Check:
    if not behaviour:
        return _skipped("needs --behaviour", "facts")[0]
    if isinstance(origin, str):
        return _skipped(origin, "facts")[0]
    # Imported here, because checks of bytes need no model.
    from patchkit.base import load_model, load_tokenizer
    from patchkit.verify.behaviour import facts_check

    texts = [info.facts_jsonl for info in origin.stack.infos if info.facts_jsonl is not None]
    facts = [fact for text in texts for fact in parse_jsonl(text).facts]
    metadata = [info.metadata for info in origin.stack.infos]
    model, tokenizer = load_model(patched.path), load_tokenizer(patched.path)
    return facts_check(model, tokenizer, facts, metadata, progress)


def _verdict(check: str, wrong: Mapping[str, str], total: int) -> Check:
    tensor = next(iter(wrong), None)
    detail = f"{tensor} {wrong[tensor]}" if tensor else "tensors"
    return Check(check, total - len(wrong), total, not wrong, detail, tensor)


def _skipped(reason: str, *names: str) -> tuple[Check, ...]:
    return tuple(Check(name, None, None, True, reason, skipped=True) for name in names)
