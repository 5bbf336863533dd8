"""What two models say to the same prompts: a base with patches, or a checkpoint as it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from patchkit.base import load_model, load_tokenizer
from patchkit.errors import FactsError
from patchkit.events import SILENT, Progress
from patchkit.facts.text import PLACEHOLDER, Problem, text_problems
from patchkit.live import applied
from patchkit.patch.patch import Patch
from patchkit.scoring.generation import generate
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.source import FileSource

MAX_BYTES = 16_000_000
"""Most bytes of a file of prompts."""


@dataclass(frozen=True, slots=True, eq=False)
class Speaker:
    """A checkpoint folder, and the patches that are put on it in memory."""

    folder: Path
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """The greedy text of two speakers after one prompt."""

    prompt: str
    texts: tuple[str, str]

    @property
    def same(self) -> bool:
        """Whether both say the same."""
        return self.texts[0] == self.texts[1]


def diff_answers(
    prompts: Sequence[str],
    a: Speaker,
    b: Speaker,
    *,
    max_tokens: int = 12,
    device: str = "cpu",
    dtype: str = "auto",
    progress: Progress = SILENT,
) -> tuple[Answer, ...]:
    """Let two speakers continue prompts greedily; one model is in memory at a time.

    Raises what loading and applying raise.
    """
    texts = [_texts(prompts, speaker, max_tokens, device, dtype, progress) for speaker in (a, b)]
    pairs = zip(prompts, *texts, strict=True)
    return tuple(Answer(prompt, (one, two)) for prompt, one, two in pairs)


def read_prompts(path: str | Path) -> tuple[str, ...]:
    """Read prompts, one to a line: plain text, or a JSON object with `prompt`, as facts have it.

    `{}` in such a prompt is its `subject`. Blank lines are skipped. FactsError names every line
    that cannot be used; FormatError for a file that cannot be read.
    """
    source = FileSource(path)
    if source.size > MAX_BYTES:
        raise FactsError(f"{source.name} has {source.size} bytes; {MAX_BYTES} are allowed")
    try:
        lines = source.read(0, source.size).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise FactsError(f"{source.name} is not UTF-8: {error.reason}") from None
    prompts: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(lines, 1):
        if text := line.strip():
            prompt = _prompt(text) if text.startswith("{") else text
            found = text_problems("prompt", prompt)
            problems += [Problem(number, each.key, each.message) for each in found]
            prompts.append(prompt)
    if problems or not prompts:
        many = f"{len(problems)} lines that are no prompt" if problems else "no prompt"
        raise FactsError(f"{source.name} has {many}", problems=problems)
    return tuple(prompts)


def _prompt(line: str) -> str:
    """The prompt of a JSON line, empty if it has none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return ""
    prompt, subject = found.get("prompt"), found.get("subject", PLACEHOLDER)
    texts = isinstance(prompt, str) and isinstance(subject, str)
    return prompt.replace(PLACEHOLDER, subject) if texts else ""


def _texts(
    prompts: Sequence[str],
    speaker: Speaker,
    max_tokens: int,
    device: str,
    dtype: str,
    progress: Progress,
) -> tuple[str, ...]:
    model = load_model(speaker.folder, device=device, dtype=dtype)
    tokenizer = load_tokenizer(speaker.folder)
    checkpoint = Checkpoint.open(speaker.folder)
    patched = applied(model, speaker.patches, checkpoint=checkpoint) if speaker.patches else None
    with patched or nullcontext():
        return generate(
            model,
            tokenizer,
            prompts,
            [max_tokens] * len(prompts),
            progress=progress,
            name="answering",
        )
