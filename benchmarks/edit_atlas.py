"""Quality of edits on atlas: the default method, its curve over ε, and an additive MEMIT.

    python -m benchmarks.edit_atlas --split test --write benchmarks/results/edit_atlas.json

Every row is measured by the same code on the same records in one run: all facts after the last
batch, under the all-tokens-argmax convention of `docs/metrics.md`. With several draws, disjoint
sets of records are edited one by one and their answers counted together. Settings are tuned on
the dev split and reported on the test split; no subject is in both. Two rows are computed at a
time, each on one thread.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from benchmarks.atlas.records import Split, load_records, retention_facts
from benchmarks.memit import memit_patch
from benchmarks.provenance import commit
from patchkit.base import load_model, load_tokenizer
from patchkit.editing import Recipe, edit
from patchkit.editing.knowledge import base_identity
from patchkit.factors.action import dense
from patchkit.factors.spectrum import condition
from patchkit.facts.counterfact import fact as read_record
from patchkit.facts.fact import Fact, Probe
from patchkit.live import applied
from patchkit.patch.patch import Patch, Storage, TensorDraft, build_patch
from patchkit.scoring.metrics import FIGURES, Metrics, Tally, measure
from patchkit.scoring.questions import Question, Reply, ask, questions
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import locate
from patchkit.tensors.refs import resolve_base

RETENTION_PROBES = 1000
DRAWS = 3
SOFTNESS_CURVE = (0.03, 0.1, 0.3, 1.0, 3.0)
MEMIT_STRENGTHS = (30.0, 300.0, 3000.0)
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Bed:
    """The base under test and what it answered before any edit."""

    model: Any
    tokenizer: Any
    checkpoint: Checkpoint
    facts: tuple[Fact, ...]
    asked: tuple[Question, ...]
    before: tuple[Reply, ...]
    cache: Path | None

    @classmethod
    def of(cls, split: Split, count: int, draw: int, cache: Path | None) -> Bed:
        """Load atlas and ask it about the records of one draw of a split."""
        folder = resolve_base("atlas")
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        records = load_records(split)[draw * count : (draw + 1) * count]
        facts = tuple(read_record(record) for record in records)
        unedited = retention_facts({fact.subject for fact in facts}, RETENTION_PROBES)
        probes = [Probe(probe["prompt"], probe["target"]) for probe in unedited]
        asked = questions(tokenizer, facts, probes)
        before = ask(model, asked)
        return cls(model, tokenizer, Checkpoint.open(folder), facts, asked, before, cache)

    def judge(self, patch: Patch) -> Metrics:
        """Ask everything again with the patch on the model."""
        with applied(self.model, patch, checkpoint=self.checkpoint):
            return measure(self.asked, self.before, ask(self.model, self.asked))

    def spectrum(self, patch: Patch) -> tuple[float, float]:
        """Return the norm and condition ratio of W₀ times the factors, in fp64."""
        [(name, site)] = locate(self.model, patch.factors).items()
        base = self.model.get_submodule(site.module).weight.detach().double()
        product = dense(base, patch.factors[name], site.layout)
        return float(product.norm() / base.norm()), condition(product) / condition(base)


@dataclass(frozen=True, slots=True)
class Task:
    """One or two rows of the table: a method with its setting, on some draws of records."""

    method: Literal["rotation", "memit"]
    edits: int
    batch: int
    draws: int
    setting: float  # ε of the rotation, λ of MEMIT
    storages: tuple[Storage, ...] = ("float32",)
    curve: bool = False

    @property
    def recipe(self) -> Recipe:
        """The recipe of either method."""
        if self.method == "memit":
            return Recipe(batch=self.batch)
        return Recipe(batch=self.batch, options={"softness": self.setting})


def tasks() -> Iterator[Task]:
    """Yield the table, longest first."""
    both: tuple[Storage, ...] = ("float32", "bfloat16")
    default = Recipe().options.softness
    yield Task("rotation", 200, 10, 1, default, both)
    for strength in MEMIT_STRENGTHS:
        yield Task("memit", 200, 10, 1, strength)
    yield Task("rotation", 50, 50, DRAWS, default, both)
    for strength in MEMIT_STRENGTHS:
        yield Task("memit", 50, 50, DRAWS, strength)
    for softness in SOFTNESS_CURVE:
        yield Task("rotation", 50, 50, 1, softness, curve=True)


def run(task: Task, split: Split, cache: Path | None) -> list[Row]:
    """Make and measure the patches of one task."""
    torch.set_num_threads(1)
    beds = [Bed.of(split, task.edits, draw, cache) for draw in range(task.draws)]
    begun = time.perf_counter()
    patches = [make(bed, task) for bed in beds]
    seconds = (time.perf_counter() - begun) / task.draws
    return [row(task, storage, beds, patches, seconds) for storage in task.storages]


def make(bed: Bed, task: Task) -> Patch:
    """Compute one patch by the task's method."""
    if task.method == "memit":
        return memit_patch(
            bed.model, bed.tokenizer, bed.checkpoint, bed.facts,
            task.recipe, task.setting, bed.cache,
        )  # fmt: skip
    return edit(
        bed.model, bed.tokenizer, bed.facts,
        checkpoint=bed.checkpoint, recipe=task.recipe, cache_dir=bed.cache,
    ).patch  # fmt: skip


def row(
    task: Task, storage: Storage, beds: Sequence[Bed], patches: Sequence[Patch], seconds: float
) -> Row:
    """Measure patches as `storage` keeps them and pool their answers; ratios are the worst."""
    stored = [restored(patch, storage) for patch in patches]
    metrics = pooled([bed.judge(patch) for bed, patch in zip(beds, stored, strict=True)])
    spectra = [bed.spectrum(patch) for bed, patch in zip(beds, stored, strict=True)]
    norm, condition_ratio = max(spectra, key=lambda pair: abs(pair[0] - 1))
    setting = {"softness": task.setting} if task.method == "rotation" else {}
    preserve = task.recipe.options.preserve if task.method == "rotation" else task.setting
    return {
        "testbed": "atlas",
        "method": task.method,
        "edits": task.edits,
        "batch": task.batch,
        "draws": task.draws,
        "storage": storage,
        "preserve": preserve,
        **setting,
        "curve": task.curve,
        **{figure: value for figure in FIGURES if (value := metrics.value(figure)) is not None},
        "norm_ratio": norm,
        "condition_ratio": condition_ratio,
        "patch_bytes": round(sum(len(patch.to_bytes()) for patch in stored) / len(stored)),
        "seconds": round(seconds, 1),
    }


def pooled(parts: Sequence[Metrics]) -> Metrics:
    """Add up the counts of several draws."""
    counts = [field.name for field in fields(Tally)]
    tallies = {
        name: Tally(*(sum(getattr(part.tallies[name], c) for part in parts) for c in counts))
        for name in parts[0].tallies
    }
    return Metrics(parts[0].criterion, tallies)


def restored(patch: Patch, storage: Storage) -> Patch:
    """Return the patch with its factors rounded to a type; rounding is an edit's last step."""
    meta = patch.metadata
    drafts = {
        name: TensorDraft(
            tensor.shape, tensor.dtype, tensor.layout, tensor.base_sha256, patch.factors[name]
        )
        for name, tensor in meta.tensors.items()
    }
    return build_patch(
        meta.base, drafts, patch.facts_jsonl, meta.recipe, meta.method, {}, storage=storage
    )


def line(result: Row) -> str:
    """Return one row as text."""
    shown = "  ".join(
        f"{figure[:5]} {result[figure]:.3f}" for figure in FIGURES if figure in result
    )
    settings = f"ε {result['softness']} " if "softness" in result else ""
    settings += f"λ {result['preserve']}"
    head = f"{result['method']:9}{result['edits']:>4}/{result['batch']:<3} {result['storage']:9}"
    spectrum = f"‖W‖ {result['norm_ratio']:.6f}  κ {result['condition_ratio']:.4f}"
    return f"{head} {settings:16} {shown}  {spectrum}  {result['seconds']} s"


def provenance(split: Split) -> Row:
    """Return what every row has in common."""
    return {
        "split": split,
        "convention": "argmax",
        "seed": Recipe().seed,
        "testbed_digest": base_identity(Checkpoint.open(resolve_base("atlas"))),
        "device": "cpu",
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "commit": commit(),
    }


def main() -> None:
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--cache", type=Path, help="folder that keeps the preserved statistics")
    parser.add_argument("--workers", type=int, default=2, help="rows computed at a time")
    parser.add_argument("--write", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    common = provenance(options.split)
    made: list[Row] = []
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(run, task, options.split, options.cache) for task in tasks()]
        for task in running:
            made += [result | common for result in task.result()]
            print("\n".join(map(line, made[-len(task.result()) :])), flush=True)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
