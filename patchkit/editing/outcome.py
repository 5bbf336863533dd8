"""The facts before and after an edit, and the report made of the two."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.capture import capture
from patchkit.editing.confinement import Confinement
from patchkit.editing.layers import LayerChoice
from patchkit.editing.measure import measure_tensor, reaches
from patchkit.editing.recipe import Recipe
from patchkit.editing.report import EditReport, FactResult, HeldResult, TensorResult
from patchkit.editing.rows import build_rows
from patchkit.editing.state import SiteState
from patchkit.facts.fact import Fact
from patchkit.live import applied
from patchkit.patch.patch import Patch
from patchkit.scoring.answers import Answer, answers_to
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.torch_dtypes import torch_dtype

_SOFTNESS = 0.3
"""What counts as free in a report, whatever the method: energy in mean eigenvalues."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the base says of each fact before the edit, and which of them take part."""

    model: PreTrainedModel
    tokenizer: Any
    facts: tuple[Fact, ...]
    previous: tuple[Patch, ...]
    checkpoint: Checkpoint | None
    said: tuple[Answer, ...]
    edited: tuple[bool, ...]
    held: tuple[Fact, ...] = ()
    held_said: tuple[Answer, ...] = ()

    @classmethod
    def before(
        cls,
        model: PreTrainedModel,
        tokenizer: Any,
        facts: Sequence[Fact],
        previous: Sequence[Patch],
        checkpoint: Checkpoint | None,
        skip_known: bool,
        held: Sequence[Fact] = (),
    ) -> Outcome:
        """Ask the base, with the earlier patches on it, for every fact and those to hold."""
        stack = tuple(previous)
        with applied(model, stack, checkpoint=checkpoint):
            said = answers_to(model, tokenizer, facts)
            held_said = answers_to(model, tokenizer, held)
        edited = tuple(not (skip_known and answer.exact) for answer in said)
        return cls(
            model, tokenizer, tuple(facts), stack, checkpoint, said, edited, tuple(held), held_said
        )

    @property
    def holdable(self) -> list[Fact]:
        """The facts to hold, without those that the base does not answer as they say."""
        return [
            fact for fact, answer in zip(self.held, self.held_said, strict=True) if answer.exact
        ]

    def after(
        self,
        patch: Patch,
        states: Mapping[int, SiteState],
        recipe: Recipe,
        choice: LayerChoice,
        corpus: str,
        seconds: Mapping[str, float],
    ) -> EditReport:
        """Ask again with the patch as it is stored, and measure every edited matrix."""
        with applied(self.model, (*self.previous, patch), checkpoint=self.checkpoint):
            said = answers_to(self.model, self.tokenizer, self.facts)
            held_said = answers_to(self.model, self.tokenizer, self.held)
        taking = [fact for fact, take in zip(self.facts, self.edited, strict=True) if take]
        sites = [state.site for state in states.values()]
        rows = build_rows(self.tokenizer, taking, "", self.model.device)
        flows = capture(self.model, rows.ids, rows.mask, sites)
        keys = {layer: flow.at(rows.last).keys.float() for layer, flow in flows.items()}
        rooms = {layer: Confinement.of(state, _SOFTNESS) for layer, state in states.items()}
        reach = torch.stack(
            [reaches(state, keys[layer], rooms[layer]) for layer, state in states.items()]
        ).amax(0)
        return EditReport(
            method=recipe.method,
            facts=self._facts(said, reach),
            tensors=tuple(
                self._tensor(patch, state, keys[layer], rooms[layer])
                for layer, state in states.items()
                if state.site.tensor in patch.factors
            ),
            layers=choice,
            corpus=corpus,
            seconds=dict(seconds),
            held=tuple(map(_held, self.held, self.held_said, held_said)),
        )

    def _facts(self, said: Sequence[Answer], reach: Tensor) -> tuple[FactResult, ...]:
        reaches_left = iter(reach.tolist())
        return tuple(
            FactResult(
                index=index,
                id=fact.id,
                subject=fact.subject,
                prompt=fact.prompt,
                target=fact.target,
                before=math.exp(old.logprob),
                after=math.exp(new.logprob),
                reached=new.exact,
                known=old.exact,
                edited=take,
                reach=next(reaches_left) if take else None,
            )
            for index, (fact, old, new, take) in enumerate(
                zip(self.facts, self.said, said, self.edited, strict=True)
            )
        )

    def _tensor(
        self, patch: Patch, state: SiteState, keys: Tensor, room: Confinement
    ) -> TensorResult:
        name = state.site.tensor
        carried = [factor for p in self.previous for factor in p.factors.get(name, ())]
        stored = torch_dtype(patch.metadata.tensors[name].dtype)
        return measure_tensor(state, [*carried, *patch.factors[name]], keys, room, stored)


def _held(fact: Fact, old: Answer, new: Answer) -> HeldResult:
    return HeldResult(
        id=fact.id,
        subject=fact.subject,
        prompt=fact.prompt,
        target=fact.target,
        before=math.exp(old.logprob),
        after=math.exp(new.logprob),
        known=old.exact,
        holds=new.exact,
    )
