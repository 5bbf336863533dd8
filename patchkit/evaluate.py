"""Measure a patch: the base's answers, the patched model's answers, and what changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.snippets import Snippets
from patchkit.live import applied
from patchkit.patch.patch import Patch
from patchkit.scoring.ability import Perplexity
from patchkit.scoring.answers import BATCH_TOKENS
from patchkit.scoring.conventions import Convention, by_convention
from patchkit.scoring.exam import Exam, Observation, observe
from patchkit.scoring.figures import Figure
from patchkit.scoring.metrics import CRITERIA, Criterion, FigureName, Metrics, judge, measure
from patchkit.scoring.questions import Metric, Question, Reply, questions
from patchkit.scoring.tasks import TaskFigures
from patchkit.scoring.texts import Vectors
from patchkit.scoring.writing import consistency, fluency
from patchkit.tensors.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class FactResult:
    """One fact before and after, by the argmax criterion.

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
    """Figures by criterion and by convention, one result per fact, and what the text and tasks say.

    `metrics` has the criterion "generated" only where text was generated; the perplexities are None
    without a text, the tasks empty without tasks.
    """

    metrics: Mapping[Criterion, Metrics]
    figures: Mapping[Convention, tuple[Figure, ...]]
    facts: tuple[FactResult, ...]
    perplexity_before: Perplexity | None
    perplexity_after: Perplexity | None
    tasks_before: TaskFigures
    tasks_after: TaskFigures

    @property
    def missed(self) -> tuple[FactResult, ...]:
        """The facts that the patched model does not answer with their target."""
        return tuple(result for result in self.facts if not result.after)

    def value(self, name: FigureName, criterion: Criterion = "argmax") -> float | None:
        """One of our figures by its name, `score` included; None where it was not measured."""
        return self.metrics[criterion].value(name) if criterion in self.metrics else None

    def figure(self, convention: Convention, name: str) -> Figure | None:
        """One figure of a convention by its name there; None where it was not measured."""
        return next((found for found in self.figures[convention] if found.name == name), None)


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    patches: Patch | Sequence[Patch],
    facts: Sequence[Fact],
    *,
    retention_probes: Sequence[Probe] = (),
    text: str | None = None,
    generate: bool = False,
    snippets: Snippets | None = None,
    tasks: Sequence[str | Path] = (),
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    allow_other_base: bool = False,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
) -> EvalReport:
    """Ask the base and then the patched model; `model` is the base and is left as it was.

    `retention_probes` are facts of subjects that no fact mentions, `snippets` texts to compare
    written ones with; the rest is that of `Exam`. Raises BaseMismatch when the patches are not for
    this model, FactsError for facts that the tokenizer cannot separate from their prompts,
    ExtraMissing for an optional dependency that is not installed, TaskError for a task that fails.
    """
    exam = Exam(
        facts=tuple(facts),
        asked=questions(tokenizer, facts, retention_probes),
        text=text,
        generate=generate,
        references=None if snippets is None else Vectors(snippets),
        tasks=tuple(map(Path, tasks)),
        seed=seed,
        batch_tokens=batch_tokens,
    )
    before = observe(model, tokenizer, exam, progress=progress, name="base")
    with applied(model, patches, checkpoint=checkpoint, allow_other_base=allow_other_base):
        after = observe(model, tokenizer, exam, progress=progress, name="patched")
    return compare(tokenizer, exam, before, after)


def compare(
    tokenizer: PreTrainedTokenizerBase, exam: Exam, before: Observation, after: Observation
) -> EvalReport:
    """Figures from what the base and the patched model gave back to the same exam."""
    old, new = before.replies, after.replies
    metrics = {
        criterion: measure(exam.asked, old, new, criterion)
        for criterion in CRITERIA
        if criterion != "generated" or exam.generate
    }
    return EvalReport(
        metrics,
        by_convention(exam.asked, old, new, metrics, _written(exam, before, after)),
        fact_results(tokenizer, exam.facts, exam.asked, old, new),
        before.perplexity,
        after.perplexity,
        before.tasks,
        after.tasks,
    )


def _written(exam: Exam, before: Observation, after: Observation) -> list[Figure]:
    """The figures of generated texts, where there are any."""
    if not any(before.texts or ()) or before.texts is None or after.texts is None:
        return []
    found = [fluency(before.texts, after.texts)]
    if exam.references is not None:
        found.append(consistency(exam.facts, before.texts, after.texts, exam.references))
    return found


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
