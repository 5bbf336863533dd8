"""The prompts by which an edit is judged, and the answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.position import Encoded, encode_all, probe_passage
from patchkit.parallel import ALONE, Workers
from patchkit.scoring.answers import BATCH_TOKENS, Answer, answers
from patchkit.scoring.generation import generate

Metric = Literal[
    "efficacy",
    "paraphrase",
    "neighborhood",
    "same_subject",
    "retention",
    "portability",
    "multihop",
]
METRICS: tuple[Metric, ...] = (
    "efficacy",
    "paraphrase",
    "neighborhood",
    "same_subject",
    "retention",
    "portability",
    "multihop",
)


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt that counts towards one metric.

    `fact` is the index of the fact it belongs to, None for retention. `wanted` is the prompt with
    the answer that should win (without labels where any unchanged answer is right), `rival` the
    prompt with the answer that should lose, None where no rival is known. `accepted` are the texts
    that answer it freely. Questions with one `case` are wordings of the same question. `group` is
    the name under which a data set counts it.
    """

    metric: Metric
    fact: int | None
    prompt: str
    wanted: Encoded
    rival: Encoded | None
    accepted: tuple[str, ...] = ()
    case: int | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answers to one question; `text` is what it wrote freely, if it was let."""

    wanted: Answer
    rival: Answer | None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    metric: Metric
    fact: int | None
    prompt: str
    target: str | None
    rival: str | None = None
    aliases: tuple[str, ...] = ()
    case: int | None = None
    group: str | None = None

    @property
    def accepted(self) -> tuple[str, ...]:
        return () if self.target is None else (self.target, *self.aliases)


def questions(
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    retention_probes: Sequence[Probe] = (),
) -> tuple[Question, ...]:
    """List the questions of all facts in order, then those of `retention_probes`.

    A multi-hop question is left out where a fact that it needs is not among `facts`. Raises
    FactsError for a target that the tokenizer merges into its prompt.
    """
    ids = {fact.id for fact in facts}
    drafts = [draft for index, fact in enumerate(facts) for draft in _drafts(index, fact, ids)]
    drafts += [_probe("retention", None, probe) for probe in retention_probes]
    wanted = encode_all(tokenizer, [probe_passage(d.prompt, d.target) for d in drafts])
    passages = [probe_passage(d.prompt, d.rival) for d in drafts if d.rival is not None]
    rivals = iter(encode_all(tokenizer, passages))
    return tuple(
        Question(
            draft.metric,
            draft.fact,
            draft.prompt,
            encoded,
            None if draft.rival is None else next(rivals),
            draft.accepted,
            draft.case,
            draft.group,
        )
        for draft, encoded in zip(drafts, wanted, strict=True)
    )


def ask(
    model: PreTrainedModel,
    asked: Sequence[Question],
    *,
    batch_tokens: int = BATCH_TOKENS,
    workers: Workers = ALONE,
    progress: Progress = SILENT,
    name: str = "answers",
) -> tuple[Reply, ...]:
    """Let the model answer every question, in order; errors as in `answers`."""
    rivals = [question.rival for question in asked if question.rival is not None]
    encodings = [question.wanted for question in asked] + rivals
    given = answers(
        model, encodings, batch_tokens=batch_tokens, workers=workers, progress=progress, name=name
    )
    later = iter(given[len(asked) :])
    return tuple(
        Reply(answer, None if question.rival is None else next(later))
        for question, answer in zip(asked, given, strict=False)
    )


def spoken(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Sequence[Question],
    replies: Sequence[Reply],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
    name: str = "free answers",
) -> tuple[Reply, ...]:
    """The replies with what the model writes greedily after each prompt that has an answer.

    Each text is as long as the longest accepted answer and one token more, which shows whether
    the answer's last word ends there. Equal questions are answered once.
    """
    accepted = sorted({text for question in asked for text in question.accepted})
    spaced = [f" {text}" for text in accepted]
    ids = tokenizer(spaced, add_special_tokens=False)["input_ids"] if spaced else []
    lengths = dict(zip(accepted, map(len, ids), strict=True))
    longest: dict[str, int] = {}
    for question in asked:
        for text in question.accepted:
            longest[question.prompt] = max(longest.get(question.prompt, 0), lengths[text] + 1)
    texts = generate(
        model,
        tokenizer,
        list(longest),
        list(longest.values()),
        batch_tokens=batch_tokens,
        progress=progress,
        name=name,
    )
    found = dict(zip(longest, texts, strict=True))
    return tuple(
        replace(reply, text=found[question.prompt]) if question.accepted else reply
        for question, reply in zip(asked, replies, strict=True)
    )


def _drafts(index: int, fact: Fact, ids: Set[str]) -> Iterator[_Draft]:
    target, true = fact.target, fact.target_true
    yield _Draft("efficacy", index, fact.text, target, true)
    for prompt in fact.paraphrases:
        yield _Draft("paraphrase", index, prompt, target, true)
    for probe in fact.neighbors:
        rival = None if probe.target in (None, target) else target
        yield _probe("neighborhood", index, probe, rival)
    for probe in fact.same_subject:
        yield _probe("same_subject", index, probe)
    for probe in fact.portability:
        yield _probe("portability", index, probe)
    for case, hop in enumerate(fact.multihop):
        if ids >= set(hop.needs):
            for prompt in hop.prompts:
                yield _Draft("multihop", index, prompt, hop.target, None, hop.aliases, case)


def _probe(metric: Metric, index: int | None, probe: Probe, rival: str | None = None) -> _Draft:
    return _Draft(
        metric, index, probe.prompt, probe.target, rival, probe.aliases, group=probe.group
    )
