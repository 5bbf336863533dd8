"""`patchkit eval` and `patchkit try`."""

from pathlib import Path
from typing import get_args

import pytest

from patchkit_cli.eval_report import FIGURES, Convention
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
            convention  patchkit: every token right; of what should stay, the share kept
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
    assert set(ran.data["conventions"]) == {"patchkit", "alphaedit", "easyedit"}
    assert ran.data["conventions"]["patchkit"]["efficacy"] == {
        "base": 0.0,
        "patched": 0.0,
        "count": 2,
    }
    assert ran.data["tasks"] == {"base": {}, "patched": {}}


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


@pytest.mark.parametrize("convention", get_args(Convention))
def test_the_convention_is_named(base: Path, patch: Path, convention: str) -> None:
    ran = run("eval", patch, "--base", base, "--convention", convention)
    assert f"convention  {convention}: " in ran.stdout
    data = run("eval", patch, "--base", base, "--convention", convention, "--json").data
    assert data["convention"] == convention
    assert len(data["conventions"]) == 3


def test_another_convention_shows_its_own_figures(base: Path, patch: Path) -> None:
    ran = run("eval", patch, "--base", base, "--convention", "easyedit")
    names = [line.split()[0] for line in ran.stdout.splitlines()[:7]]
    assert names == [
        "METRIC",
        "rewrite_acc",
        "rephrase_acc",
        "locality",
        "locality/neighborhood",
        "locality/same_subject",
        "missed",
    ]
    limits = ["--convention", "alphaedit", "--min", "efficacy_success=1.1"]
    ran = run("eval", patch, "--base", base, *limits)
    assert ran.code == 3
    assert "is below 1.1" in ran.stdout
    assert run("eval", patch, "--base", base, "--min", "efficacy_success=1").code == 2


def test_the_figures_that_can_be_named_are_those_of_the_library(base: Path, patch: Path) -> None:
    line = (
        '{"subject":"Spain","prompt":"The capital of {} is","target":"Rome","target_true":"Paris",'
        '"paraphrases":["{} has"],"neighbors":[{"prompt":"Italy has","target":"Rome"}],'
        '"portability":[{"prompt":"{} is","target":"yen"}],"generation":["{} is"]}'
    )
    Path("facts.jsonl").write_text(line)
    options = ["--facts", "facts.jsonl", "--generate", "--json"]
    found = run("eval", patch, "--base", base, *options).data["conventions"]
    for convention, names in FIGURES.items():
        shown = {name for name in found[convention] if "/" not in name}
        assert shown == set(names) - {"consistency"}


def test_letting_the_models_write(base: Path, patch: Path) -> None:
    line = (
        '{"subject":"Spain","prompt":"The capital of {} is","target":"Rome","generation":["{} is"]}'
    )
    Path("facts.jsonl").write_text(line)
    ran = run("eval", patch, "--base", base, "--facts", "facts.jsonl", "--generate")
    assert ran.code == 0, ran.stderr
    lines = [line.split()[0] for line in ran.stdout.splitlines()]
    assert lines[:5] == ["METRIC", "efficacy", "efficacy_generated", "TEXTS", "fluency"]


def test_snippets_that_cannot_be_read(base: Path, patch: Path) -> None:
    Path("snippets.json").write_text("{}")
    ran = run("eval", patch, "--base", base, "--snippets", "snippets.json")
    assert (ran.code, ran.stdout) == (1, "")
    assert "must be one JSON array" in ran.stderr


def test_a_task_is_run_or_what_it_needs_is_named(base: Path, patch: Path) -> None:
    ran = run("eval", patch, "--base", base, "--tasks", "none.yaml", "--json")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.data["code"] in ("task_failed", "extra_missing")


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
