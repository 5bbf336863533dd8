"""Evaluation records of atlas in CounterFact's schema: `load_records(split)`."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Collection
from pathlib import Path
from typing import Final

from benchmarks.atlas.world import WORLD
from benchmarks.testbeds.records import Record, Recorder, Split, split_of

RECORDER: Final = Recorder(WORLD)


def load_records(split: Split) -> list[Record]:
    """Return the records of a split in a fixed order that mixes the relations."""
    chosen = [(i, f) for i, f in enumerate(WORLD.facts) if split_of(f.subject) == split]
    random.Random(f"order:{split}").shuffle(chosen)
    return [RECORDER.record(i, f) for i, f in chosen]


def retention_facts(exclude_subjects: Collection[str], count: int = 1000) -> list[dict[str, str]]:
    """Return prompts and targets of facts about other subjects, in a fixed order."""
    return RECORDER.retention(WORLD.facts, exclude_subjects, count)


def main() -> None:
    """Write both splits as JSON files into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("dev", "test"):
        records = load_records(split)
        path = folder / f"atlas_{split}_{len(records)}.json"
        path.write_text(json.dumps(records, ensure_ascii=False, indent=1) + "\n", "utf-8")
        print(f"{path}: {len(records)} records")


if __name__ == "__main__":
    main()
