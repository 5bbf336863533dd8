"""An auxiliary loss: facts about a subject are read off the first layer at its name's last token.

A gate per relation picks what is asked. A gate is all that later layers can easily imitate, so
what the readout learns to find they find too. The gates serve training only and are not part of
the model.
"""

from __future__ import annotations

import random
from typing import Final

import torch
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.testbeds.world import World

MOST_PAIRS: Final = 600
SMOOTHING: Final = 0.05


class Readout(torch.nn.Module):
    """One gate per relation, and the first object token of every fact of every subject."""

    def __init__(self, world: World, tokenizer: PreTrainedTokenizerFast, width: int) -> None:
        super().__init__()
        relations = sorted(world.by_relation)
        self.gates = torch.nn.Parameter(1 + 0.5 * torch.randn(len(relations), width))

        def first_token(text: str) -> int:
            ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return ids[0]

        self._asked = [
            [
                (relations.index(f.relation), first_token(f.object))
                for f in world.by_subject[subject]
            ]
            for subject in sorted(world.by_subject)
        ]

    def loss(
        self,
        model: LlamaForCausalLM,
        hidden: torch.Tensor,
        subjects: torch.Tensor,
        rng: random.Random,
    ) -> torch.Tensor:
        """Return the mean loss over facts of the subjects in these rows."""
        row, place = (subjects >= 0).nonzero(as_tuple=True)
        pairs = [
            (i, relation, token)
            for i, subject in enumerate(subjects[row, place].tolist())
            for relation, token in self._asked[subject]
        ]
        chosen = torch.tensor(rng.sample(pairs, min(MOST_PAIRS, len(pairs))), device=hidden.device)
        found = hidden[row, place].float()[chosen[:, 0]] * self.gates[chosen[:, 1]]
        logits = model.lm_head(model.model.norm(found))
        return functional.cross_entropy(logits.float(), chosen[:, 2], label_smoothing=SMOOTHING)
