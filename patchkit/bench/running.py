"""Run a benchmark: sequences of edits, each looked at on its way, every cell kept on disk."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from patchkit import __version__
from patchkit.bench import kept
from patchkit.bench.bed import Bed, Judge
from patchkit.bench.cells import Cells, name_of, plain
from patchkit.bench.plan import Plan, Run, runs
from patchkit.bench.row import Row
from patchkit.bench.spectra import spectra
from patchkit.editing import Stage, edit_sequence
from patchkit.editing.layers import MOST_FACTS
from patchkit.errors import InvariantError, SolveError
from patchkit.events import SILENT, Progress, phase
from patchkit.facts.fact import Fact
from patchkit.parallel import ALONE, Workers

_FIGURES = ("efficacy", "paraphrase", "neighborhood", "same_subject", "retention", "score")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a benchmark runs and writes.

    `data` holds the testbeds' records, `folder` gets the cells, `cache_dir` keeps preserved text
    and statistics. `commit` names the code in the rows, and nothing else. Without `measure`, only
    cells that `folder` holds already give rows.
    """

    data: Path
    folder: Path
    device: str = "cpu"
    dtype: str = "auto"
    commit: str | None = None
    measure: bool = True
    cache_dir: Path | None = None
    workers: Workers = ALONE
    progress: Progress = SILENT


def run_plan(plan: Plan, setting: Setting) -> tuple[Row, ...]:
    """Measure every cell of `plan` that `setting.folder` does not hold yet and return all rows.

    A sequence that was interrupted goes on from its last checkpoint. One that fails (no solution,
    weights that are not finite) gives rows that say so. Raises RecipeError, FactsError,
    CheckpointError and OutputError for a plan that cannot run.
    """
    listed = list(runs(plan))
    rows: list[Row] = []
    total = sum(len(run.checkpoints) for run in listed)
    with phase(setting.progress, "benchmark", total, "cells") as advance:
        for bed, run, judges in _with_beds(plan, listed, setting):
            rows += _Sequence.of(bed, run, plan.split, setting, judges).rows()
            advance(len(run.checkpoints))
    return tuple(rows)


def _with_beds(
    plan: Plan, listed: list[Run], setting: Setting
) -> Iterator[tuple[Bed, Run, dict[object, Judge]]]:
    """Yield every run with its testbed, of which one at a time is in memory, and its judges."""
    for testbed in plan.testbeds:
        mine = [run for run in listed if run.testbed == testbed]
        if mine:
            bed = Bed.load(testbed, plan.split, setting.data, setting.device, setting.dtype)
            judges: dict[object, Judge] = {}
            yield from ((bed, run, judges) for run in mine)


@dataclass(frozen=True, slots=True, eq=False)
class _Sequence:
    """One run on its testbed."""

    bed: Bed
    run: Run
    facts: tuple[Fact, ...]
    counts: tuple[int, ...]
    split: str
    setting: Setting
    cells: Cells
    judges: dict[object, Judge]

    @classmethod
    def of(
        cls, bed: Bed, run: Run, split: str, setting: Setting, judges: dict[object, Judge]
    ) -> _Sequence:
        facts = bed.draw(run.seed, run.checkpoints[-1])
        counts = tuple(sorted({min(count, len(facts)) for count in run.checkpoints}))
        cells = Cells.within(setting.folder)
        return cls(bed, run, facts, counts, split, setting, cells, judges)

    def rows(self) -> list[Row]:
        """Return the row of every checkpoint, measured now where it was not before and may be."""
        workers = self.setting.workers
        found: dict[int, Row] = {}
        for count in self.counts:
            row = self.cells.find(self.key(count))
            if workers.agree(row is not None) and row is not None:
                found[count] = replace(row, testbed=self.bed.name, label=self.run.label)
        missing = [count for count in self.counts if count not in found]
        if missing and self.setting.measure:
            found |= self._measured(missing)
        if workers.first and len(found) == len(self.counts):
            self._state.unlink(missing_ok=True)
        return [found[count] for count in self.counts if count in found]

    def _measured(self, missing: list[int]) -> dict[int, Row]:
        made: dict[int, Row] = {}
        judge = self._judge()
        try:
            for stage in self._stages(missing):
                made[stage.edits] = self._keep(stage.edits, self._figures(stage, judge))
                if self.setting.workers.first and stage.edits < missing[-1]:
                    kept.keep(self._state, stage.written, self.facts)
        except (SolveError, InvariantError) as error:
            for count in missing:
                if count not in made:
                    made[count] = self._keep(count, {"failed": error.message})
        return made

    def _judge(self) -> Judge:
        """Return what the base says of these facts, asked once for all methods."""
        key = (self.run.seed, len(self.facts))
        if key not in self.judges:
            self.judges[key] = Judge.of(self.bed, self.facts, self.setting.workers)
        return self.judges[key]

    def _stages(self, missing: list[int]) -> Iterator[Stage]:
        setting = self.setting
        state = kept.find(self._state, self.facts)
        usable = state is not None and state.count <= missing[0]
        start = state.restore if setting.workers.agree(usable) and state is not None else None
        return edit_sequence(
            self.bed.model, self.bed.tokenizer, self.facts, missing,
            checkpoint=self.bed.checkpoint, recipe=self.run.recipe, corpus=self.bed.corpus,
            cache_dir=setting.cache_dir, start=start, workers=setting.workers,
            progress=setting.progress,
        )  # fmt: skip

    @property
    def _state(self) -> Path:
        """The file of an interrupted sequence."""
        return self.setting.folder / "states" / f"{name_of(self.key(None))}.safetensors"

    def key(self, edits: int | None) -> dict[str, object]:
        """Return everything that decides a cell, or with None the sequence it belongs to."""
        return {
            "edits": edits,
            "measured_on": min(MOST_FACTS, len(self.facts)),  # what layers are chosen by
            "recipe": self.run.recipe.as_dict(),
            "seed": self.run.seed,
            "split": self.split,
            "testbed": self.bed.digest,
            "device": self.bed.model.device.type,
            "dtype": str(self.bed.model.dtype),
            "patchkit": __version__,
            "torch": torch.__version__,
        }

    def _figures(self, stage: Stage, judge: Judge) -> dict[str, Any]:
        metrics, asked = judge.judge(stage.patch, stage.edits)
        return {
            **{name: metrics.value(name) for name in _FIGURES},  # type: ignore[arg-type]
            **asdict(spectra(self.bed.model, stage.patch)),
            "n_eval": asked,
            "seconds": round(stage.seconds, 3),
            "facts_per_second": round(stage.edits / stage.seconds, 3),
            "patch_bytes": len(stage.patch.to_bytes()),
        }

    def _keep(self, edits: int, figures: Mapping[str, Any]) -> Row:
        recipe = self.run.recipe
        row = Row(
            testbed=self.bed.name,
            label=self.run.label,
            method=recipe.method,
            protect=recipe.protect,
            edits=edits,
            batch=recipe.batch,
            seed=self.run.seed,
            split=self.split,
            settings=plain(recipe.as_dict()),
            convention="argmax",
            testbed_digest=self.bed.digest,
            commit=self.setting.commit,
            device=_device(self.bed.model.device),
            threads=torch.get_num_threads(),
            processes=self.setting.workers.count,
            versions=_versions(),
            **figures,
        )
        if self.setting.workers.first:
            self.cells.keep(self.key(edits), row)
        return row


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _versions() -> dict[str, str]:
    return {
        "patchkit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
