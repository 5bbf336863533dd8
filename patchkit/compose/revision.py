"""Other facts for a patch: without some, or with some replaced."""

from __future__ import annotations

from collections.abc import Sequence

from patchkit.errors import FactsError
from patchkit.facts.fact import Fact


def without(facts: Sequence[Fact], ids: Sequence[str]) -> tuple[Fact, ...]:
    """Return the facts without those of these ids; FactsError for an id that no fact has."""
    known = {fact.id for fact in facts}
    for each in ids:
        if each not in known:
            raise FactsError(
                f"no fact has the id {each!r}; there are {len(facts)} facts",
                hint="patchkit facts PATCH --json lists the facts with their ids",
            )
    return tuple(fact for fact in facts if fact.id not in set(ids))


def replaced(facts: Sequence[Fact], new: Sequence[Fact]) -> tuple[Fact, ...]:
    """Return the facts with each of `new` in the place of the one it corrects.

    That is the fact with its id, or else the one with its subject and prompt; FactsError where
    there is neither.
    """
    found = list(facts)
    for fact in new:
        found[_place(found, fact)] = fact
    return tuple(found)


def _place(facts: Sequence[Fact], new: Fact) -> int:
    for place, fact in enumerate(facts):
        if fact.id == new.id:
            return place
    for place, fact in enumerate(facts):
        if (fact.subject, fact.prompt) == (new.subject, new.prompt):
            return place
    raise FactsError(
        f'"{new.text}" corrects no fact of the patch',
        hint="facts that are new are added by an edit on top: patchkit edit FACTS --on PATCH",
    )
