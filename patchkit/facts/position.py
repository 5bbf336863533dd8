"""Where in a tokenised text the subject ends and which tokens are the target.

Positions come from the tokenizer's own offset mapping, one tokenisation of the whole text: never
from counting the tokens of a prefix, which goes wrong where tokens merge across the border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from patchkit.errors import FactsError, UnsupportedModel
from patchkit.facts.fact import PLACEHOLDER, Fact, joint


class Tokenizer(Protocol):
    """What is asked of a tokenizer: a transformers tokenizer with `is_fast` fits."""

    def __call__(self, text: Any, **options: Any) -> Any:
        """Tokenise one text or a list."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text with the character spans that matter in it (half-open, in code points).

    `joint` characters, 0 or 1, stand between prompt and target. They belong to the answer: a model
    that is given the prompt has to write them too.
    """

    text: str
    subject: tuple[int, int] | None = None
    target: tuple[int, int] | None = None
    joint: int = 0


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenised passage.

    `ids` is without padding, with the special tokens the tokenizer puts in front (not behind).
    `subject_last` is the index of the token that holds the subject's last character, None where
    the passage has no subject. `labels` are pairs (position, token id): the logits at `position`
    should predict that token, which itself stands at `position + 1`.
    """

    ids: tuple[int, ...]
    subject_last: int | None
    labels: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """Encodings padded to one length; indices count from the left, padding included."""

    ids: tuple[tuple[int, ...], ...]
    mask: tuple[tuple[int, ...], ...]
    subject_last: tuple[int | None, ...]
    labels: tuple[tuple[tuple[int, int], ...], ...]


def fact_passage(
    fact: Fact, *, prompt: str | None = None, context: str = "", target: str | None = None
) -> Passage:
    """The text `context prompt target` of a fact; `prompt`, with one `{}`, replaces the fact's."""
    template = fact.prompt if prompt is None else prompt
    before, found, after = template.partition(PLACEHOLDER)
    if not found or PLACEHOLDER in after:
        raise FactsError(f"a prompt needs {{}} exactly once for its subject, found {template!r}")
    lead = f"{context} " if context and not context[-1].isspace() else context
    start = len(lead) + len(before)
    text = lead + before + fact.subject + after
    return _with_target(text, (start, start + len(fact.subject)), target)


def probe_passage(prompt: str, target: str | None = None) -> Passage:
    """The text `prompt target`, with no subject."""
    return _with_target(prompt, None, target)


def _with_target(text: str, subject: tuple[int, int] | None, target: str | None) -> Passage:
    if target is None:
        return Passage(text, subject)
    target = target.strip()
    between = joint(text, target)
    whole = text + between + target
    return Passage(whole, subject, (len(whole) - len(target), len(whole)), len(between))


def encode(
    tokenizer: Tokenizer,
    fact: Fact,
    *,
    prompt: str | None = None,
    context: str = "",
    target: str | None = None,
) -> Encoded:
    """Tokenise a fact's prompt after `context` and before `target`.

    Raises `UnsupportedModel` for a tokenizer without offsets and `FactsError` where the tokenizer
    leaves nothing of the subject or merges its end with the target.
    """
    passage = fact_passage(fact, prompt=prompt, context=context, target=target)
    return encode_all(tokenizer, [passage])[0]


def encode_probe(tokenizer: Tokenizer, prompt: str, target: str | None = None) -> Encoded:
    """Tokenise a prompt without a subject, with its target where there is one."""
    return encode_all(tokenizer, [probe_passage(prompt, target)])[0]


def encode_all(tokenizer: Tokenizer, passages: Sequence[Passage]) -> tuple[Encoded, ...]:
    """Tokenise many passages in one call of the tokenizer, in order."""
    if not getattr(tokenizer, "is_fast", False):
        name = type(tokenizer).__name__
        raise UnsupportedModel(
            f"{name} gives no character offsets, which finding the subject needs",
            hint="save the base with its fast tokenizer (a tokenizer.json file)",
        )
    if not passages:
        return ()
    out = tokenizer(
        [passage.text for passage in passages],
        add_special_tokens=True,
        padding=False,
        truncation=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    columns = (out["input_ids"], out["offset_mapping"], out["special_tokens_mask"])
    return tuple(_encoded(passage, *row) for passage, *row in zip(passages, *columns, strict=True))


def _encoded(
    passage: Passage,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    special: Sequence[int],
) -> Encoded:
    length = len(ids)
    while length and special[length - 1]:  # an end-of-text token would end the answer's context
        length -= 1
    spans = [(0, 0) if special[i] else offsets[i] for i in range(length)]
    subject_last = _subject_last(passage, spans)
    first = _target_first(passage, spans, subject_last)
    labels = tuple((i - 1, ids[i]) for i in range(first, length))
    return Encoded(tuple(ids[:length]), subject_last, labels)


def _subject_last(passage: Passage, spans: Sequence[tuple[int, int]]) -> int | None:
    """The last token with a character of the subject, or without width inside it."""
    if passage.subject is None:
        return None
    start, end = passage.subject
    found = [i for i, (left, right) in enumerate(spans) if left < end and right > start]
    if not found:
        raise FactsError(f"the tokenizer leaves nothing of the subject in {passage.text!r}")
    return found[-1]


def _target_first(
    passage: Passage, spans: Sequence[tuple[int, int]], subject_last: int | None
) -> int:
    """The first token with a character of the target, or of the joint alone; the end if no target.

    A token that merges the prompt's end with the joint is the prompt's, one that merges it with
    the target itself is the target's.
    """
    if passage.target is None:
        return len(spans)
    start = passage.target[0]
    before = start - passage.joint
    reached = (i for i, (a, b) in enumerate(spans) if b > (before if a >= before else start))
    first = next(reached, None)
    if first is None:
        raise FactsError(f"the tokenizer leaves nothing of the target in {passage.text!r}")
    if first == 0 or (subject_last is not None and first <= subject_last):
        raise FactsError(
            f"the tokenizer merges the target into what stands before it in {passage.text!r}",
            hint="end the prompt with a word after {}",
        )
    return first


def pad(encodings: Sequence[Encoded], pad_id: int, side: Literal["left", "right"]) -> Batch:
    """Pad to the longest encoding on one side, moving the positions along."""
    longest = max((len(encoded.ids) for encoded in encodings), default=0)
    rows = [_padded(encoded, longest, pad_id, side) for encoded in encodings]
    ids, mask, subject_last, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Batch(ids, mask, subject_last, labels)


def _padded(
    encoded: Encoded, longest: int, pad_id: int, side: Literal["left", "right"]
) -> tuple[tuple[int, ...], tuple[int, ...], int | None, tuple[tuple[int, int], ...]]:
    filled = len(encoded.ids)
    gap = longest - filled
    before, after = (gap, 0) if side == "left" else (0, gap)
    ids = (pad_id,) * before + encoded.ids + (pad_id,) * after
    mask = (0,) * before + (1,) * filled + (0,) * after
    last = None if encoded.subject_last is None else encoded.subject_last + before
    return ids, mask, last, tuple((place + before, token) for place, token in encoded.labels)
