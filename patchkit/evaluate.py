"""Measure a patch: the base's answers, the patched model's answers, and what changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact, Probe
from patchkit.live import applied
from patchkit.patch.patch import Patch
from patchkit.scoring.ability import Perplexity, perplexity
from patchkit.scoring.answers import BATCH_TOKENS
from patchkit.scoring.metrics import CONVENTIONS, Convention, Figure, Metrics, judge, measure
from patchkit.scoring.questions import Metric, Question, Reply, ask, questions
from patchkit.tensors.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class FactResult:
    """One fact before and after, under the argmax convention.

    `index` counts from 0 in the order of the facts. `probability` is that of the whole target,
    `answered` the patched model's own tokens where the target's stand. The last three say how
    many of the fact's prompts are right (paraphrases), or still right of those that were.
    """

    index: int
    fact: Fact
    before: bool
    after: bool
    probability_before: float
    probability_after: float
    answered: str
    paraphrases: tuple[int, int]
    neighbors: tuple[int, int]
    same_subject: tuple[int, int]


@dataclass(frozen=True, slots=True)
class EvalReport:
    """Figures by convention, one result per fact, and the perplexities where a text was given."""

    metrics: Mapping[Convention, Metrics]
    facts: tuple[FactResult, ...]
    perplexity_before: Perplexity | None
    perplexity_after: Perplexity | None

    @property
    def missed(self) -> tuple[FactResult, ...]:
        """The facts that the patched model does not answer with their target."""
        return tuple(result for result in self.facts if not result.after)

    def value(self, figure: Figure, convention: Convention = "argmax") -> float | None:
        """One figure by its name, `score` included; None where it was not measured."""
        return self.metrics[convention].value(figure)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    patches: Patch | Sequence[Patch],
    facts: Sequence[Fact],
    *,
    retention_probes: Sequence[Probe] = (),
    text: str | None = None,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
) -> EvalReport:
    """Ask the base and then the patched model; `model` is the base and is left as it was.

    `retention_probes` are facts of subjects that no fact mentions, `text` is ordinary prose for
    perplexity. Raises BaseMismatch when the patches are not for this model, FactsError for facts
    that the tokenizer cannot separate from their prompts.
    """
    asked = questions(tokenizer, facts, retention_probes)

    def look(when: str) -> tuple[tuple[Reply, ...], Perplexity | None]:
        name = f"{when} answers"
        replies = ask(model, asked, batch_tokens=batch_tokens, progress=progress, name=name)
        if text is None:
            return replies, None
        name = f"{when} perplexity"
        return replies, perplexity(
            model, tokenizer, text, batch_tokens=batch_tokens, progress=progress, name=name
        )

    before, perplexity_before = look("base")
    with applied(model, patches, checkpoint=checkpoint, allow_other_base=allow_other_base):
        after, perplexity_after = look("patched")
    return EvalReport(
        {name: measure(asked, before, after, name) for name in CONVENTIONS},
        fact_results(tokenizer, facts, asked, before, after),
        perplexity_before,
        perplexity_after,
    )


def fact_results(
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    asked: Sequence[Question],
    before: Sequence[Reply],
    after: Sequence[Reply],
) -> tuple[FactResult, ...]:
    """Gather the answers to each fact's own questions."""
    groups: dict[int, list[tuple[Question, Reply, Reply]]] = {}
    for question, old, new in zip(asked, before, after, strict=True):
        if question.fact is not None:
            groups.setdefault(question.fact, []).append((question, old, new))
    return tuple(_result(tokenizer, index, fact, groups[index]) for index, fact in enumerate(facts))


def _result(
    tokenizer: PreTrainedTokenizerBase,
    index: int,
    fact: Fact,
    group: Sequence[tuple[Question, Reply, Reply]],
) -> FactResult:
    _, old, new = next(row for row in group if row[0].metric == "efficacy")
    verdicts = [(question.metric, judge(question, was, now)) for question, was, now in group]

    def right(metric: Metric) -> tuple[int, int]:
        found = [verdict for name, verdict in verdicts if name == metric and verdict is not None]
        if metric != "paraphrase":
            found = [verdict for verdict in found if verdict[0]]
        return sum(after for _, after in found), len(found)

    return FactResult(
        index=index,
        fact=fact,
        before=old.wanted.exact,
        after=new.wanted.exact,
        probability_before=math.exp(old.wanted.logprob),
        probability_after=math.exp(new.wanted.logprob),
        answered=str(tokenizer.decode(list(new.wanted.predicted))).strip(),
        paraphrases=right("paraphrase"),
        neighbors=right("neighborhood"),
        same_subject=right("same_subject"),
    )
