"""Read a file of facts in any known format, told apart by content and not by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from patchkit.errors import FactsError
from patchkit.facts import counterfact, knowedit, zsre
from patchkit.facts.collection import FactsFile, Place, collect, gather
from patchkit.facts.decoding import decode_json, without_bom
from patchkit.facts.fact import Fact, Probe, Problem
from patchkit.facts.jsonl import MAX_FACTS, digest, parse_jsonl, to_jsonl

__all__ = [
    "Fact",
    "FactsFile",
    "Format",
    "Probe",
    "Problem",
    "digest",
    "parse_facts",
    "parse_jsonl",
    "read_facts",
    "to_jsonl",
]

Format = Literal["auto", "jsonl", "counterfact", "zsre", "knowedit"]
MAX_FILE_BYTES = 1 << 29
_HINT = f"formats: {', '.join(get_args(Format)[1:])}"


def read_facts(
    path: str | Path,
    format: Format = "auto",
    *,
    strict: bool = False,
    target: zsre.Target = "alt",
) -> FactsFile:
    """Read facts from a file.

    `target` is zsRE's column for the new answer. A bad line of a facts file raises `FactsError`
    with all bad lines; a bad record of a data set is left out and warned of, unless `strict`.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise FactsError(f"{path} has {size} bytes, the limit is {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise FactsError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_facts(data, format, name=str(path), strict=strict, target=target)


def parse_facts(
    data: bytes,
    format: Format = "auto",
    *,
    name: str = "facts",
    strict: bool = False,
    target: zsre.Target = "alt",
) -> FactsFile:
    """Read facts from bytes, as `read_facts` does; `name` stands in the messages."""
    is_array = without_bom(data, name).lstrip()[:1] == b"["
    if format == "jsonl" or (format == "auto" and not is_array):
        return parse_jsonl(data, name=name, strict=strict)
    records = _records(without_bom(data, name), name)
    found = _recognised(records, name) if format == "auto" else format
    readers: Mapping[str, Callable[[object], Fact]] = {
        "counterfact": counterfact.fact,
        "zsre": partial(zsre.fact, target=target),
        "knowedit": knowedit.fact,
    }
    places = ((Place(index, "record"), record) for index, record in enumerate(records))
    entries, problems = gather(places, readers[found])
    return collect(entries, problems, name=name, format=found, strict=strict)


def _records(data: bytes, name: str) -> Sequence[object]:
    try:
        value = decode_json(data)
    except FactsError as error:
        raise FactsError(f"{name}: {error.message}", problems=error.problems) from None
    if not isinstance(value, list):
        raise FactsError(f"{name} must be one JSON array of records, found an object", hint=_HINT)
    if len(value) > MAX_FACTS:
        raise FactsError(f"{name} has {len(value)} records, the limit is {MAX_FACTS}")
    return value


def _recognised(records: Sequence[object], name: str) -> Format:
    """The data set whose keys the first record has; a sentence for those that hold no facts."""
    first = next((record for record in records if isinstance(record, Mapping)), {})
    if isinstance(first.get("requested_rewrite"), list):
        raise FactsError(f"{name} has MQuAKE's records, which are not read", hint=_HINT)
    if counterfact.matches(first):
        return "counterfact"
    if zsre.matches(first):
        return "zsre"
    if knowedit.matches(first):
        return "knowedit"
    if knowedit.is_wikibio(first):
        raise FactsError(
            f"{name} has KnowEdit WikiBio's records, sentences to continue without a subject "
            "and a prompt, so there is no fact to edit",
            hint="wiki_counterfact and wiki_recent of KnowEdit can be read",
        )
    if {"subject", "prompt", "target"} <= first.keys():
        raise FactsError(
            f"{name} is one JSON array, a facts file has one object per line",
            hint=f"jq -c '.[]' {name} > facts.jsonl",
        )
    if not records:
        raise FactsError(f"{name} has no facts", hint=_HINT)
    keys = ", ".join(map(str, list(first)[:8])) or "none"
    raise FactsError(f"{name}: no known data set has records with these keys: {keys}", hint=_HINT)
