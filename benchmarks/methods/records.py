"""Write what `patchkit bench` asks of atlas: `python -m benchmarks.methods.records FOLDER`.

For each split `atlas_SPLIT.json`, records that may be edited, in CounterFact's schema, and
`atlas_retention_SPLIT.json`, prompts and targets about subjects of the other split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.atlas.records import load_records, retention_facts
from benchmarks.testbeds.records import Split

SPLITS: tuple[Split, ...] = ("dev", "test")
PROBES = 1000


def main() -> None:
    """Write the files of both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        records = load_records(split)
        subjects = {record["requested_rewrite"]["subject"] for record in records}
        files = {
            f"atlas_{split}.json": records,
            f"atlas_retention_{split}.json": retention_facts(subjects, PROBES),
        }
        for name, rows in files.items():
            text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
            (folder / name).write_text(text, "utf-8")
            print(f"{folder / name}: {len(rows)}")


if __name__ == "__main__":
    main()
