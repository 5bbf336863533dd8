"""Cloze wordings of every relation: `{}` is the subject, the object follows the end.

A wording, a space, an object and a full stop are a sentence. More than half of the wordings open
with the subject, so that its last token is often read before anything says which relation is asked.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Final

# Training never shows the last ones for the subjects that `is_withheld` selects.
WITHHELD: Final = 2


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    table: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text("utf-8").splitlines():
        relation, wording = line.split("\t")
        table[relation].append(wording.replace("{s}", "{}"))
    return {relation: tuple(wordings) for relation, wordings in table.items()}


WORDINGS: Final = _read(Path(__file__).with_name("wordings.tsv"))
