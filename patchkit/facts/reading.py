"""Read a file of facts in any known format, told apart by content and not by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from patchkit.errors import FactsError
from patchkit.facts import conceptedit, counterfact, knowedit, leme, mquake, rippleedits, zsre
from patchkit.facts.collection import FactsFile, Place, collect, gather
from patchkit.facts.decoding import decode_json, without_bom
from patchkit.facts.fact import Fact, MultiHop, Probe, Problem
from patchkit.facts.jsonl import MAX_FACTS, digest, parse_jsonl, to_jsonl

__all__ = [
    "Fact",
    "FactsFile",
    "Format",
    "MultiHop",
    "Probe",
    "Problem",
    "digest",
    "parse_facts",
    "parse_jsonl",
    "read_facts",
    "to_jsonl",
]

Format = Literal[
    "auto",
    "jsonl",
    "counterfact",
    "zsre",
    "zsre-alphaedit",
    "knowedit",
    "conceptedit",
    "mquake",
    "leme",
    "rippleedits",
]
MAX_FILE_BYTES = 1 << 29
# Told apart by their keys; one that extends another's comes first.
_MATCHES: tuple[tuple[Format, Callable[[Mapping[str, object]], bool]], ...] = (
    ("leme", leme.matches),
    ("mquake", mquake.matches),
    ("rippleedits", rippleedits.matches),
    ("counterfact", counterfact.matches),
    ("zsre", zsre.matches),
    ("knowedit", knowedit.matches),
    ("conceptedit", conceptedit.matches),
)
_HINT = f"formats: {', '.join(get_args(Format)[1:])}"


def read_facts(
    path: str | Path,
    format: Format = "auto",
    *,
    strict: bool = False,
) -> FactsFile:
    """Read facts from a file.

    A bad line of a facts file raises `FactsError` with all bad lines; a bad record of a data set
    is left out and warned of, unless `strict`. zsRE is read as EasyEdit reads it unless `format`
    is "zsre-alphaedit".
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise FactsError(f"{path} has {size} bytes, the limit is {MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise FactsError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_facts(data, format, name=str(path), strict=strict)


def parse_facts(
    data: bytes,
    format: Format = "auto",
    *,
    name: str = "facts",
    strict: bool = False,
) -> FactsFile:
    """Read facts from bytes, as `read_facts` does; `name` stands in the messages."""
    is_array = without_bom(data, name).lstrip()[:1] == b"["
    if format == "jsonl" or (format == "auto" and not is_array):
        return parse_jsonl(data, name=name, strict=strict)
    records = _records(without_bom(data, name), name)
    found = _recognised(records, name) if format == "auto" else format
    places = ((Place(index, "record"), record) for index, record in enumerate(records))
    entries, problems = gather(places, _reader(found, records))
    return collect(entries, problems, name=name, format=found, strict=strict)


def _reader(format: Format, records: Sequence[object]) -> Callable[[object], Sequence[Fact]]:
    """How to read one record of a data set."""
    if format == "mquake":
        return mquake.facts
    single: Mapping[str, Callable[[object], Fact]] = {
        "counterfact": counterfact.fact,
        "zsre": zsre.easyedit,
        "zsre-alphaedit": zsre.alphaedit,
        "knowedit": knowedit.fact,
        "conceptedit": conceptedit.fact,
        "leme": leme.fact,
    }
    fact = rippleedits.reader(records) if format == "rippleedits" else single[format]
    return lambda record: (fact(record),)


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
    for format, matches in _MATCHES:
        if matches(first):
            return format
    if {"subject", "prompt", "target"} <= first.keys():
        raise FactsError(
            f"{name} is one JSON array, a facts file has one object per line",
            hint=f"jq -c '.[]' {name} > facts.jsonl",
        )
    if not records:
        raise FactsError(f"{name} has no facts", hint=_HINT)
    keys = ", ".join(map(str, list(first)[:8])) or "none"
    raise FactsError(f"{name}: no known data set has records with these keys: {keys}", hint=_HINT)
