"""Everything that is asked of a model before and after an edit, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact
from patchkit.scoring.ability import Perplexity, perplexity
from patchkit.scoring.answers import BATCH_TOKENS
from patchkit.scoring.questions import Question, Reply, ask, spoken
from patchkit.scoring.tasks import TaskFigures, run_tasks
from patchkit.scoring.texts import Vectors
from patchkit.scoring.writing import Texts, write_texts


@dataclass(frozen=True, slots=True)
class Exam:
    """What is asked.

    `text` is ordinary prose for perplexity. With `generate`, questions are also answered freely and
    texts are written after the facts' generation prompts, to be compared with the `references`
    where given; `seed` draws them. `tasks` are files of lm-evaluation-harness.
    """

    facts: tuple[Fact, ...]
    asked: tuple[Question, ...]
    text: str | None = None
    generate: bool = False
    references: Vectors | None = None
    tasks: tuple[Path, ...] = ()
    seed: int = 0
    batch_tokens: int = BATCH_TOKENS


@dataclass(frozen=True, slots=True)
class Observation:
    """What one model gave back: None, or nothing, where it was not asked."""

    replies: tuple[Reply, ...]
    perplexity: Perplexity | None
    texts: Texts | None
    tasks: TaskFigures


def observe(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    exam: Exam,
    *,
    progress: Progress = SILENT,
    name: str = "model",
) -> Observation:
    """Ask a model, as it is now; `name` stands in front of the phases of `progress`.

    Raises ExtraMissing where tasks need what is not installed, TaskError for a task that fails.
    """
    speed: dict[str, Any] = {"batch_tokens": exam.batch_tokens, "progress": progress}
    found: Perplexity | None = None
    texts: Texts | None = None
    tasks: TaskFigures = {}
    if exam.tasks:  # first, for they may fail
        title = f"{name} tasks"
        tasks = run_tasks(
            model, tokenizer, exam.tasks, seed=exam.seed, progress=progress, name=title
        )
    replies = ask(model, exam.asked, name=f"{name} answers", **speed)
    if exam.text is not None:
        found = perplexity(model, tokenizer, exam.text, name=f"{name} perplexity", **speed)
    if exam.generate:
        title = f"{name} free answers"
        replies = spoken(model, tokenizer, exam.asked, replies, name=title, **speed)
        title = f"{name} texts"
        texts = write_texts(model, tokenizer, exam.facts, seed=exam.seed, name=title, **speed)
    return Observation(replies, found, texts, tasks)
