"""Can facts be rewritten at one place?

The value of one MLP at one position is optimised until the prompt is continued by a new object. Its
norm is kept, because a rotation of the matrix that writes it keeps it too.
"""

from __future__ import annotations

import random
from typing import Final

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.clozes import (
    PLACES,
    Cloze,
    Place,
    encode,
    judge,
    of_fact,
    outputs_changed,
    outputs_of,
    place_of,
    put,
)
from benchmarks.testbeds.records import Recorder

STEPS: Final = 60
# The step goes with the length of a unit vector's entries, so that it means the same at any width.
LEARNING_RATE: Final = 0.1
# Below this loss a request is content; going on would only make its value odd.
ENOUGH: Final = 0.05
# Contexts in front of the request: a value found behind one context alone fits that context.
PREFIXES: Final = ("", "Some things are widely known. ", "The weather was fine that day. ")


def optimise_values(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    requests: list[Cloze],
    layer: int,
    place: Place,
) -> torch.Tensor:
    """Return a value per request that says its target, of the norm the MLP output has there."""
    clozes = [Cloze(p + r.prompt, r.target, r.subject) for p in PREFIXES for r in requests]
    batch, mlp = encode(tokenizer, clozes), model.model.layers[layer].mlp
    where = place_of(batch, place)
    (outputs,) = outputs_of(model, batch, [mlp])
    start = outputs[torch.arange(len(clozes)), where][: len(requests)]
    norm: torch.Tensor = start.norm(dim=1, keepdim=True)
    free = (start / norm).clone().requires_grad_(True)
    optimizer = torch.optim.Adam([free], LEARNING_RATE / start.shape[1] ** 0.5)

    def value() -> torch.Tensor:
        unit: torch.Tensor = free / free.norm(dim=1, keepdim=True)
        return norm * unit

    for _ in range(STEPS):
        with outputs_changed({mlp: put(where, value().repeat(len(PREFIXES), 1))}):
            nll = judge(model, batch).nll
        optimizer.zero_grad()
        nll.clamp(min=ENOUGH).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return value().detach()


def rewritten(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    clozes: list[Cloze],
    values: torch.Tensor,
    layer: int,
    place: Place,
) -> float:
    """Return the share of clozes whose value, put in at the place, makes every target token win."""
    batch = encode(tokenizer, clozes)
    change = put(place_of(batch, place), values)
    with torch.no_grad(), outputs_changed({model.model.layers[layer].mlp: change}):
        judged = judge(model, batch)
    return judged.right.float().mean().item()


def measure_rewrites(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recorder: Recorder,
    count: int,
    seed: int,
) -> dict[str, list[dict[str, float]]]:
    """Return for each place and layer how many random requests win, and win in withheld wordings.

    Only facts that have withheld wordings are drawn, so that carrying over can be measured.
    """
    world = recorder.world
    eligible = [f for f in world.facts if world.withheld_wordings(f)]
    facts = random.Random(seed).sample(eligible, count)
    new = [recorder.new_object(f) for f in facts]
    requests = [
        of_fact(world, f, recorder.edit_wording(f), target)
        for f, target in zip(facts, new, strict=True)
    ]
    pairs = [(i, w) for i, f in enumerate(facts) for w in world.withheld_wordings(f)]
    owners = [i for i, _ in pairs]
    others = [of_fact(world, facts[i], w, new[i]) for i, w in pairs]
    table: dict[str, list[dict[str, float]]] = {}
    for place in PLACES:
        table[place] = []
        for layer in range(model.config.num_hidden_layers):
            values = optimise_values(model, tokenizer, requests, layer, place)
            wins = rewritten(model, tokenizer, requests, values, layer, place)
            carried = rewritten(model, tokenizer, others, values[owners], layer, place)
            table[place].append({"wins": wins, "withheld_wordings": carried})
    return table
