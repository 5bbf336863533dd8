"""Fuzz everything that reads what strangers wrote.

    python -m tests.fuzz.run --write benchmarks/results/fuzz.json
    python -m tests.fuzz.run --target lock --executions 5000 --keep crashes

Led by coverage where atheris is installed (`pip install atheris`), by places of errors otherwise.
Each target runs in a process of its own, with a bound on its memory. Ends with status 1 where an
input crashed a target, or took longer than two seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = (
    "reader", "verify", "verify-base", "push", "header", "checkpoint", "lock", "undo", "index",
    "facts", "refs", "card", "signature", "terminal",
)  # fmt: skip
# Of all executions; a slow target gets fewer.
SHARES = dict.fromkeys(NAMES, 1.0) | {
    "reader": 4, "verify": 3, "verify-base": 0.5, "header": 2, "checkpoint": 1.5, "lock": 1.5,
    "undo": 1.5, "index": 1.5, "facts": 2, "card": 0.5, "signature": 0.3,
    "terminal": 0.05,
}  # fmt: skip


def one(name: str, executions: int, seed: int, lead: bool, keep: Path | None) -> None:
    """Fuzz one target and print its row."""
    if lead:
        import atheris

        with atheris.instrument_imports(include=["patchkit"], enable_loader_override=False):
            from tests.fuzz import engine, targets
    else:
        from tests.fuzz import engine, targets
    folder = tempfile.TemporaryDirectory()
    meter = engine.Meter(targets.targets(Path(folder.name))[name], keep)
    for data in meter.target.seeds:
        with contextlib.suppress(*meter.target.errors):
            meter.target.run(data)
    resident, began = engine.limit_memory(), time.perf_counter()

    def finished() -> None:
        peak = engine.peak_memory()
        row = {
            "target": name, **meter.row(), "seconds": round(time.perf_counter() - began, 1),
            "peak_bytes": peak, "peak_bytes_above_start": max(0, peak - resident),
        }  # fmt: skip
        folder.cleanup()
        sys.stdout.write(json.dumps(row) + "\n")

    if lead:
        engine.guided(meter, executions, seed, finished)
    engine.seeded(meter, executions, seed)
    finished()


def child(name: str, options: argparse.Namespace, executions: int, lead: bool) -> dict[str, Any]:
    """One target in a process of its own; a process that dies is a crash too."""
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", name]
    command += ["--executions", str(executions), "--seed", str(options.seed)]
    command += ["--lead"] if lead else []
    command += ["--keep", str(options.keep / name)] if options.keep else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"target"')]
    if rows:
        row: dict[str, Any] = json.loads(rows[-1])
        return row
    return {
        "target": name, "executions": 0, "accepted": 0, "crashes": 1, "hangs": 0, "slowest": 0.0,
        "kinds": {f"status {done.returncode}": done.stderr[-2000:]}, "seconds": 0.0,
        "peak_bytes": 0, "peak_bytes_above_start": 0,
    }  # fmt: skip


def report(rows: list[dict[str, Any]], seed: int, lead: bool) -> dict[str, Any]:
    """All rows, and their sums."""
    from benchmarks.provenance import commit

    return {
        "executions": sum(row["executions"] for row in rows),
        "crashes": sum(row["crashes"] for row in rows),
        "hangs": sum(row["hangs"] for row in rows),
        "hang_seconds": 2.0,
        "slowest_seconds": max(row["slowest"] for row in rows),
        "memory_limit_bytes_above_start": 256 << 20,
        "peak_bytes": max(row["peak_bytes"] for row in rows),
        "peak_bytes_above_start": max(row["peak_bytes_above_start"] for row in rows),
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "seed": seed,
        "led_by_coverage": lead,
        "python": sys.version.split()[0],
        "commit": commit(),
        "targets": rows,
    }


def main() -> int:
    """Run all targets, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=240_000, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=NAMES, action="append", help="only this one")
    parser.add_argument("--keep", type=Path, help="folder for inputs that crash")
    parser.add_argument("--write", type=Path, help="JSON file for the figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--lead", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        one(options.child, options.executions, options.seed, options.lead, options.keep)
        return 0
    lead = importlib.util.find_spec("atheris") is not None
    signing = importlib.util.find_spec("model_signing") is not None
    names = [name for name in options.target or NAMES if signing or name != "signature"]
    whole = sum(SHARES[name] for name in names)
    rows = []
    for name in names:
        executions = round(options.executions * SHARES[name] / whole)
        rows.append(child(name, options, executions, lead))
        line = {key: value for key, value in rows[-1].items() if key != "kinds"}
        sys.stderr.write(f"{json.dumps(line)}\n")
        for kind, text in rows[-1]["kinds"].items():
            sys.stderr.write(f"  {kind}\n{text}\n")
    found = report(rows, options.seed, lead)
    if options.write is not None:
        options.write.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 1 if found["crashes"] or found["hangs"] else 0


if __name__ == "__main__":
    sys.exit(main())
