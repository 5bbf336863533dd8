"""Facts asked the way an instruct model is asked: as a user's turn of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from patchkit.errors import FactsError, UnsupportedModel
from patchkit.facts.fact import PLACEHOLDER, Fact
from patchkit.facts.probe import Probe

_CONTENT = "content that no template has of its own"


@dataclass(frozen=True, slots=True)
class Turn:
    """What a chat template puts before and behind one user's message, up to the answer."""

    before: str
    behind: str

    @classmethod
    def of(cls, tokenizer: Any) -> Turn:
        """Read the turn off the tokenizer's template, without the token it adds by itself.

        Raises UnsupportedModel for a tokenizer without a template, or one whose template does not
        keep the message in one piece.
        """
        if not getattr(tokenizer, "chat_template", None):
            raise UnsupportedModel(
                f"{type(tokenizer).__name__} of this base has no chat template",
                hint="leave out --chat: the base is not an instruct model",
            )
        message = [{"role": "user", "content": _CONTENT}]
        text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        before, found, behind = text.partition(_CONTENT)
        if not found or _CONTENT in behind or PLACEHOLDER in before + behind:
            raise UnsupportedModel("the base's chat template does not keep a message in one piece")
        return cls(before.removeprefix(_added(tokenizer)), behind)

    def around(self, text: str) -> str:
        """Return the message `text` as the model sees it."""
        return self.before + text + self.behind


def in_chat(facts: Sequence[Fact], tokenizer: Any) -> tuple[Fact, ...]:
    """Return `facts` with every prompt as a user's message and the target as the answer's start.

    Their ids stay, and so does a fact that is asked like this already. Raises UnsupportedModel as
    `Turn.of`, and FactsError for a subject that the template has a mention of.
    """
    turn = Turn.of(tokenizer)
    return tuple(_asked(fact, turn) for fact in facts)


def _asked(fact: Fact, turn: Turn) -> Fact:
    if fact.prompt.startswith(turn.before) and fact.prompt.endswith(turn.behind):
        return fact
    if fact.subject in turn.before + turn.behind:
        raise FactsError(
            f"the base's chat template itself contains {fact.subject!r}, so its place is not clear"
        )

    def probes(found: Sequence[Probe]) -> tuple[Probe, ...]:
        return tuple(replace(probe, prompt=turn.around(probe.prompt)) for probe in found)

    return replace(
        fact,
        prompt=turn.around(fact.prompt),
        paraphrases=tuple(map(turn.around, fact.paraphrases)),
        generation=tuple(map(turn.around, fact.generation)),
        neighbors=probes(fact.neighbors),
        same_subject=probes(fact.same_subject),
        portability=probes(fact.portability),
        multihop=tuple(
            replace(case, prompts=tuple(map(turn.around, case.prompts))) for case in fact.multihop
        ),
    )


def _added(tokenizer: Any) -> str:
    """Return the text of the token that the tokenizer puts in front of every text, if it does."""
    begin = getattr(tokenizer, "bos_token", None)
    ids = tokenizer("x")["input_ids"]
    return begin if begin and ids[:1] == [tokenizer.bos_token_id] else ""
