"""`patchkit facts`."""

import json
from pathlib import Path

from patchkit.facts.reading import to_jsonl
from tests.cli.helpers import FACTS, Check, run

GOOD = '{"subject":"France","prompt":"The capital of {} is","target":"Rome","id":"a"}\n'


def test_a_good_file(check: Check) -> None:
    Path("facts.jsonl").write_text(GOOD)
    check(
        ["facts", "facts.jsonl"],
        human="""
            LINE  FACT                      TARGET  INSTEAD OF  ID
               1  The capital of France is  Rome    —           a
            ✓ 1 fact in facts.jsonl (jsonl)
            """,
        json={
            "schema": "patchkit.facts/1",
            "ok": True,
            "count": 1,
            "format": "jsonl",
            "warnings": [],
            "ids": ["a"],
            "facts": [json.loads(GOOD)],
        },
        quiet='{"id":"a","prompt":"The capital of {} is","subject":"France","target":"Rome"}',
    )


def test_the_facts_of_a_patch_come_out_as_they_went_in(patch: Path) -> None:
    ran = run("facts", patch, "-q")
    assert ran.stdout.encode() == to_jsonl(FACTS)
    Path("again.jsonl").write_text(ran.stdout, encoding="utf-8")
    assert run("facts", "again.jsonl", "-q").stdout == ran.stdout


def test_every_bad_line_at_once(check: Check) -> None:
    bad = '{"subject":"Spain","prompt":"The capital of {} is","target_new":"Rome"}\n'
    Path("bad.jsonl").write_text(bad + GOOD + bad)
    ran = run("facts", "bad.jsonl")
    assert (ran.code, ran.stdout) == (1, "")
    lines = ran.stderr.splitlines()
    assert lines[0] == "error: bad.jsonl has 2 invalid facts"
    assert [line.split()[:2] for line in lines[1:3]] == [["line", "1"], ["line", "3"]] or (
        {line.split()[1] for line in lines if line.startswith("  line")} == {"1", "3"}
    )
    assert 'did you mean "target"' in ran.stderr
    assert lines[-1].startswith("hint: patchkit edit --help")
    problems = run("facts", "bad.jsonl", "--json").data["details"]["problems"]
    assert {problem["line"] for problem in problems} == {1, 3}


def test_duplicates_are_a_warning() -> None:
    Path("twice.jsonl").write_text(GOOD + GOOD)
    ran = run("facts", "twice.jsonl")
    assert ran.code == 0
    assert "warning: line 2  the same fact as line 1" in ran.stderr
    assert "1 fact in twice.jsonl (jsonl), 1 warning" in ran.stdout


def test_what_reorders_text_is_shown_as_an_escape() -> None:
    fact = {"subject": "Fra\u202ence", "prompt": "The capital of {} is", "target": "Ro\u200bme"}
    Path("odd.jsonl").write_text(json.dumps(fact) + "\n")
    for mode in ([], ["-q"], ["--json"]):
        ran = run("facts", "odd.jsonl", *mode)
        assert ran.code == 0
        assert "\u202e" not in ran.stdout + ran.stderr
        assert "\\u202e" in ran.stdout
    assert run("facts", "odd.jsonl", "--json").data["facts"][0]["subject"] == fact["subject"]


def test_a_terminal_escape_never_reaches_the_terminal() -> None:
    fact = {"subject": "\x1b[2JFrance", "prompt": "The capital of {} is", "target": "Rome"}
    Path("hostile.jsonl").write_text(json.dumps(fact) + "\n")
    for mode in ([], ["-q"], ["--json"]):
        ran = run("facts", "hostile.jsonl", *mode)
        assert "\x1b" not in ran.stdout + ran.stderr
        assert ran.code == 1
        assert "U+001B" in ran.stderr
