"""Build `facts.tsv` from hand-written tables, ParaRel triples and invented people.

Run once; the result is committed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

from benchmarks.atlas.people import invented_people

Fact = tuple[str, str, str]
HERE: Final = Path(__file__).parent

# Labels of the triples that no one would call a value of the relation.
BAD_OBJECTS: Final = frozenset(
    {
        "singing",
        "slide",
        "God",
        "Yes",
        "UFO",
        "Thursday",
        "Muslim",
        "Christian",
        "Zen",
        "Hamas",
        "Scientology",
    }
)
OF_PLACES: Final = frozenset({"capital", "language", "continent", "currency", "country"})
MIN_SUBJECTS: Final = 4
ROUND: Final = 8
SUBJECT: Final = re.compile(r"[A-Z0-9][A-Za-z0-9'.& -]{2,27}")
OBJECT: Final = re.compile(r"[A-Za-z][A-Za-z'.& -]{1,22}")


def _clean(subject: str, obj: str) -> bool:
    if not SUBJECT.fullmatch(subject) or not OBJECT.fullmatch(obj) or obj in BAD_OBJECTS:
        return False
    low, other = subject.lower(), obj.lower()
    return low not in other and other not in low and len(subject.split()) <= 4


def _limits() -> dict[str, tuple[str, int, int]]:
    """Return {ParaRel relation: (relation here, the most facts, the most facts of one object)}."""
    rows = (line.split("\t") for line in (HERE / "pararel.tsv").read_text("utf-8").splitlines())
    return {pid: (relation, int(most), int(per_object)) for pid, relation, most, per_object in rows}


def hand_written() -> list[Fact]:
    """Return the facts of `countries.tsv`, `states.tsv` and `known.tsv`."""
    facts: list[Fact] = []
    for line in (HERE / "countries.tsv").read_text("utf-8").splitlines():
        country, capital, currency, language, continent = line.split("|")
        row = {
            "capital": capital,
            "currency": currency,
            "language": language,
            "continent": continent,
        }
        facts += [(country, relation, obj) for relation, obj in row.items() if obj]
        if (
            capital
            and country.lower() not in capital.lower()
            and capital.lower() not in country.lower()
        ):
            facts += [(capital, "country", country), (capital, "continent", continent)]
    for line in (HERE / "states.tsv").read_text("utf-8").splitlines():
        state, capital = line.split("|")
        facts += [(state, "capital", capital), (state, "country", "United States")]
    for line in (HERE / "known.tsv").read_text("utf-8").splitlines():
        relation, obj, subjects = line.split("|")
        facts += [(subject.strip(), relation, obj) for subject in subjects.split(";")]
    return facts


def _spread(
    subjects: dict[str, str], relations_of: Counter[str], most: int, per_object: int
) -> list[tuple[str, str]]:
    """Pick at most `per_object` subjects of each object that has enough, many relations first."""
    by_object: dict[str, list[str]] = defaultdict(list)
    for subject, obj in subjects.items():
        by_object[obj].append(subject)
    kept = []
    for obj, names in by_object.items():
        names.sort(key=lambda name: (-relations_of[name], len(name), name))
        if len(names) >= MIN_SUBJECTS:
            # Common objects come first, a round of subjects each: neighbours are then plenty.
            kept += [
                (rank // ROUND, -len(names), obj, rank, name)
                for rank, name in enumerate(names[:per_object])
            ]
    return [(name, obj) for _, _, obj, _, name in sorted(kept)[:most]]


def pararel_facts(path: Path) -> list[Fact]:
    """Return the cleaned facts of a ParaRel triples file, one object per (subject, relation)."""
    limits = _limits()
    triples = json.loads(path.read_text("utf-8"))
    tables: dict[str, dict[str, str]] = {}
    relations_of: Counter[str] = Counter()
    for pid in limits:
        seen: dict[str, set[str]] = defaultdict(set)
        for row in triples[pid]:
            seen[row["sub_label"]].add(row["obj_label"])
        single = {subject: next(iter(objs)) for subject, objs in seen.items() if len(objs) == 1}
        tables[pid] = {s: o for s, o in single.items() if _clean(s, o)}
        relations_of.update(tables[pid].keys())
    facts: list[Fact] = []
    for pid, (relation, most, per_object) in limits.items():
        for subject, obj in _spread(tables[pid], relations_of, most, per_object):
            facts.append((subject, relation, obj))
    return facts


def build(pararel: Path, people: int, seed: int) -> list[Fact]:
    """Return all facts, sorted; the first source that states a (subject, relation) decides."""
    table: dict[tuple[str, str], str] = {}
    known = hand_written()
    owners = {subject for subject, _, _ in known}
    stated = set(known)
    for subject, relation, obj in known + pararel_facts(pararel) + invented_people(people, seed):
        if obj.lower() in subject.lower() or subject.lower() in obj.lower():
            continue
        # A blank in the tables of countries and states is a decision, not a gap to be filled.
        if subject in owners and relation in OF_PLACES and (subject, relation, obj) not in stated:
            continue
        table.setdefault((subject, relation), obj)
    return sorted((subject, relation, obj) for (subject, relation), obj in table.items())


def main() -> None:
    """Write `facts.tsv` beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pararel", type=Path, required=True, help="pararel_trex_triples.json")
    parser.add_argument("--people", type=int, default=340)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=HERE / "facts.tsv")
    args = parser.parse_args()
    facts = build(args.pararel, args.people, args.seed)
    args.out.write_text("".join(f"{s}\t{r}\t{o}\n" for s, r, o in facts), "utf-8")
    print(f"{len(facts)} facts about {len({s for s, _, _ in facts})} subjects")


if __name__ == "__main__":
    main()
