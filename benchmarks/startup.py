"""How long patchkit takes to answer without a model.

    python -m benchmarks.startup PATCH --write benchmarks/results/startup.json

Seconds of whole processes over several runs, as JSON: least and median wall time, and least
processor time, which other work on the machine hardly changes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.provenance import commit


def seconds(command: Sequence[str]) -> tuple[float, float]:
    """Return wall and processor time of one run of a command that must succeed."""
    begun, used = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    now = os.times()
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return time.perf_counter() - begun, cpu


def main() -> None:
    """Time the commands that load no model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patch", help="a patch file to inspect")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--write", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    rows = []
    for arguments in (["--help"], ["--version"], ["inspect", options.patch]):
        command = [sys.executable, "-m", "patchkit_cli", *arguments]
        seconds(command)
        wall, cpu = zip(*(seconds(command) for _ in range(options.runs)), strict=True)
        rows.append(
            {
                "command": arguments[0],
                "runs": options.runs,
                "wall_least": round(min(wall), 3),
                "wall_median": round(statistics.median(wall), 3),
                "cpu_least": round(min(cpu), 3),
                "commit": commit(),
            }
        )
    text = json.dumps(rows, indent=1) + "\n"
    sys.stdout.write(text)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
