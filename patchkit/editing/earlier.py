"""Editing on top of patches that a base already carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from patchkit.editing.rows import build_rows, keys_in_contexts
from patchkit.editing.state import SiteState, install
from patchkit.errors import BaseMismatch
from patchkit.facts.fact import Fact
from patchkit.facts.jsonl import parse_jsonl
from patchkit.patch.patch import Patch


def resume(
    model: PreTrainedModel,
    tokenizer: Any,
    states: Mapping[int, SiteState],
    previous: Sequence[Patch],
    contexts: Sequence[str],
    held: Sequence[Fact] = (),
) -> tuple[dict[int, SiteState], list[Fact]]:
    """Apply earlier patches to the states and the model; return the states and their history.

    That is the patches' facts and `held` behind them, whose keys in `contexts` the states remember
    in that order, so that new batches pay for moving them; a patch without embedded facts protects
    nothing but itself.
    """
    carrying = {
        layer: state.carrying(
            [factor for patch in previous for factor in patch.factors.get(state.site.tensor, ())]
        )
        for layer, state in states.items()
    }
    install(model, carrying)
    facts = [
        fact
        for patch in previous
        for fact in (() if patch.facts_jsonl is None else parse_jsonl(patch.facts_jsonl).facts)
    ]
    facts += held
    if facts:
        sites = [state.site for state in carrying.values()]
        rows = [build_rows(tokenizer, facts, context, model.device) for context in contexts]
        keys = keys_in_contexts(model, sites, rows)
        carrying = {layer: state.remember(keys[layer]) for layer, state in carrying.items()}
    return carrying, facts


def earlier_layers(patches: Sequence[Patch], states_by_tensor: Mapping[str, int]) -> set[int]:
    """Return the layers that earlier patches edited; BaseMismatch for a tensor of no layer."""
    found: set[int] = set()
    for patch in patches:
        for name in patch.factors:
            if name not in states_by_tensor:
                raise BaseMismatch(
                    f"an earlier patch edits {name}, which this base does not have",
                    details={"expected": name, "found": sorted(states_by_tensor)},
                )
            found.add(states_by_tensor[name])
    return found
