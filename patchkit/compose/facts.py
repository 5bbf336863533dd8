"""The facts of several patches as one list, and where they contradict each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from patchkit.compose.parts import Part
from patchkit.compose.report import Conflict
from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, Problem
from patchkit.facts.jsonl import parse_jsonl


@dataclass(frozen=True, slots=True)
class Union:
    """What several patches write together.

    `conflicts` are facts that a later patch overrules; `silent` names the patches that write facts
    and do not carry their text.
    """

    facts: tuple[Fact, ...]
    conflicts: tuple[Conflict, ...]
    silent: tuple[str, ...]


def united(parts: Sequence[Part]) -> Union:
    """Return the facts of all parts in order; of two with one subject and prompt, the later one.

    A part that undoes its patch writes no facts. Of several facts with one id the last keeps it,
    the others are given the id that follows from their content. FactsError for facts that cannot
    be read.
    """
    kept: dict[tuple[str, str], tuple[Fact, str]] = {}
    conflicts, silent = [], []
    for part in parts:
        if part.inverted or part.patch.metadata.facts is None:
            continue
        if part.patch.facts_jsonl is None:
            silent.append(part.name)
            continue
        for fact in parse_jsonl(part.patch.facts_jsonl, name=part.name or "facts").facts:
            # Taken out first, so that the later fact also has the later place: only then does the
            # order of the union not depend on how the parts are grouped.
            earlier = kept.pop((fact.subject, fact.prompt), None)
            if earlier is not None and earlier[0].target != fact.target:
                conflicts.append(_conflict(*earlier, fact, part.name))
            kept[fact.subject, fact.prompt] = fact, part.name
    facts = _with_unique_ids([fact for fact, _ in kept.values()])
    return Union(facts, tuple(conflicts), tuple(silent))


def refuse(conflicts: Sequence[Conflict]) -> None:
    """FactsError with every conflict, if there is one."""
    if not conflicts:
        return
    problems = [
        Problem(
            None,
            "target",
            f'"{each.text}" has the target "{each.targets[0]}" in {each.names[0]} '
            f'and "{each.targets[1]}" in {each.names[1]}',
        )
        for each in conflicts
    ]
    facts = "1 fact" if len(problems) == 1 else f"{len(problems)} facts"
    raise FactsError(f"the patches contradict each other in {facts}", problems=problems)


def _conflict(earlier: Fact, by: str, later: Fact, name: str) -> Conflict:
    return Conflict(
        subject=later.subject,
        prompt=later.prompt,
        targets=(earlier.target, later.target),
        names=(by, name),
    )


def _with_unique_ids(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    seen: set[str] = set()
    found = []
    for fact in reversed(facts):
        own = replace(fact, id=fact.derived_id) if fact.id in seen else fact
        seen.add(own.id)
        found.append(own)
    return tuple(reversed(found))
