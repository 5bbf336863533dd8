"""Filling the folder of one run: what stays is copied while what changes is computed.

Copying, hashing and waiting for the disk happen in worker threads, the arithmetic in the caller's.
A shard that is complete and on the disk is entered into the journal.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from patchkit.apply.plan import ApplyPlan, PlannedTensor
from patchkit.events import Progress, phase
from patchkit.tensors.clone import create, fill, hard_link, same_bytes, sync_file
from patchkit.tensors.digests import sha256_of_range
from patchkit.tensors.journal import JOURNAL, Finished, Journal
from patchkit.tensors.rewrite import RangeWriter
from patchkit.tensors.seal import Written, seal
from patchkit.tensors.source import FileSource

_WORKERS = 3  # while one waits for the arithmetic and one for the disk


@dataclass(frozen=True, slots=True)
class Choices:
    """How to write: `link` untouched shards, hash whole files too, `threads` to compute."""

    link: bool = False
    file_digests: bool = False
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Filled:
    """What was written: rewritten shards by name, and how many bytes this run wrote.

    `shared` are untouched shards whose storage is also the base's, `resumed` those that an earlier
    run had finished.
    """

    rewritten: Mapping[str, Finished]
    shared: frozenset[str]
    resumed: frozenset[str]
    bytes_written: int


class ShardWriter:
    """One run: a plan, a folder with its journal, and what the threads tell each other."""

    def __init__(self, plan: ApplyPlan, folder: Path, choices: Choices, progress: Progress) -> None:
        """Take a folder that is empty but for the journal, or holds an earlier run's files."""
        self.plan = plan
        self.folder = folder
        self.choices = choices
        self.progress = progress
        self.journal = Journal.read(folder)
        self._stop = threading.Event()
        self._digests: dict[str, Future[str]] = {}  # of tensors, once their bytes are written

    def write(self) -> Filled:
        """Write every file that is not there yet.

        Raises InvariantError if a value would not be finite, OSError, and FormatError if the base
        cannot be read.
        """
        resumed = self._resumed()
        self._clear(resumed)
        tensors = [tensor for tensor in self.plan.tensors if tensor.entry.shard not in resumed]
        self._digests = {tensor.name: Future() for tensor in tensors}
        names = (*self.plan.rewritten, *self.plan.cloned, *self.plan.others)
        shared = {name: self._place(name) for name in names if name not in resumed}
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                jobs = [pool.submit(self._complete, name, shared[name]) for name in shared]
                self._compute(tensors)
                with phase(self.progress, "copying", len(jobs), "files") as advance:
                    copied = sum(_counted(job, advance) for job in jobs)
            except BaseException:
                self._stop.set()
                for digest in self._digests.values():
                    digest.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return Filled(
            rewritten={name: self.journal.finished[name] for name in self.plan.rewritten},
            shared=frozenset(name for name in self.plan.cloned if shared.get(name)),
            resumed=frozenset(resumed),
            bytes_written=copied + sum(tensor.nbytes for tensor in tensors),
        )

    def _resumed(self) -> set[str]:
        """Shards that an earlier run finished, and that are still what they were."""
        names = [n for n in (*self.plan.rewritten, *self.plan.cloned) if n in self.journal.finished]
        if not names:
            return set()
        with (
            phase(self.progress, "checking finished", len(names), "files") as advance,
            ThreadPoolExecutor(_WORKERS) as pool,
        ):
            found = set()
            for name, kept in zip(names, pool.map(self._is_kept, names), strict=True):
                advance(1)
                if kept:
                    found.add(name)
        return found

    def _is_kept(self, name: str) -> bool:
        entry, tensors = self.journal.finished[name], self._tensors(name)
        if not (self.folder / name).is_file() or {t.name for t in tensors} != entry.parts.keys():
            return False
        if tensors and self.choices.file_digests and entry.digest is None:
            return False
        base, file = FileSource(self.plan.checkpoint.path / name), FileSource(self.folder / name)
        return same_bytes(base, file, leave_out=list(map(_range, tensors))) and all(
            sha256_of_range(file, *_range(tensor)) == entry.parts[tensor.name] for tensor in tensors
        )

    def _clear(self, kept: set[str]) -> None:
        """Remove what an earlier run left half-written, under whatever name."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in kept and path.name != JOURNAL:
                path.unlink()

    def _place(self, name: str) -> bool:
        """Make a file; True if it shares its storage with the base and is complete."""
        source, target = self.plan.checkpoint.path / name, self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if create(source, target):
            return True
        return self.choices.link and name in self.plan.cloned and hard_link(source, target)

    def _complete(self, name: str, shared: bool) -> int:
        """Bring a file to its end and to the disk; return the bytes that were copied."""
        source, target = self.plan.checkpoint.path / name, self.folder / name
        tensors = self._tensors(name)
        digests = {tensor.name: self._digests[tensor.name] for tensor in tensors}
        before = after = None
        if tensors and self.choices.file_digests:
            written = [Written(*_range(t), digests[t.name].result) for t in tensors]
            sealed = seal(source, target, written, shared=shared, check=self._check)
            before, after, copied = sealed.before, sealed.after, sealed.copied
        else:
            ranges = list(map(_range, tensors))
            copied = 0 if shared else fill(source, target, leave_out=ranges, check=self._check)
        parts = {tensor: digest.result() for tensor, digest in digests.items()}
        if (tensors or shared) and not target.samefile(source):  # a hard link is the base's own
            sync_file(target)
        # What is shared and untouched is made again faster than it is looked at.
        if tensors or (name in self.plan.cloned and not shared):
            self.journal.add(name, Finished(after, before, parts))
        return copied

    def _tensors(self, shard: str) -> list[PlannedTensor]:
        return [tensor for tensor in self.plan.tensors if tensor.entry.shard == shard]

    def _compute(self, tensors: list[PlannedTensor]) -> None:
        # Imported here so that a plan, or a refusal, does not wait for torch.
        from patchkit.apply.weights import computing_with, rewrite_tensor

        total = sum(tensor.nbytes for tensor in tensors)
        with (
            phase(self.progress, "rewriting", total, "B") as advance,
            computing_with(self.choices.threads),
        ):
            for tensor in tensors:
                with RangeWriter(self.folder / tensor.entry.shard, sync=False) as writer:
                    digest = rewrite_tensor(
                        self.plan.checkpoint, tensor, self.plan.patches, writer, advance
                    )
                self._digests[tensor.name].set_result(digest)

    def _check(self) -> None:
        if self._stop.is_set():
            raise InterruptedError


def _range(tensor: PlannedTensor) -> tuple[int, int]:
    return tensor.entry.info.start, tensor.entry.info.end


def _counted(job: Future[int], advance: Callable[[int], None]) -> int:
    size = job.result()
    advance(1)
    return size
