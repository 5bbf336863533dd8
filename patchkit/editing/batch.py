"""One batch of facts as every method sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from patchkit.editing.rehearsal import Rehearsal
from patchkit.editing.rows import Rows, build_rows, plain_rows
from patchkit.facts.fact import Fact
from patchkit.parallel import ALONE, Workers

_ANCHOR = "{} is a"


@dataclass(frozen=True, slots=True)
class Batch:
    """Facts, their rows in every context (the bare prompt first), and their subjects alone.

    `anchors` has one row for each fact, "SUBJECT is a", at whose subject the published methods keep
    the next-token distribution in place (Meng et al., https://arxiv.org/abs/2202.05262, §3.1).
    `rehearsal` is preserved text, and `earlier` are facts written before, in every context, for
    methods that go through them again. `workers` are the processes that write the batch together,
    all facts known to each.
    """

    facts: tuple[Fact, ...]
    contexts: tuple[Rows, ...]
    anchors: Rows
    workers: Workers = ALONE
    rehearsal: Rehearsal | None = None
    earlier: tuple[Rows, ...] = ()

    @classmethod
    def of(
        cls,
        tokenizer: Any,
        facts: Sequence[Fact],
        contexts: Sequence[str],
        device: torch.device,
        workers: Workers = ALONE,
        rehearsal: Rehearsal | None = None,
        earlier: Sequence[Fact] = (),
    ) -> Batch:
        """Tokenise the facts behind each of `contexts`, the first of which is empty."""
        rows = tuple(build_rows(tokenizer, facts, text, device) for text in contexts)
        before = tuple(build_rows(tokenizer, earlier, text, device) for text in contexts if earlier)
        anchors = plain_rows(tokenizer, facts, _ANCHOR, device)
        return cls(tuple(facts), rows, anchors, workers, rehearsal, before)

    @property
    def count(self) -> int:
        """Number of facts n."""
        return len(self.facts)

    def groups(self) -> list[list[int]]:
        """Return the facts that share a key: one text up to the subject's last token."""
        rows = self.contexts[0]
        found: dict[tuple[int, ...], list[int]] = {}
        for index, (ids, last) in enumerate(
            zip(rows.ids.tolist(), rows.last.tolist(), strict=True)
        ):
            found.setdefault(tuple(ids[: last + 1]), []).append(index)
        return list(found.values())

    def only(self, index: Sequence[int]) -> Batch:
        """Return the batch of the facts at `index`, in that order."""
        return Batch(
            facts=tuple(self.facts[i] for i in index),
            contexts=tuple(rows.only(index) for rows in self.contexts),
            anchors=self.anchors.only(index),
            workers=self.workers,
            rehearsal=self.rehearsal,
            earlier=self.earlier,
        )
