"""What an edit of a large model would cost on this machine: an estimate from measured phases.

    python -m benchmarks.edit_cost --write benchmarks/results/edit_cost.json

Random Llamas of growing width are edited for real, with early stopping off so that the number of
steps is known. Counting the floating-point operations of every phase gives the rate that the
machine reached there. `predicted` is what the next smaller model's rates say of a model, beside
what was measured; the last rows put the largest model's rates to the shapes of Llama-3-8B. Those
rows are `"kind": "estimate"`, and nothing of that size has been run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.edit_speed import CONTEXTS, Bench, facts_of, provenance
from patchkit.base import load_tokenizer
from patchkit.editing.rows import build_rows
from patchkit.facts.fact import Fact
from patchkit.tensors.refs import resolve_base

METHODS = ("memit", "rotation")
WIDTHS = (256, 512, 1024)
CORPUS = 256  # rows of preserved text: what the text is changes no phase of an edit
EDITED_OF = 8  # the edited layer is an eighth of the way up, as layer 4 of 32
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that decide a cost."""

    d: int
    d_in: int
    layers: int
    vocabulary: int
    kv: int  # width of keys and of values

    @property
    def block(self) -> int:
        """Weights of one block, of which a token passes each once."""
        return 2 * self.d * self.d + 2 * self.d * self.kv + 3 * self.d * self.d_in

    @property
    def edited(self) -> int:
        """The edited layer."""
        return self.layers // EDITED_OF


LARGE = Shape(d=4096, d_in=14336, layers=32, vocabulary=128256, kv=1024)


@dataclass(frozen=True, slots=True)
class Text:
    """How long the facts are: numbers of tokens, and of labels, in one context."""

    facts: int
    whole: int
    behind: int  # from the subject's last token on
    labels: int


def operations(shape: Shape, text: Text, method: str, steps: int) -> dict[str, float]:
    """Return floating-point operations by phase; a multiplication and its addition are two."""
    rows, d_in, head = CONTEXTS + 1, shape.d_in, shape.vocabulary * shape.d
    keys = 2 * rows * text.whole * (shape.edited + 1) * shape.block
    before = 2 * rows * text.whole * shape.layers * shape.block  # keys and values of the tokens
    behind = shape.layers - shape.edited - 1
    if method == "memit":
        step = rows * (text.behind * behind * shape.block + text.labels * head)
        anchors = text.facts * (behind * shape.block + head)
        values = before + 4 * (steps - 1) * (step + anchors)
        return {"values": values, "keys": keys, "solve": d_in**3 / 3}
    m = shape.d + text.facts
    planes = 2 * text.facts
    step = 2 * (text.behind * (behind + 1) * shape.block + text.labels * head)
    turning = 2 * text.behind * d_in * m + (shape.d + m) * m * planes
    optimising = before + steps * (4 * step + 6 * turning)
    confinement = d_in**3 / 3 + 2 * d_in**2 * m + 2 * d_in * m**2
    return {"optimising": optimising, "keys": keys, "confinement": confinement}


def predicted(shape: Shape, text: Text, method: str, steps: int, rates: Row) -> dict[str, float]:
    """Return seconds by phase at `rates` (operations per second) by phase."""
    counted = operations(shape, text, method, steps)
    return {phase: round(count / rates[phase], 3) for phase, count in counted.items()}


def random_model(folder: Path, width: int) -> Shape:
    """Write a random Llama with Llama-3's proportions and atlas's tokenizer; return its shape."""
    tokenizer = load_tokenizer(resolve_base("atlas"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=width * 7 // 2,
        num_hidden_layers=EDITED_OF, num_attention_heads=width // 64,
        num_key_value_heads=width // 256, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Shape(
        width, config.intermediate_size, config.num_hidden_layers, config.vocab_size, width // 4
    )


def text_of(facts: Sequence[Fact]) -> Text:
    """Count the tokens of the facts behind an average context."""
    tokenizer = load_tokenizer(resolve_base("atlas"))
    rows = build_rows(tokenizer, facts, "So it was said again. ", torch.device("cpu"))
    counts = (rows.mask.sum(), rows.behind.sum(), len(rows.label_id))
    return Text(len(facts), *map(int, counts))


def measured(bench: Bench, method: str, facts: int) -> tuple[dict[str, float], int]:
    """Return seconds by phase of an edit whose every step is taken, and how many steps it has."""
    recipe = bench.recipe(method, facts)
    if hasattr(recipe.options, "stop"):
        recipe = replace(recipe, options=replace(recipe.options, stop=0.0))
    recipe = replace(recipe, rewrite=False, batch=facts, corpus_rows=CORPUS, corpus_length=32)
    bench.prepare(recipe)
    phases = bench.ours(recipe, facts)[1]
    rest = phases.pop("rest")
    phases["solve" if method == "memit" else "optimising"] = rest
    return phases, recipe.options.steps


def rates_of(counted: dict[str, float], seconds: dict[str, float]) -> dict[str, float]:
    return {phase: counted[phase] / max(seconds[phase], 1e-3) for phase in counted}


def rows_of(method: str, facts: Sequence[Fact], cache: Path, device: str) -> list[Row]:
    """Measure one method on all widths and estimate the large model."""
    text, rows, rates = text_of(facts), list[Row](), Row()
    for width in WIDTHS:
        folder = cache / str(width)
        shape = random_model(folder, width)
        bench = Bench.of("random", folder, facts, cache, device)
        bench = replace(bench, layer=shape.edited)
        seconds, steps = measured(bench, method, len(facts))
        counted = operations(shape, text, method, steps)
        row = _row("measured", method, shape, len(facts), seconds)
        if rates:
            row["predicted"] = predicted(shape, text, method, steps, rates)
        rates = rates_of(counted, seconds)
        rows.append(row | {"gflop_per_second": {k: round(v / 1e9, 1) for k, v in rates.items()}})
    large = predicted(LARGE, text, method, steps, rates)
    return [*rows, _row("estimate", method, LARGE, len(facts), large)]


def _row(kind: str, method: str, shape: Shape, facts: int, seconds: dict[str, float]) -> Row:
    return {
        "kind": kind,
        "method": method,
        "facts": facts,
        "d": shape.d,
        "d_in": shape.d_in,
        "layers": shape.layers,
        "vocabulary": shape.vocabulary,
        "phases": seconds,
        "seconds": round(sum(seconds.values()), 3),
    }


def main() -> None:
    """Read the options, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--facts", type=int, default=20)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", type=Path, help="JSON file for the rows")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts, common = facts_of(None, options.facts), provenance(options.device)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            for row in rows_of(method, facts, Path(folder), options.device):
                print(json.dumps(row), flush=True)
                rows.append(row | common)
    if options.write:
        options.write.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
