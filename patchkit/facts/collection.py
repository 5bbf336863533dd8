"""Many facts together: duplicates, contradictions and ids, and the errors that name their lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, Problem

T = TypeVar("T")
_HINT = "patchkit edit --help shows one full example fact"


@dataclass(frozen=True, slots=True)
class FactsFile:
    """The facts of one file, each with its place: a line from 1 (jsonl) or a record from 0."""

    facts: tuple[Fact, ...]
    format: str
    places: tuple[int, ...]
    warnings: tuple[Problem, ...] = ()

    @property
    def place_name(self) -> str:
        """What `places` counts: "line" or "record"."""
        return "line" if self.format == "jsonl" else "record"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: a line from 1 or a record from 0."""

    number: int
    unit: Literal["line", "record"] = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.number}"

    def locate(self, problem: Problem) -> Problem:
        """`problem` at this place."""
        if self.unit == "line":
            return replace(problem, line=self.number)
        return replace(problem, record=self.number)


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact and its place."""

    fact: Fact
    place: Place


def gather(
    items: Iterable[tuple[Place, T]], convert: Callable[[T], Iterable[Fact]]
) -> tuple[list[Entry], list[Problem]]:
    """Convert every item to its facts; where that raises, the problems are those of its place."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    for place, item in items:
        try:
            entries += [Entry(fact, place) for fact in convert(item)]
        except FactsError as error:
            found = [problem for problem in error.problems if isinstance(problem, Problem)]
            problems += [place.locate(problem) for problem in found]
    return entries, problems


def collect(
    entries: Sequence[Entry],
    problems: Sequence[Problem],
    *,
    name: str,
    format: str,
    strict: bool,
) -> FactsFile:
    """The facts of `entries` once duplicates and contradictions are settled.

    `problems` are those met while reading. Anything invalid raises one `FactsError` with all of
    them; records of published data sets that cannot be used are only warned of unless `strict`.
    """
    kept, settled = _settle(entries, strict=strict)
    found = sorted((*problems, *settled), key=_in_file_order)
    invalid = [problem for problem in found if problem.kind == "invalid"]
    if invalid and (strict or format == "jsonl" or not kept):
        raise FactsError(_count_invalid(name, invalid), problems=invalid, hint=_HINT)
    if not kept:
        raise FactsError(f"{name} has no facts", hint=_HINT)
    facts = tuple(entry.fact for entry in kept)
    return FactsFile(facts, format, tuple(entry.place.number for entry in kept), tuple(found))


def _settle(entries: Sequence[Entry], *, strict: bool) -> tuple[list[Entry], list[Problem]]:
    kept: dict[tuple[str, str], Entry] = {}
    problems: list[Problem] = []
    for entry in entries:
        key = (entry.fact.subject, entry.fact.prompt)
        earlier = kept.get(key)
        if earlier is not None:
            problems.append(_repeated(entry, earlier, strict))
            if problems[-1].kind != "contradiction":
                kept[key] = _merged(earlier, entry)
                continue
            del kept[key]  # so that the later fact takes its own place in the order
        kept[key] = entry
    unique: dict[str, Entry] = {}
    for entry in kept.values():
        earlier = unique.setdefault(entry.fact.id, entry)
        if earlier is not entry:
            message = f'the id "{entry.fact.id}" is already used in {earlier.place}'
            problems.append(entry.place.locate(Problem(None, "id", message, "ids are unique")))
    return list(unique.values()), problems


def _merged(first: Entry, again: Entry) -> Entry:
    """The first of two equal facts, with the multi-hop questions that came with the second."""
    asked = first.fact.multihop
    more = tuple(case for case in again.fact.multihop if case not in asked)
    return replace(first, fact=replace(first.fact, multihop=asked + more)) if more else first


def _repeated(entry: Entry, earlier: Entry, strict: bool) -> Problem:
    fact = entry.fact
    if fact.target == earlier.fact.target:
        message = f"the same fact as {earlier.place}"
        problem = Problem(None, None, message, "the first one is used", kind="duplicate")
    else:
        message = (
            f'"{fact.text}" has the target "{fact.target}" here '
            f'and "{earlier.fact.target}" in {earlier.place}'
        )
        problem = (
            Problem(None, "target", message, "keep one of them")
            if strict
            else Problem(None, "target", message, "the later one is used", kind="contradiction")
        )
    return entry.place.locate(problem)


def _in_file_order(problem: Problem) -> int:
    return (problem.line or 0) + (problem.record or 0)


def _count_invalid(name: str, problems: Iterable[Problem]) -> str:
    count = len({(problem.line, problem.record) for problem in problems})
    return f"{name} has {count} invalid fact{'' if count == 1 else 's'}"
