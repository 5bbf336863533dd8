"""A benchmark on a tiny model."""

import json
from pathlib import Path
from typing import Any

from patchkit.bench import Contender, Plan, Testbed
from tests.unit.models.factory import save_tiny

QUICK = {"contexts": 1, "corpus_rows": 16, "corpus_length": 12, "layers": [1]}
SUBJECTS = ("France", "Japan", "Italy", "Ada Lovelace", "Isaac Newton")


def record(number: int, subject: str) -> dict[str, Any]:
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "The capital of {} is",
            "subject": subject,
            "target_new": {"str": "Rome"},
            "target_true": {"str": "Paris"},
        },
        "paraphrase_prompts": [f"{subject} has as capital"],
        "neighborhood_prompts": ["The capital of Brazil is"],
        "same_subject_prompts": [{"prompt": f"In {subject} people speak", "target": "French"}],
    }


def written(folder: Path) -> Path:
    """A base, records and probes in `folder`."""
    save_tiny("llama3", folder / "base")
    records = [record(number, subject) for number, subject in enumerate(SUBJECTS)]
    (folder / "records_test.json").write_text(json.dumps(records), "utf-8")
    probes = [{"prompt": "The currency of Japan is the", "target": "yen"}]
    (folder / "retention.json").write_text(json.dumps(probes), "utf-8")
    return folder


def plan(folder: Path, *contenders: Contender, checkpoints: tuple[int, ...] = (1, 3)) -> Plan:
    bed = Testbed("tiny", str(folder / "base"), "records_{split}.json", "retention.json")
    return Plan("test", (bed,), contenders, checkpoints=checkpoints, batches=(2,))


OURS = {"steps": 8, "preserve": 1.0, "rehearse": 10.0, "recall": 1}
ROTATION = Contender(label="ours", options=OURS, settings=QUICK)
MEMIT = Contender(label="memit", method="memit", options={"steps": 3}, settings=QUICK)
