"""The facts file of patchkit: one JSON object per line, and its canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from patchkit.errors import FactsError
from patchkit.facts.collection import FactsFile, Place, collect, gather
from patchkit.facts.decoding import decode_json, without_bom
from patchkit.facts.fact import Fact, MultiHop, Probe, Problem, invalid
from patchkit.facts.fields import Fields

MAX_LINE_BYTES = 1 << 20
MAX_FACTS = 1_000_000
REQUIRED = ("subject", "prompt", "target")
OPTIONAL = (
    "target_true",
    "paraphrases",
    "neighbors",
    "same_subject",
    "id",
    "portability",
    "multihop",
    "generation",
    "reference",
)


def parse_jsonl(data: bytes, *, name: str = "facts.jsonl", strict: bool = False) -> FactsFile:
    """Read facts from the bytes of a facts file; `name` stands in the messages.

    Blank lines, a byte order mark and Windows line ends are accepted. Raises one `FactsError` with
    every bad line; with `strict`, contradictions are bad lines too.
    """
    entries, problems = gather(_lines(data, name), _fact_of_line)
    return collect(entries, problems, name=name, format="jsonl", strict=strict)


def _lines(data: bytes, name: str) -> list[tuple[Place, bytes]]:
    """The lines of `data` that are not blank, with their numbers."""
    # Only "\n" ends a line: U+2028 and U+0085, which splitlines() takes too, can be in a string.
    numbered = enumerate(without_bom(data, name).split(b"\n"), 1)
    filled = [(Place(number), line) for number, line in numbered if line.strip()]
    if len(filled) > MAX_FACTS:
        raise FactsError(f"{name} has {len(filled)} facts, the limit is {MAX_FACTS}")
    if filled and filled[0][1].strip() == b"{":
        raise FactsError(
            f"{name} has objects over several lines, a facts file has one per line",
            hint=f"jq -c . {name} > facts.jsonl",
        )
    return filled


def to_jsonl(facts: Iterable[Fact]) -> bytes:
    """The canonical form: sorted keys, no blanks, nothing that can be left out, one line each."""
    return b"".join(_line(fact) for fact in facts)


def _line(fact: Fact) -> bytes:
    text = json.dumps(_record(fact), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def digest(facts: Iterable[Fact]) -> str:
    """The hash of the canonical form, "sha256:" and 64 hex digits."""
    return f"sha256:{hashlib.sha256(to_jsonl(facts)).hexdigest()}"


def _fact_of_line(line: bytes) -> tuple[Fact, ...]:
    if len(line) > MAX_LINE_BYTES:
        message = f"the line has {len(line)} bytes, the limit is {MAX_LINE_BYTES}"
        raise invalid(Problem(None, None, message))
    fields = Fields(decode_json(line))
    fields.check()
    meant = fields.refuse_unknown((*REQUIRED, *OPTIONAL))
    # A required key that was only misspelt is one mistake, not two.
    subject, prompt, target = ("" if key in meant else fields.string(key) for key in REQUIRED)
    optional: dict[str, Any] = {
        "target_true": fields.optional_string("target_true"),
        "paraphrases": fields.strings("paraphrases"),
        "neighbors": fields.probes("neighbors", bare=True),
        "same_subject": fields.probes("same_subject"),
        "id": fields.identifier("id"),
        "portability": fields.probes("portability"),
        "multihop": fields.multihops("multihop"),
        "generation": fields.strings("generation"),
        "reference": fields.optional_string("reference"),
    }
    fields.check()
    return (Fact(subject, prompt, target, **optional),)


def _record(fact: Fact) -> dict[str, object]:
    record: dict[str, object] = {key: getattr(fact, key) for key in REQUIRED}
    for key in OPTIONAL:
        value = getattr(fact, key)
        if isinstance(value, tuple):
            value = [_plain(item) for item in value]
        if value and not (key == "id" and value == fact.derived_id):
            record[key] = value
    return record


def _plain(item: str | Probe | MultiHop) -> object:
    """One item of a list: a string, or the fields of a probe that say something."""
    if isinstance(item, str):
        return item
    fields = {name: getattr(item, name) for name in item.__slots__ if getattr(item, name)}
    return item.prompt if isinstance(item, Probe) and fields.keys() == {"prompt"} else fields
