"""Facts made to be slow or enormous are refused in the time and space that their size takes."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from patchkit.errors import FactsError
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.jsonl import parse_jsonl

LONG = 300_000  # characters; a line may have a million
HOSTILE = {
    "a subject that almost occurs everywhere": json.dumps(
        {"subject": "a" * (LONG // 2) + "b", "prompt": "a" * LONG, "target": "x"}
    ),
    "a subject that occurs everywhere": json.dumps(
        {"subject": "a" * (LONG // 2), "prompt": "a" * LONG, "target": "x"}
    ),
    "a key that stands twice after many": "{"
    + "".join(f'"{i}":0,' for i in range(LONG // 8))
    + f'"{LONG // 8 - 1}":0}}',
    "many unknown keys": "{" + ",".join(f'"subjec{i}":0' for i in range(LONG // 16)) + "}",
    "many slots for a long subject": json.dumps(
        {
            "subject": "a" * LONG,
            "prompt": "{} is",
            "target": "x",
            "paraphrases": ["{}" * (LONG // 2)],
        }
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_soon_and_small(name: str) -> None:
    data = HOSTILE[name].encode()
    began = time.process_time()
    with pytest.raises(FactsError):
        parse_jsonl(data)
    assert time.process_time() - began < 2
    tracemalloc.start()
    with pytest.raises(FactsError):
        parse_jsonl(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("where", ["paraphrases", "generation", "same_subject"])
def test_a_subject_that_would_be_written_too_often_is_said(where: str) -> None:
    text = "{}" * 200
    value = (Probe(text, "x"),) if where == "same_subject" else (text,)
    with pytest.raises(FactsError, match="would be written 200 times, of 600 characters"):
        Fact("a" * 600, "{} is", "x", **{where: value})
    assert Fact("a" * 100, "{} is", "x", **{where: value}).subject == "a" * 100
