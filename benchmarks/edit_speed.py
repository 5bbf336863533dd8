"""Seconds of the engine beside the loops that the authors' code runs, on the same model and facts.

    python -m benchmarks.edit_speed --write benchmarks/results/edit_speed.json
    python -m benchmarks.edit_speed --base DIR --records FILE --device cuda --facts 100

Every row is one method: `seconds` of `patchkit.editing.edit_sequence`, `baseline_seconds` of the
loop in `benchmarks/published.py` (which says what it does) with equal options, contexts and
layer, in the same run; solves are included. Preserved text and statistics are made before, for
both. So is AlphaEdit's null space, which its code computes once and stores: `projection` in the
phases says what it costs, and counts for neither. `difference` is ‖ΔW − ΔW′‖ / ‖ΔW‖ between the
two edits, where they compute the same thing. With `--baseline-facts` the loop runs on the first so
many facts, and its seconds are scaled. `--growth` adds rows for other numbers of facts, and for
random models of other d_in, without the loop.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.atlas.records import load_records
from benchmarks.provenance import commit
from benchmarks.published import Published
from patchkit.base import load_model, load_tokenizer
from patchkit.editing import Recipe, edit_sequence, spread
from patchkit.editing.clock import Clock
from patchkit.editing.contexts import prefixes
from patchkit.editing.knowledge import Sources, preserved_statistics, preserved_text
from patchkit.editing.layers import choose_layers
from patchkit.editing.methods import alphaedit, rotation
from patchkit.editing.state import SiteState
from patchkit.factors.action import dense
from patchkit.facts.counterfact import fact as read_record
from patchkit.facts.fact import Fact
from patchkit.facts.reading import read_facts
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites
from patchkit.tensors.refs import resolve_base

METHODS = ("memit", "alphaedit", "rotation", "mose-oft")
CONTEXTS = 5  # besides the bare prompt, and the anchor: seven rows for each request
GROWTH_FACTS = (1, 10, 100, 1000)
RANDOM = "random"
GROWTH_WIDTHS = (1024, 2048, 4096, 8192)
_TIMED: tuple[tuple[ModuleType, str, str], ...] = (
    (spread, "optimise", "values"),
    (spread, "keys_in_contexts", "keys"),
    (rotation, "keys_in_contexts", "keys"),
    (rotation, "_rotor", "confinement"),
    (alphaedit, "null_space", "projection"),
)
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """A model, its facts, and what is preserved."""

    name: str
    model: Any
    tokenizer: Any
    checkpoint: Checkpoint
    facts: tuple[Fact, ...]
    cache: Path
    layer: int

    @classmethod
    def of(cls, name: str, folder: Path, facts: Sequence[Fact], cache: Path, device: str) -> Bench:
        """Load a model and choose the layer to edit."""
        model, tokenizer = load_model(folder, device=device), load_tokenizer(folder)
        checkpoint = Checkpoint.open(folder)
        chosen = choose_layers(model, tokenizer, facts, sites(model, checkpoint)).layers[0]
        return cls(name, model, tokenizer, checkpoint, tuple(facts), cache, chosen)

    def recipe(self, method: str, facts: int) -> Recipe:
        """The method's defaults, all facts in one batch where that is how it is published."""
        batch = Recipe().batch if method == "rotation" else facts
        start = Recipe(method=method, layers=(self.layer,), contexts=CONTEXTS, batch=batch)
        if method == "alphaedit" and self.name == RANDOM:  # whose keys leave less of a null space
            start = replace(start, options=replace(start.options, threshold=1.0))
        return (
            replace(start, options=replace(start.options, joint=False))
            if hasattr(start.options, "joint")
            else start
        )

    def prepare(self, recipe: Recipe) -> Published:
        """Make, or read, what every edit needs, and return the loop on top of it."""
        [site] = [one for one in sites(self.model, self.checkpoint) if one.layer == self.layer]
        sources = Sources(self.checkpoint, None, self.cache)
        text = preserved_text(self.model, self.tokenizer, recipe, sources)
        moments = preserved_statistics(self.model, text, [site], sources)
        state = SiteState.of(self.model, site, moments[self.layer])
        contexts = ["", *prefixes(self.tokenizer, text, recipe.contexts, recipe.seed)]
        return Published(self.model, self.tokenizer, state, contexts)

    def ours(self, recipe: Recipe, facts: int) -> tuple[float, dict[str, float], torch.Tensor]:
        """Return seconds without the projection, seconds by phase, and ΔW (d_out, d_in)."""
        clock = Clock()
        with timed(clock, self.model.device):
            [stage] = edit_sequence(
                self.model, self.tokenizer, self.facts[:facts], [facts],
                checkpoint=self.checkpoint, recipe=recipe, cache_dir=self.cache,
            )  # fmt: skip
        [(name, factors)] = stage.patch.factors.items()
        weight = self.model.get_parameter(name).detach().double()
        layout = stage.patch.metadata.tensors[name].layout
        change = dense(weight, factors, layout) - weight
        phases = rounded(clock.seconds)
        phases["rest"] = round(stage.seconds - sum(phases.values()), 3)
        seconds = stage.seconds - phases.get("projection", 0.0)
        return seconds, phases, change.T if layout == "conv1d" else change

    def theirs(self, recipe: Recipe, facts: int) -> tuple[float, dict[str, float], torch.Tensor]:
        """Return the same of the loop."""
        loop = self.prepare(recipe)
        synchronise(self.model.device)
        change = loop.edit(self.facts[:facts], recipe)
        synchronise(self.model.device)
        phases = rounded(loop.clock.seconds)
        return sum(phases.values()) - phases.get("projection", 0.0), phases, change


@contextmanager
def timed(clock: Clock, device: torch.device) -> Iterator[None]:
    """Count the seconds of some functions of the engine while the block runs."""

    def wrapped(function: Any, phase: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            with clock.phase(phase):
                result = function(*args, **kwargs)
                synchronise(device)
                return result

        return run

    with ExitStack() as stack:
        for module, name, phase in _TIMED:
            original = getattr(module, name)
            setattr(module, name, wrapped(original, phase))
            stack.callback(setattr, module, name, original)
        yield


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in seconds.items()}


def compared(bench: Bench, method: str, facts: int, baseline_facts: int) -> Row:
    """Measure one method with its loop."""
    recipe = bench.recipe(method, facts)
    bench.prepare(recipe)
    row = alone(bench, method, facts)
    part = min(baseline_facts, facts)
    baseline, phases, change = bench.theirs(bench.recipe(method, part), part)
    row |= {
        "baseline_facts": part,
        "baseline_seconds": round(baseline * facts / part, 3),
        "speedup": round(baseline * facts / part / row["seconds"], 2),
        "baseline_phases": phases,
    }
    if method in ("memit", "alphaedit"):
        same = bench.ours(bench.recipe(method, part), part)[2]
        row["difference"] = float((same - change).norm() / same.norm())
    return row


def alone(bench: Bench, method: str, facts: int) -> Row:
    """Measure one method by itself."""
    seconds, phases, _ = bench.ours(bench.recipe(method, facts), facts)
    [site] = [one for one in sites(bench.model, bench.checkpoint) if one.layer == bench.layer]
    return {
        "model": bench.name,
        "method": method,
        "facts": facts,
        "d_in": site.d_in,
        "d_out": site.d_out,
        "seconds": round(seconds, 3),
        "phases": phases,
    }


def random_model(folder: Path, d_in: int) -> None:
    """Write a random Llama of three layers with MLPs of width `d_in`, and atlas's tokenizer."""
    tokenizer = load_tokenizer(resolve_base("atlas"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=d_in, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def facts_of(records: Path | None, count: int) -> list[Fact]:
    """Return the first `count` facts with subjects of their own, atlas's without a file."""
    every = (
        [read_record(record) for record in load_records("test")]
        if records is None
        else list(read_facts(records).facts)
    )
    found = {fact.subject: fact for fact in reversed(every)}
    return list(reversed(found.values()))[:count]


def growth(bench: Bench, options: argparse.Namespace, cache: Path) -> Iterator[Row]:
    """Yield rows for other numbers of facts, and for other widths at a tenth of the facts."""
    for method in options.methods:
        for facts in GROWTH_FACTS:
            if facts != options.facts and facts <= len(bench.facts):
                yield alone(bench, method, facts)
    few = max(1, options.facts // 10)
    for d_in in GROWTH_WIDTHS:
        folder = cache / f"random-{d_in}"
        random_model(folder, d_in)
        wide = Bench.of(RANDOM, folder, bench.facts[:few], cache, options.device)
        for method in options.methods:
            wide.prepare(wide.recipe(method, few))
            yield alone(wide, method, few)


def provenance(device: str) -> Row:
    """Return what all rows have in common."""
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **versions},
        "commit": commit(),
    }


def main() -> None:
    """Read the options, measure, write after every row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--base", default="atlas", help="folder of the model, or atlas")
    parser.add_argument("--records", type=Path, help="facts to edit; atlas's by default")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--baseline-facts", type=int, default=10**9)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    most = max(GROWTH_FACTS) if options.growth else options.facts
    facts = facts_of(options.records, max(most, options.facts))
    common = provenance(options.device)
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row | common)
        print(json.dumps(row), flush=True)
        if options.write:
            options.write.parent.mkdir(parents=True, exist_ok=True)
            options.write.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        name = options.base if options.base == "atlas" else Path(options.base).name
        cache = Path(folder)
        bench = Bench.of(name, resolve_base(options.base), facts, cache, options.device)
        for method in options.methods:
            add(compared(bench, method, options.facts, options.baseline_facts))
        for row in growth(bench, options, cache) if options.growth else ():
            add(row)


if __name__ == "__main__":
    main()
