"""Texts that a model writes about edited subjects, and how they are judged: fluency, consistency.

As published: after each generation prompt one text of 100 tokens, the prompt included, each token
drawn from the five likeliest. A prompt that is nearly that long itself gets `LEAST` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from patchkit.events import SILENT, Progress
from patchkit.facts.fact import Fact
from patchkit.scoring.answers import BATCH_TOKENS
from patchkit.scoring.figures import Figure, mean_of_means
from patchkit.scoring.generation import Sampling, generate
from patchkit.scoring.texts import Vectors, ngram_entropy

LENGTH = 100
LEAST = 20

Texts = tuple[tuple[str, ...], ...]
"""The texts about each fact, prompts included."""


def write_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    *,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress = SILENT,
    name: str = "texts",
) -> Texts:
    """Write one text after each generation prompt of each fact."""
    prompts = [prompt for fact in facts for prompt in fact.generation]
    lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]] if prompts else []
    written = generate(
        model,
        tokenizer,
        prompts,
        [max(LEAST, LENGTH - length) for length in lengths],
        sampling=Sampling(seed=seed),
        batch_tokens=batch_tokens,
        progress=progress,
        name=name,
    )
    later = iter(prompt + text for prompt, text in zip(prompts, written, strict=True))
    return tuple(tuple(next(later) for _ in fact.generation) for fact in facts)


def fluency(before: Texts, after: Texts) -> Figure:
    """Mean n-gram entropy of the texts, in bits: within a fact, then over facts."""
    base, patched = (mean_of_means(_entropies(texts)) for texts in (before, after))
    return Figure("fluency", base, patched, sum(map(bool, after)))


def consistency(facts: Sequence[Fact], before: Texts, after: Texts, references: Vectors) -> Figure:
    """Mean cosine of all texts about a fact with the reference texts of its target."""
    base, patched = (list(_cosines(facts, texts, references)) for texts in (before, after))
    return Figure("consistency", mean_of_means(base), mean_of_means(patched), len(patched))


def _entropies(texts: Texts) -> Iterator[tuple[int, float]]:
    for fact, written in enumerate(texts):
        for text in written:
            yield fact, ngram_entropy(text)


def _cosines(
    facts: Sequence[Fact], texts: Texts, references: Vectors
) -> Iterator[tuple[int, float]]:
    for index, (fact, written) in enumerate(zip(facts, texts, strict=True)):
        cosine = references.consistency(" ".join(written), fact.reference) if written else None
        if cosine is not None:
            yield index, cosine
