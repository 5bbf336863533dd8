"""Where a model recalls its facts: ablation of MLPs, and tracing at the subject's last token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch.nn import Module
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.clozes import (
    PLACES,
    Batch,
    Change,
    Cloze,
    Place,
    encode,
    judge,
    outputs_changed,
    outputs_of,
    place_of,
    put,
)

# Noise of three standard deviations of the embedding is what causal tracing was published with.
NOISE: Final = 3.0


def _recall_without(
    model: LlamaForCausalLM, batch: Batch, mlps: Sequence[Module], place: Place | None
) -> float:
    """Return the recall left with the MLPs' outputs zero at one place, or at every position."""
    zero = torch.zeros(())
    change = torch.zeros_like if place is None else put(place_of(batch, place), zero)
    with torch.no_grad(), outputs_changed(dict.fromkeys(mlps, change)):
        judged = judge(model, batch)
    return judged.right.float().mean().item()


def ablate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, clozes: Sequence[Cloze]
) -> dict[str, dict[str, list[float]]]:
    """Return, for zeros at every position and at either place, the recall without MLP k alone and
    without MLPs 0 to k together.
    """
    batch, mlps = encode(tokenizer, clozes), [layer.mlp for layer in model.model.layers]
    places: dict[str, Place | None] = {"everywhere": None, **{place: place for place in PLACES}}
    return {
        name: {
            "alone": [_recall_without(model, batch, [mlp], place) for mlp in mlps],
            "first_k": [
                _recall_without(model, batch, mlps[: k + 1], place) for k in range(len(mlps))
            ],
        }
        for name, place in places.items()
    }


def _probability(model: LlamaForCausalLM, batch: Batch, changes: Mapping[Module, Change]) -> float:
    with torch.no_grad(), outputs_changed(changes):
        judged = judge(model, batch)
    return judged.probability.mean().item()


def trace(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, clozes: Sequence[Cloze], seed: int
) -> dict[str, float | list[float]]:
    """Corrupt the subjects' embeddings and restore one site at the subject's last token.

    Returns the mean probability of the true object: clean, corrupted, and for each layer with that
    layer's MLP output or the residual stream behind that layer restored.
    """
    batch = encode(tokenizer, clozes)
    embedding: Module = model.get_input_embeddings()
    weight = model.model.embed_tokens.weight
    shape = (*batch.ids.shape, weight.shape[1])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    noise = NOISE * weight.std().item() * noise * batch.subject[..., None]
    corrupt: dict[Module, Change] = {embedding: lambda output: output + noise}
    rows, last = torch.arange(len(clozes)), batch.subject_last

    def restored(modules: list[Module]) -> list[float]:
        clean = outputs_of(model, batch, modules)
        return [
            _probability(model, batch, {**corrupt, module: put(last, output[rows, last])})
            for module, output in zip(modules, clean, strict=True)
        ]

    layers = list(model.model.layers)
    return {
        "clean": _probability(model, batch, {}),
        "corrupted": _probability(model, batch, corrupt),
        "mlp_restored": restored([layer.mlp for layer in layers]),
        "residual_restored": restored(layers),
    }
