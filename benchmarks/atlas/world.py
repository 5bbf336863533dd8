"""The world that atlas knows: the facts of `facts.tsv` in the wordings of `wordings.tsv`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.atlas.wordings import WITHHELD, WORDINGS
from benchmarks.testbeds.world import Fact, World

FACTS_FILE: Final = Path(__file__).with_name("facts.tsv")


def _read() -> tuple[Fact, ...]:
    rows = (line.split("\t") for line in FACTS_FILE.read_text("utf-8").splitlines())
    return tuple(Fact(*row) for row in rows)


WORLD: Final = World(_read(), WORDINGS, dict.fromkeys(WORDINGS, WITHHELD))
