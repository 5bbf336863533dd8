"""`patchkit eval` and `patchkit try`."""

from pathlib import Path

import pytest

from tests.cli.helpers import Check, run


def test_eval(check: Check, base: Path, patch: Path) -> None:
    ran = check(
        ["eval", patch, "--base", base],
        human="""
            METRIC         BASE  PATCHED  KEPT  PROMPTS
            efficacy      0.000    0.000     —        2
            paraphrase    0.000    0.000     —        1
            neighborhood  0.000    0.000     —        1
            same_subject  0.000    0.000     —        1
            missed      lines 1, 2
            convention  argmax: every token of the target is the model's first choice
            ✓ evaluated 2 facts in 0.0s
            """,
        json={"schema": "patchkit.eval/1", "ok": True, "facts": 2, "missed": [1, 2]},
        quiet="0.0000",
    )
    assert set(ran.data["metrics"]) == {"argmax", "first-token", "probability"}
    assert ran.data["metrics"]["argmax"]["efficacy"] == {
        "value": 0.0,
        "base": 0.0,
        "patched": 0.0,
        "kept": None,
        "prompts": 2,
    }
    assert ran.data["results"][0]["prompt"] == "The capital of France is"
    assert ran.data["perplexity"] == {"base": None, "patched": None}


def test_a_missed_minimum_is_a_negative_verdict(base: Path, patch: Path) -> None:
    limits = ["--min", "efficacy=0.5", "--min", "retention=0.5"]
    ran = run("eval", patch, "--base", base, *limits)
    assert (ran.code, ran.stderr) == (3, "")
    assert "✗ efficacy 0 is below 0.5" in ran.stdout
    assert "✗ retention was not measured" in ran.stdout
    assert run("eval", patch, "--base", base, "--min", "efficacy=0").code == 0


def test_other_facts_a_text_and_facts_to_retain(base: Path, patch: Path) -> None:
    line = '{"subject":"%s","prompt":"The capital of {} is","target":"Rome"}\n'
    Path("facts.jsonl").write_text(line % "Spain")
    Path("retain.jsonl").write_text(line % "Italy" + line % "Spain")
    Path("prose.txt").write_text("The capital of Italy is Rome. " * 5)
    files = ["--facts", "facts.jsonl", "--retain", "retain.jsonl", "--text", "prose.txt"]
    ran = run("eval", patch, "--base", base, *files, "--json")
    assert ran.code == 0
    assert ran.data["facts"] == 1
    assert ran.data["metrics"]["argmax"]["retention"]["prompts"] == 1
    assert ran.data["perplexity"]["base"]["value"] > 1
    assert "perplexity" in run("eval", patch, "--base", base, *files).stdout


@pytest.mark.parametrize("convention", ["argmax", "first-token", "probability"])
def test_the_convention_is_named(base: Path, patch: Path, convention: str) -> None:
    ran = run("eval", patch, "--base", base, "--convention", convention)
    assert f"convention  {convention}: " in ran.stdout


def test_try(check: Check, base: Path, patch: Path) -> None:
    args = ["try", "The capital of France is", "--patch", patch, "--base", base]
    ran = check(
        args,
        human=run(*args).stdout,
        json={"schema": "patchkit.try/1", "ok": True, "prompt": "The capital of France is"},
        quiet=run(*args, "-q").stdout,
    )
    human = run(*args).stdout.splitlines()
    assert human[0].split() == ["BASE", "P", "PATCHED", "P"]
    assert len(human) == 1 + 5 + 1 + 2
    for side in ("base", "patched"):
        top = [candidate["probability"] for candidate in ran.data[side]["top"]]
        assert top == sorted(top, reverse=True)
    assert ran.data["base"]["top"] != ran.data["patched"]["top"]


def test_try_as_long_and_as_wide_as_asked(base: Path, patch: Path) -> None:
    options = ["--patch", patch, "--base", base, "--top", "2"]
    ran = run("try", "The capital of France is", *options, "--json", "-n", "1")
    assert len(ran.data["base"]["top"]) == 2
    more = run("try", "The capital of France is", *options, "--json", "-n", "8")
    assert more.data["patched"]["text"].startswith(ran.data["patched"]["text"])


def test_the_wrong_base_is_refused(patch: Path, tmp_path: Path) -> None:
    from tests.unit.models.factory import save_tiny

    save_tiny("llama2", tmp_path / "other", seed=1)
    for command in (["eval", patch], ["try", "x", "--patch", patch]):
        ran = run(*command, "--base", tmp_path / "other", "--json")
        assert (ran.code, ran.stdout, ran.data["code"]) == (1, "", "base_mismatch")
