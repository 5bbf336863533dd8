"""`patchkit edit`, with the real engine on a tiny model and a recipe of two steps."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from patchkit.facts.reading import to_jsonl
from patchkit.patch.patch import Patch
from tests.cli.helpers import EDITED, FACTS, Check, run

pytestmark = pytest.mark.usefixtures("fast_recipe")


@pytest.fixture
def facts() -> Path:
    path = Path("facts.jsonl")
    path.write_bytes(to_jsonl(FACTS))
    return path


def test_edit(check: Check, facts: Path, base: Path) -> None:
    made = Path("facts.patch.safetensors")
    ran = check(
        ["edit", facts, "--base", base, "--layers", "1"],
        human=run("edit", facts, "--base", base, "--layers", "1").stdout,
        stderr="\nhint: patchkit verify facts.patch.safetensors",
        json={
            "schema": "patchkit.edit/1",
            "ok": True,
            "dry_run": False,
            "path": "facts.patch.safetensors",
            "corpus": "self",
            "layers": {"layers": [1], "evidence": []},
        },
        quiet="facts.patch.safetensors",
        before=lambda: made.unlink(missing_ok=True),
    )
    patch = Patch.read(made)
    assert ran.data["digest"] == patch.digest
    assert ran.data["bytes"] == made.stat().st_size
    assert ran.data["facts"]["total"] == 2
    assert [result["line"] for result in ran.data["results"]] == [1, 2]
    assert [tensor["name"] for tensor in ran.data["tensors"]] == [EDITED] == list(patch.factors)
    assert patch.facts_jsonl == to_jsonl(FACTS)


def test_plan_writes_nothing(facts: Path, base: Path) -> None:
    args = ["edit", facts, "--base", base, "--plan"]
    ran = run(*args)
    assert (ran.code, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == f"Would edit 2 facts (2 subjects) of {base} in 1 batch"
    assert [line.split()[0] for line in lines[1:]] == ["write", "layers", "memory"]
    assert "chosen by measurement" in lines[2]
    assert "layers  1" in run(*args, "--layers", "1").stdout
    data = run(*args, "--json").data
    assert data["schema"] == "patchkit.edit/1"
    assert (data["dry_run"], data["path"]) == (True, "facts.patch.safetensors")
    assert data["facts"] == {"total": 2, "subjects": 2}
    assert data["layers"] == {"layers": None, "candidates": 3}
    assert data["bytes"] > 0
    assert run(*args, "-q").stdout == "facts.patch.safetensors\n"
    assert [path.name for path in Path().iterdir()] == ["facts.jsonl"]


def test_the_report_for_people(facts: Path, base: Path) -> None:
    lines = run("edit", facts, "--base", base).stdout.splitlines()
    assert lines[0].startswith("✓ wrote facts.patch.safetensors (")
    keys = ["facts", "tensors", "layers", "rounding", "elsewhere"]
    assert [line.split()[0] for line in lines[1:]] == keys
    assert "0 of 2 reach the target (missed: lines 1, 2)" in lines[1]
    assert "condition number unchanged" in lines[2]
    assert "nats lost alone/together" in lines[3]


def test_the_second_run_finds_its_cache(facts: Path, base: Path) -> None:
    assert run("edit", facts, "--base", base).code == 0
    first = run("cache", "ls", "--json").data["files"]
    assert len(first) > 0
    one = Path("facts.patch.safetensors").read_bytes()
    assert run("edit", facts, "--base", base, "-y").code == 0
    assert run("cache", "ls", "--json").data["files"] == first
    assert Path("facts.patch.safetensors").read_bytes() == one


def test_a_missed_minimum_is_a_negative_verdict_and_the_patch_is_kept(
    facts: Path, base: Path
) -> None:
    ran = run("edit", facts, "--base", base, "--min", "efficacy=0.9")
    assert ran.code == 3
    assert "✗ efficacy 0 is below 0.9" in ran.stdout
    assert Patch.read("facts.patch.safetensors")
    ran = run("edit", facts, "--base", base, "--min", "efficacy=0.9", "-y", "--json")
    assert (ran.code, ran.data["ok"]) == (3, False)


def test_on_a_patch_comes_after_it(facts: Path, base: Path, patch: Path, made: Patch) -> None:
    ran = run("edit", facts, "--base", base, "--on", patch, "-o", "two.patch.safetensors")
    assert ran.code == 0, ran.stderr
    assert Patch.read("two.patch.safetensors").metadata.after == (made.digest,)


def test_options_reach_the_recipe(facts: Path, base: Path) -> None:
    options = ["--layers", "2,1", "--seed", "7", "--batch-size", "1", "--storage", "bfloat16"]
    ran = run("edit", facts, "--base", base, *options, "--no-embed-facts")
    assert ran.code == 0, ran.stderr
    patch = Patch.read("facts.patch.safetensors")
    recipe = patch.metadata.recipe
    assert (recipe["layers"], recipe["seed"], recipe["batch"]) == ([1, 2], 7, 1)
    assert recipe["storage"] == "bfloat16"
    assert patch.facts_jsonl is None


def test_a_text_of_ones_own_is_preserved(facts: Path, base: Path) -> None:
    Path("corpus.txt").write_text("The capital of Italy is Rome. " * 40)
    ran = run("edit", facts, "--base", base, "--corpus", "corpus.txt", "--json")
    assert (ran.code, ran.data["corpus"]) == (0, "corpus.txt")


@pytest.mark.parametrize(
    "options",
    [["--layers", "two"], ["--min", "luck=1"], ["--min", "efficacy=high"], ["--device", "abacus"]],
)
def test_impossible_options_are_usage_errors(facts: Path, base: Path, options: list[str]) -> None:
    ran = run("edit", facts, "--base", base, *options)
    assert (ran.code, ran.stdout) == (2, "")
    assert not Path("facts.patch.safetensors").exists()


def test_a_layer_that_is_not_there(facts: Path, base: Path) -> None:
    ran = run("edit", facts, "--base", base, "--layers", "9")
    assert (ran.code, ran.stdout) == (1, "")
    assert "layer 9" in ran.stderr
    assert not Path("facts.patch.safetensors").exists()


def test_another_method_with_its_own_settings(facts: Path, base: Path) -> None:
    options = [
        "--method",
        "memit",
        "--set",
        "lam=3",
        "--protect",
        "spectrum",
        "--set",
        "energy=0.1",
    ]
    ran = run("edit", facts, "--base", base, "--layers", "1", *options, "--published-scales")
    assert ran.code == 0, ran.stderr
    assert "memit, norm × " in ran.stdout
    patch = Patch.read("facts.patch.safetensors")
    recipe: Any = patch.metadata.recipe
    assert patch.metadata.method == recipe["method"] == "memit"
    assert (recipe["options"]["lam"], recipe["options"]["published_scales"]) == (3.0, True)
    assert (recipe["protect"], recipe["protection"]["energy"]) == (["spectrum"], 0.1)
    assert [factor.kind for factor in patch.factors[EDITED]] == ["additive"]
    again = run("edit", "facts.patch.safetensors", "--base", base, "-o", "b.patch.safetensors")
    assert again.code == 0, again.stderr
    assert Patch.read("b.patch.safetensors").to_bytes() == patch.to_bytes()


def test_settings_reach_the_host_of_a_method(facts: Path, base: Path) -> None:
    options = ["--method", "prune", "--set", "host=rome", "--variant", "p-rome", "--layers", "1"]
    assert run("edit", facts, "--base", base, *options).code == 0
    recipe: Any = Patch.read("facts.patch.safetensors").metadata.recipe
    assert recipe["options"]["host"] == "rome"
    assert recipe["options"]["host_options"]["variant"] == "p-rome"
    assert recipe["options"]["host_options"]["steps"] == 2


def test_a_recipe_file_and_a_built_in_one(facts: Path, base: Path) -> None:
    Path("mine.toml").write_text('method = "emmet"\n[options]\nmu = 0.5\n', "utf-8")
    ran = run("edit", facts, "--base", base, "--layers", "1", "--recipe", "mine.toml", "--json")
    assert (ran.code, ran.data["method"]) == (0, "emmet")
    ran = run("edit", facts, "--base", base, "--recipe", "memit-llama3", "--plan")
    assert ran.code == 1
    assert "memit-llama3-8b" in ran.stderr
    ran = run("edit", facts, "--base", base, "--recipe", "memit-llama3-8b", "--plan", "--json")
    assert ran.data["layers"]["layers"] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "memit", "--set", "lamb=3"], "did you mean lam or"),
        (["--method", "rome", "--protect", "history"], "rome does not take the protection history"),
        (["--set", "steps=many"], "steps the value 'many'"),
    ],
)
def test_settings_that_cannot_be_are_explained(
    facts: Path, base: Path, options: list[str], said: str
) -> None:
    ran = run("edit", facts, "--base", base, *options)
    assert (ran.code, ran.stdout) == (1, "")
    assert said in ran.stderr


@pytest.mark.parametrize("text", ["lam", "lam.deep=3", "nowhere.lam=3"])
def test_a_setting_needs_a_name_and_a_value(facts: Path, base: Path, text: str) -> None:
    ran = run("edit", facts, "--base", base, "--set", text)
    assert (ran.code, ran.stdout) == (2, "")


def test_kept_facts_are_told_of(facts: Path, base: Path) -> None:
    kept = '{"subject": "Peru", "prompt": "The capital of {} is", "target": "Paris", "id": "peru"}'
    Path("kept.jsonl").write_text(kept + "\n", "utf-8")
    args = ["edit", facts, "--base", base, "--layers", "1", "--keep", "kept.jsonl", "-y"]
    ran = run(*args)
    assert "kept       0 of 0 still hold; 1 are not what the base says" in ran.stdout
    data = run(*args, "--json").data
    [result] = data["kept"]
    assert (result["id"], result["known"], result["holds"]) == ("peru", False, False)
    assert data["facts"]["total"] == 2
    ran = run(*args, "--method", "rome")
    assert ran.code != 0
    assert "rome cannot hold facts" in ran.stderr


def test_chat_needs_a_template(facts: Path, base: Path) -> None:
    ran = run("edit", facts, "--base", base, "--chat")
    assert ran.code == 1
    assert "has no chat template" in ran.stderr
    assert "leave out --chat" in ran.stderr
    assert not Path("facts.patch.safetensors").exists()


def test_chat_asks_as_the_template_does(facts: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "instruct"
    shutil.copytree(base, folder)
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    run("edit", facts, "--base", folder, "--chat", "--layers", "1")
    embedded = Patch.read("facts.patch.safetensors").facts_jsonl
    assert embedded is not None
    prompts = [json.loads(line)["prompt"] for line in embedded.splitlines()]
    assert prompts == [f"<user>{fact.prompt}</>" for fact in FACTS]
