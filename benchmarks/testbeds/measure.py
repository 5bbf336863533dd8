"""The figures that every test bed is reported with."""

from __future__ import annotations

import csv
import hashlib
import math
import random
import sys
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

from benchmarks.testbeds.clozes import ask, of_fact
from benchmarks.testbeds.locate import ablate, trace
from benchmarks.testbeds.records import Recorder
from benchmarks.testbeds.rewrite import measure_rewrites
from benchmarks.testbeds.world import World

WINDOW: Final = 256
LOCATED: Final = 600
Result = dict[str, Any]


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load a folder the plain way, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(model, LlamaForCausalLM)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    model.train(False).requires_grad_(False)
    return model, tokenizer


def recall(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    most: int | None = None,
) -> Result:
    """Ask facts in their wordings, all of them or `most` drawn of each kind.

    All target tokens must be the argmax, teacher-forced.
    """
    result: Result = {"by_relation": {}}
    per_relation: dict[str, list[bool]] = {}
    for name, choose in (
        ("trained", world.trained_wordings),
        ("withheld", world.withheld_wordings),
    ):
        pairs = [(f, w) for f in world.facts for w in choose(f)]
        if most is not None and most < len(pairs):
            pairs = random.Random(name).sample(pairs, most)
        judged = ask(model, tokenizer, [of_fact(world, f, w) for f, w in pairs])
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
    """Return the perplexity per token of the texts in windows that each begin with the first token
    of every text.
    """
    encode = tokenizer.backend_tokenizer.encode
    ids = [i for text in texts for i in encode(text, add_special_tokens=False).ids]
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


def identity(model: LlamaForCausalLM, folder: Path, vocabulary: int, world: World) -> Result:
    """Return what a model is: its digest, its sizes, and how much it was taught."""
    return {
        "testbed_digest": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "convention": "all target tokens argmax, teacher-forced",
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(p.stat().st_size for p in folder.iterdir()),
        "layers": model.config.num_hidden_layers,
        "hidden_size": model.config.hidden_size,
        "intermediate_size": model.config.intermediate_size,
        "vocabulary": vocabulary,
        "facts": len(world.facts),
        "subjects": len(world.by_subject),
        "relations": len(world.by_relation),
    }


def located(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recorder: Recorder,
    requests: int,
    seed: int,
) -> Result:
    """Return where facts are recalled and where they can be rewritten."""
    facts = recorder.world.facts
    chosen = random.Random(seed).sample(facts, min(LOCATED, len(facts)))
    clozes = [of_fact(recorder.world, f, recorder.edit_wording(f)) for f in chosen]
    rewrites = measure_rewrites(model, tokenizer, recorder, requests, seed)
    return {
        "ablation": {"n": len(clozes), "places": ablate(model, tokenizer, clozes)},
        "tracing": {"n": len(clozes), **trace(model, tokenizer, clozes, seed)},
        "rewrites": {"n": requests, "places": rewrites},
    }


def training_figures(log: Path) -> Result:
    """Return how long the training was, from the last row of its log."""
    with open(log, newline="") as file:
        step, seconds, _, passes, *_ = list(csv.reader(file))[-1]
    return {
        "steps": int(step),
        "minutes": round(float(seconds) / 60, 1),
        "passes_over_the_facts": float(passes),
    }


def surroundings() -> Result:
    """Return what figures may depend on besides the model."""
    return {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
