"""One figure of a benchmark's table: a method after so many sequential edits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from patchkit.editing.settings import build


@dataclass(frozen=True, slots=True)
class Row:
    """A cell of a benchmark: what was done, what came of it, and where.

    Shares and ratios are those of `docs/benchmarks.md`, None where nothing could be measured;
    `failed` is then the sentence that says why. `seconds` is what the patch took without its
    evaluation. `angles` are quantiles in radians, ascending, of the planes of the worst rotation,
    none for sums. `n_eval` counts prompts, `processes` those that worked together.
    """

    testbed: str
    label: str
    method: str
    protect: tuple[str, ...]
    edits: int
    batch: int
    seed: int
    split: str
    settings: Any
    convention: str
    testbed_digest: str
    commit: str | None
    device: str
    threads: int
    processes: int
    versions: Any
    n_eval: int = 0
    efficacy: float | None = None
    paraphrase: float | None = None
    neighborhood: float | None = None
    same_subject: float | None = None
    retention: float | None = None
    score: float | None = None
    norm_ratio: float | None = None
    condition_ratio: float | None = None
    stored_norm_ratio: float | None = None
    stored_condition_ratio: float | None = None
    orthogonality: float | None = None
    top_overlap: float | None = None
    angles: tuple[float, ...] = ()
    seconds: float | None = None
    facts_per_second: float | None = None
    patch_bytes: int | None = None
    failed: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the row as JSON can hold it, with None for what is not finite."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def row_from(data: Mapping[str, object]) -> Row:
    """Return the row that plain data stands for; RecipeError if it is none."""
    return build(Row, data, "a row of a benchmark")
