"""Questions beside a fact: what must stay, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from patchkit.facts.text import PLACEHOLDER, Problem, invalid, text_problems, texts_problems


@dataclass(frozen=True, slots=True)
class Probe:
    """A question beside the fact; without a target, the model's own answer must not change.

    `aliases` are other right answers, which only figures on generated text accept. `group` is the
    name under which a data set counts the question. Raises `FactsError` with every problem.
    """

    prompt: str
    target: str | None = None
    aliases: tuple[str, ...] = ()
    group: str | None = None

    def __post_init__(self) -> None:
        problems = text_problems("prompt", self.prompt)
        problems += _answer_problems(self)
        if self.group is not None:
            problems += text_problems("group", self.group, one_line=True)
        if self.target is None and self.aliases:
            problems.append(Problem(None, "aliases", '"aliases" need a "target" beside them'))
        if problems:
            raise invalid(*problems)

    def filled(self, subject: str) -> Probe:
        """The probe with `subject` in place of `{}`."""
        return replace(self, prompt=self.prompt.replace(PLACEHOLDER, subject))


@dataclass(frozen=True, slots=True)
class MultiHop:
    """A question that several facts answer together, in one or more wordings.

    `needs` are the ids of other facts that must be edited too before it can be asked. A case counts
    as right if one of its `prompts` is answered rightly (MQuAKE). Raises `FactsError`.
    """

    prompts: tuple[str, ...]
    target: str
    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = texts_problems("prompts", self.prompts)
        problems += _answer_problems(self)
        problems += texts_problems("needs", self.needs)
        if not self.prompts:
            problems.append(Problem(None, "prompts", '"prompts" is empty'))
        if problems:
            raise invalid(*problems)

    def filled(self, subject: str) -> MultiHop:
        """The case with `subject` in place of `{}`."""
        prompts = (prompt.replace(PLACEHOLDER, subject) for prompt in self.prompts)
        return replace(self, prompts=tuple(prompts))


def _answer_problems(question: Probe | MultiHop) -> list[Problem]:
    """Strip the answers in place; why they cannot be used."""
    problems: list[Problem] = []
    if question.target is not None:
        object.__setattr__(question, "target", question.target.strip())
        problems += text_problems("target", question.target)
    aliases = tuple(alias.strip() for alias in question.aliases)
    object.__setattr__(question, "aliases", aliases)
    return problems + texts_problems("aliases", aliases)
