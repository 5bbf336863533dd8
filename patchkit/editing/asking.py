"""Facts that are asked at every step of a batch, from what enters the first edited block.

Those being written are asked all at once. Those written before take turns, because it is not
enough to hold what a matrix says of them: a value may move far in a direction that nobody reads,
and little in one that turns the answer. Continual learning calls it replay to practise what was
learned before with what is new (Robins 1995, https://doi.org/10.1080/09540099550039318).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from transformers import PreTrainedModel

from patchkit.editing.replay import Replay, replay_subjects
from patchkit.editing.rows import Rows, alike
from patchkit.parallel import ALONE, Workers


@dataclass(frozen=True, slots=True)
class Turns:
    """Which of `count` facts a step asks, at most `most` of them, in which of `contexts`.

    Every fact is asked as often as any other, in the bare prompt, which is the first context, and
    in one of the others, which change from round to round.
    """

    count: int
    contexts: int
    most: int

    @property
    def all(self) -> int:
        """Number of turns until every fact was asked."""
        return -(-self.count // self.most)

    def facts(self, turn: int) -> range:
        """Return the facts of a turn."""
        return range(turn, self.count, self.all)

    def at(self, step: int) -> list[tuple[int, int]]:
        """Return the turn and the contexts that a step asks in, as pairs."""
        turn, rounds = step % self.all, step // self.all
        others = [1 + rounds % (self.contexts - 1)] if self.contexts > 1 else []
        return [(turn, context) for context in (0, *others)]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Facts that take `turns`, and by turn and context their rows of alike length, captured."""

    turns: Turns
    parts: Mapping[tuple[int, int], tuple[tuple[Rows, Replay], ...]]
    narrow: bool = True

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        contexts: Sequence[Rows],
        *,
        first: int,
        steps: int,
        most: int,
        workers: Workers = ALONE,
        narrow: bool = True,
    ) -> Asked:
        """Capture what enters block `first` of `model` for `steps` steps of at most `most` facts.

        `contexts` are the same facts, in each. Tokens before a subject's last one are seen as they
        are now. Of several processes each has its share of every turn. With `narrow` the last MLP
        sees labels only (`Replay.logits`).
        """
        turns = Turns(contexts[0].count, len(contexts), most)
        parts = {}
        for turn, context in dict.fromkeys(chain.from_iterable(map(turns.at, range(steps)))):
            rows = contexts[context].only(workers.share(turns.facts(turn)))
            parts[turn, context] = tuple(_captured(model, rows, first))
        return cls(turns, parts, narrow)

    def loss(self, step: int, floor: float) -> Tensor:
        """Return the facts' summed loss, each at least `floor`, in nats.

        Those whose turn it is not are taken to be like those whose turn it is.
        """
        pairs = self.turns.at(step)
        total = torch.zeros(())
        for pair in pairs:
            for rows, replay in self.parts[pair]:
                losses = _losses(rows, replay, self.narrow)
                total = total.to(losses.device) + losses.clamp_min(floor).sum() / len(pairs)
        return total * (self.turns.count / len(self.turns.facts(pairs[0][0])))


def _captured(model: PreTrainedModel, rows: Rows, first: int) -> list[tuple[Rows, Replay]]:
    parts = [rows.only(part) for part in alike(rows.behind.tolist(), max(1, rows.count))]
    return [(part, replay_subjects(model, part, first)) for part in parts]


def _losses(rows: Rows, replay: Replay, narrow: bool) -> Tensor:
    """Return the facts' mean losses over their labels (n,)."""
    logits = replay.logits(rows.label_row, rows.label_position, narrow=narrow).float()
    losses = torch.nn.functional.cross_entropy(logits, rows.label_id, reduction="none")
    return rows.per_fact(losses)
