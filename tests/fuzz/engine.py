"""Running one target many times: what it raised, how long it took, how much memory it held."""

from __future__ import annotations

import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import LONGEST
from tests.fuzz.targets import Target

HANG = 2.0
"""Seconds of processor time that one execution may take."""

MEMORY = 256 << 20
"""Bytes of data that a process may have above what it had once every seed was read."""

_POOL = 400


@dataclass
class Meter:
    """A target under observation; crashes and hangs are counted, and kept once for each kind."""

    target: Target
    keep: Path | None = None
    executions: int = 0
    accepted: int = 0
    crashes: int = 0
    hangs: int = 0
    slowest: float = 0.0
    kinds: dict[str, str] = field(default_factory=dict)

    def execute(self, data: bytes) -> str:
        """Run the target once; return what became of the input, and where in the code."""
        began = time.process_time()
        try:
            self.target.run(data)
            outcome = "accepted"
            self.accepted += 1
        except self.target.errors as error:
            outcome = _place(error)
        except (Exception, RecursionError) as error:
            outcome = _place(error)
            self.crashes += 1
            self._keep(outcome, data, traceback.format_exc())
        used = time.process_time() - began
        self.executions += 1
        self.slowest = max(self.slowest, used)
        if used > HANG:
            self.hangs += 1
            self._keep(f"hang {outcome}", data, f"{used:.1f} s")
        return outcome

    def _keep(self, kind: str, data: bytes, text: str) -> None:
        if kind not in self.kinds:
            self.kinds[kind] = text
            if self.keep is not None:
                self.keep.mkdir(parents=True, exist_ok=True)
                (self.keep / f"{len(self.kinds)}.bin").write_bytes(data)

    def row(self) -> dict[str, Any]:
        """The figures, as JSON can hold them."""
        row = {key: value for key, value in self.__dict__.items() if key not in ("target", "keep")}
        return row | {"kinds": dict(self.kinds), "slowest": round(self.slowest, 3)}


def seeded(meter: Meter, executions: int, seed: int) -> None:
    """Mutate seeds, and inputs that ended at a new place, with a seeded generator."""
    random, target = Random(seed), meter.target
    pool, seen = list(target.seeds), {meter.execute(data) for data in target.seeds}
    while meter.executions < executions:
        data = random.choice(pool)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            data = random.choice(target.mutations)(random, data)
        outcome = meter.execute(data)
        if outcome not in seen:
            seen.add(outcome)
            pool[len(target.seeds) :] = [*pool[len(target.seeds) :], data][-_POOL:]


def guided(meter: Meter, executions: int, seed: int, finished: Callable[[], None]) -> None:
    """The same, led by the coverage that atheris measures; ends the process after `finished`."""
    import atheris

    target = meter.target

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return bytes(atheris.Mutate(data, longest))
        source = data if random.random() < 0.7 else random.choice(target.seeds)
        return random.choice(target.mutations)(random, source)[:longest]

    def once(data: bytes) -> None:
        meter.execute(target.seeds[meter.executions] if meter.executions < first else data)
        if meter.executions >= executions:
            finished()
            sys.stdout.flush()
            os._exit(0)

    first = len(target.seeds)
    # libFuzzer's own limits are wider: the meter's come first, and name the input.
    flags = [f"-seed={seed + 1}", f"-max_len={LONGEST}", "-rss_limit_mb=0", "-timeout=3600"]
    atheris.Setup(["fuzz", *flags, "-verbosity=0"], once, custom_mutator=mutate)
    atheris.Fuzz()


def limit_memory() -> int:
    """Let allocations beyond MEMORY fail from now on; return the resident bytes of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    used = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if "kB" in line}
    limit = (int(used["VmData"]) << 10) + MEMORY
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return int(used["VmRSS"]) << 10


def peak_memory() -> int:
    """Most resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _place(error: BaseException) -> str:
    """Type of an exception and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(error).__name__
    return (
        f"{type(error).__name__} {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    )
