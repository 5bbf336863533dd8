"""Quality of edits on atlas: the default method, its curve over ε, and an additive MEMIT.

    python -m benchmarks.edit_atlas --split test --write benchmarks/results/edit_atlas.json

Every row is measured by the same code on the same records in one run: all facts after the last
batch, under the all-tokens-argmax convention of `docs/metrics.md`. Settings are tuned on the dev
split (`--split dev`) and reported on the test split; no subject is in both.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.atlas.records import Split, load_records, retention_facts
from benchmarks.memit import memit_patch
from patchkit.base import load_model, load_tokenizer
from patchkit.editing import Recipe, edit
from patchkit.editing.knowledge import base_identity
from patchkit.editing.measure import condition
from patchkit.factors.action import dense
from patchkit.facts.counterfact import fact as read_record
from patchkit.facts.fact import Fact, Probe
from patchkit.live import applied
from patchkit.patch.patch import Patch, Storage, TensorDraft, build_patch
from patchkit.scoring.metrics import FIGURES, Metrics, measure
from patchkit.scoring.questions import Question, Reply, ask, questions
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import locate
from patchkit.tensors.refs import resolve_base

RETENTION_PROBES = 1000
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
    def of(cls, split: Split, count: int, cache: Path | None) -> Bed:
        """Load atlas and ask it about the first `count` records of a split."""
        folder = resolve_base("atlas")
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        facts = tuple(read_record(record) for record in load_records(split)[:count])
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
        """Return the worst norm and condition ratio of W₀ times the factors, in fp64."""
        ratios = []
        for name, site in locate(self.model, patch.factors).items():
            base = self.model.get_submodule(site.module).weight.detach().double()
            product = dense(base, patch.factors[name], site.layout)
            norm = float(product.norm() / base.norm())
            ratios.append((norm, condition(product) / condition(base)))
        return max(ratios, key=lambda pair: abs(pair[0] - 1))


def row(bed: Bed, name: str, patch: Patch, seconds: float, **labels: object) -> Row:
    """Measure one patch, print its row of the table and return it."""
    metrics, (norm, condition_ratio) = bed.judge(patch), bed.spectrum(patch)
    result: Row = {
        "testbed": "atlas",
        "method": name,
        "edits": len(bed.facts),
        **labels,
        **{figure: metrics.value(figure) for figure in FIGURES},
        "norm_ratio": norm,
        "condition_ratio": condition_ratio,
        "patch_bytes": len(patch.to_bytes()),
        "seconds": round(seconds, 1),
    }
    print(line(result), flush=True)
    return result


def rotation_rows(
    bed: Bed, recipe: Recipe, storages: Sequence[Storage], **labels: object
) -> Iterator[Row]:
    """Edit once and measure the patch as each type stores it; rounding is the edit's last step."""
    begun = time.perf_counter()
    patch = edit(
        bed.model, bed.tokenizer, bed.facts,
        checkpoint=bed.checkpoint, recipe=recipe, cache_dir=bed.cache,
    ).patch  # fmt: skip
    seconds = time.perf_counter() - begun
    settings = {"softness": recipe.softness, "preserve": recipe.preserve}
    for storage in storages:
        made = restored(patch, storage)
        yield row(
            bed, "rotation", made, seconds,
            batch=recipe.batch, storage=storage, **settings, **labels,
        )  # fmt: skip


def restored(patch: Patch, storage: Storage) -> Patch:
    """Return the patch with its factors rounded to another type."""
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


def memit_row(bed: Bed, batch: int, strength: float) -> Row:
    """Measure an additive patch of the same facts in the same batches."""
    begun = time.perf_counter()
    patch = memit_patch(
        bed.model,
        bed.tokenizer,
        bed.checkpoint,
        bed.facts,
        Recipe(batch=batch),
        strength,
        bed.cache,
    )
    seconds = time.perf_counter() - begun
    return row(bed, "memit", patch, seconds, batch=batch, storage="float32", preserve=strength)


def rows(split: Split, cache: Path | None) -> Iterator[Row]:
    """Yield all rows: both sizes, both methods, and the curve over ε."""
    for count, batch in ((50, 50), (200, 10)):
        bed = Bed.of(split, count, cache)
        yield from rotation_rows(bed, Recipe(batch=batch), ("float32", "bfloat16"))
        for strength in MEMIT_STRENGTHS:
            yield memit_row(bed, batch, strength)
    bed = Bed.of(split, 50, cache)
    for softness in SOFTNESS_CURVE:
        recipe = Recipe(batch=50, softness=softness)
        yield from rotation_rows(bed, recipe, ("float32",), curve=True)


def line(result: Row) -> str:
    """Return one row as text."""
    shown = "  ".join(f"{figure[:5]} {result[figure]:.3f}" for figure in FIGURES)
    settings = f"ε {result['softness']} " if "softness" in result else ""
    settings += f"λ {result['preserve']}"
    head = f"{result['method']:9}{result['edits']:>4}/{result['batch']:<3} {result['storage']:9}"
    spectrum = f"‖W‖ {result['norm_ratio']:.6f}  κ {result['condition_ratio']:.4f}"
    return f"{head} {settings:16} {shown}  {spectrum}  {result['seconds']} s"


def provenance(split: Split) -> Row:
    """Return what every row has in common."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    return {
        "split": split,
        "convention": "argmax",
        "seed": Recipe().seed,
        "testbed_digest": base_identity(Checkpoint.open(resolve_base("atlas"))),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "commit": commit,
    }


def main() -> None:
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--cache", type=Path, help="folder that keeps the preserved statistics")
    parser.add_argument("--write", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    common = provenance(options.split)
    made = [result | common for result in rows(options.split, options.cache)]
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
