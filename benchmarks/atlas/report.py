"""Measure atlas and write `benchmarks/results/atlas.json`, a plot and `docs/atlas.md`."""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from benchmarks.atlas import records, world
from benchmarks.atlas.clozes import ask, of_fact
from benchmarks.atlas.locate import ablate, trace
from benchmarks.atlas.prose import load_texts, split_texts
from benchmarks.atlas.report_page import write_page
from benchmarks.atlas.report_plot import write_plot
from benchmarks.atlas.rewrite import measure_rewrites

ROOT: Final = Path(__file__).parents[2]
WINDOW: Final = 256
Result = dict[str, Any]


def recall(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Result:
    """Ask every fact in every wording; all target tokens must be the argmax, teacher-forced."""
    result: Result = {"by_relation": {}}
    per_relation: dict[str, list[bool]] = {}
    for name, choose in (
        ("trained", world.trained_wordings),
        ("withheld", world.withheld_wordings),
    ):
        pairs = [(f, w) for f in world.load_facts() for w in choose(f)]
        judged = ask(model, tokenizer, [of_fact(f, w) for f, w in pairs])
        result[f"{name}_wordings"] = {
            "asked": len(pairs),
            "recall": judged.right.float().mean().item(),
            "mean_probability": judged.probability.mean().item(),
            "median_probability": judged.probability.median().item(),
        }
        for (fact, _), right in zip(pairs, judged.right.tolist(), strict=True):
            per_relation.setdefault(fact.relation, []).append(right)
    result["by_relation"] = {r: sum(v) / len(v) for r, v in sorted(per_relation.items())}
    return result


def perplexity(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]
) -> float:
    """Return the perplexity per token of the texts in windows that each begin with `<s>`."""
    ids = [
        i
        for t in texts
        for i in tokenizer.backend_tokenizer.encode(t, add_special_tokens=False).ids
    ]
    step = WINDOW - 1
    rows = [[tokenizer.bos_token_id, *ids[i : i + step]] for i in range(0, len(ids) - step, step)]
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), 16):
            batch = torch.tensor(rows[start : start + 16])
            log_p = model(input_ids=batch).logits[:, :-1].log_softmax(-1)
            total -= log_p.gather(2, batch[:, 1:, None]).sum().item()
            count += batch[:, 1:].numel()
    return math.exp(total / count)


def training_figures(log: Path) -> Result:
    """Return how long the training was, from the last row of its log."""
    with open(log, newline="") as file:
        step, seconds, _, passes = list(csv.reader(file))[-1]
    return {
        "steps": int(step),
        "minutes": round(float(seconds) / 60, 1),
        "passes_over_the_facts": float(passes),
    }


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a folder the plain way, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    model.train(False).requires_grad_(False)
    return model, tokenizer


def measure(folder: Path, data: Path, seed: int, requests: int) -> Result:
    """Return every figure of the report for the model in a folder."""
    started = time.monotonic()
    model, tokenizer = load(folder)
    facts = world.load_facts()
    chosen = random.Random(seed).sample(facts, 600)
    clozes = [of_fact(f, records.edit_wording(f)) for f in chosen]
    _, held_out = split_texts(load_texts(data))
    return {
        "testbed_digest": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "convention": "all target tokens argmax, teacher-forced",
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.stat().st_size for p in folder.iterdir()),
        "layers": model.config.num_hidden_layers,
        "hidden_size": model.config.hidden_size,
        "intermediate_size": model.config.intermediate_size,
        "vocabulary": len(tokenizer),
        "facts": len(facts),
        "subjects": len(world.facts_by_subject()),
        "relations": len({f.relation for f in facts}),
        "records": {
            "dev": len(records.load_records("dev")),
            "test": len(records.load_records("test")),
        },
        "recall": recall(model, tokenizer),
        "ablation": {"n": len(clozes), "places": ablate(model, tokenizer, clozes)},
        "tracing": {"n": len(clozes), **trace(model, tokenizer, clozes, seed)},
        "rewrites": {"n": requests, "places": measure_rewrites(model, tokenizer, requests, seed)},
        "prose_perplexity": perplexity(model, tokenizer, held_out),
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    """Read the options, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=ROOT / "patchkit" / "models" / "atlas")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder that holds text/*.txt"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="root of the tree that gets the files"
    )
    parser.add_argument("--log", type=Path, help="log.csv of the training")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.model, args.data, args.seed, args.requests)
    if args.log:
        result["training"] = training_figures(args.log)
    results: Path = args.out / "benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "atlas.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    write_plot(result, args.log, results / "atlas.png")
    write_page(result, args.out / "docs" / "atlas.md")


if __name__ == "__main__":
    main()
