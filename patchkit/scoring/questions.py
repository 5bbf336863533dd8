"""The prompts by which an edit is judged, and the answers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.position import Encoded, Passage, encode_all, probe_passage
from patchkit.scoring.answers import BATCH_TOKENS, Answer, answers

Metric = Literal["efficacy", "paraphrase", "neighborhood", "same_subject", "retention"]
METRICS: tuple[Metric, ...] = (
    "efficacy",
    "paraphrase",
    "neighborhood",
    "same_subject",
    "retention",
)


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt that counts towards one metric.

    `fact` is the index of the fact it belongs to, None for retention. `wanted` is the prompt with
    the answer that should win (without labels where any unchanged answer is right), `rival` the
    prompt with the answer that should lose, None where no rival is known.
    """

    metric: Metric
    fact: int | None
    prompt: str
    wanted: Encoded
    rival: Encoded | None


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answers to one question."""

    wanted: Answer
    rival: Answer | None


@dataclass(frozen=True, slots=True)
class _Draft:
    metric: Metric
    fact: int | None
    prompt: str
    target: str | None
    rival: str | None


def questions(
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    retention_probes: Sequence[Probe] = (),
) -> tuple[Question, ...]:
    """List the questions of all facts in order, then those of `retention_probes`.

    Raises FactsError for a target that the tokenizer merges into its prompt.
    """
    drafts = [draft for index, fact in enumerate(facts) for draft in _drafts(index, fact)]
    drafts += [_Draft("retention", None, p.prompt, p.target, None) for p in retention_probes]
    wanted = encode_all(tokenizer, [probe_passage(d.prompt, d.target) for d in drafts])
    rivals = iter(encode_all(tokenizer, list(_rivals(drafts))))
    return tuple(
        Question(
            draft.metric,
            draft.fact,
            draft.prompt,
            encoded,
            None if draft.rival is None else next(rivals),
        )
        for draft, encoded in zip(drafts, wanted, strict=True)
    )


def ask(
    model: PreTrainedModel,
    asked: Sequence[Question],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
    name: str = "answers",
) -> tuple[Reply, ...]:
    """Let the model answer every question, in order; errors as in `answers`."""
    rivals = [question.rival for question in asked if question.rival is not None]
    encodings = [question.wanted for question in asked] + rivals
    given = answers(model, encodings, batch_tokens=batch_tokens, progress=progress, name=name)
    later = iter(given[len(asked) :])
    return tuple(
        Reply(answer, None if question.rival is None else next(later))
        for question, answer in zip(asked, given, strict=False)
    )


def _drafts(index: int, fact: Fact) -> Iterator[_Draft]:
    yield _Draft("efficacy", index, fact.text, fact.target, fact.target_true)
    for prompt in fact.paraphrases:
        yield _Draft("paraphrase", index, prompt, fact.target, fact.target_true)
    for probe in fact.neighbors:
        rival = fact.target if probe.target is not None else None
        yield _Draft("neighborhood", index, probe.prompt, probe.target, rival)
    for probe in fact.same_subject:
        yield _Draft("same_subject", index, probe.prompt, probe.target, None)


def _rivals(drafts: Iterable[_Draft]) -> Iterator[Passage]:
    return (probe_passage(d.prompt, d.rival) for d in drafts if d.rival is not None)
