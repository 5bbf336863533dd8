"""`patchkit diff`."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchkit.facts.reading import to_jsonl
from patchkit.patch.metadata import FactsMeta
from patchkit.patch.patch import Patch
from patchkit.tensors.digests import bytes_digest
from tests.cli.helpers import EDITED, FACTS, Check, make_patch, run
from tests.unit.models.factory import save_tiny


@pytest.fixture
def other(base: Path) -> Path:
    make_patch(base, seed=1).write("other.patch.safetensors")
    return Path("other.patch.safetensors")


@pytest.fixture
def patched(base: Path, patch: Path) -> Path:
    assert run("apply", base, patch, "-o", "patched").code == 0
    return Path("patched")


def test_two_patches(check: Check, patch: Path, other: Path, made: Patch) -> None:
    ran = check(
        ["diff", patch, other],
        human=run("diff", patch, other).stdout,
        json={
            "schema": "patchkit.diff/1",
            "ok": True,
            "equal": False,
            "kind": "patches",
            "same_base": True,
            "bases": [],
        },
        quiet="different",
    )
    assert ran.data["digests"][0] == made.digest
    (tensor,) = ran.data["tensors"]
    assert (tensor["name"], tensor["status"]) == (EDITED, "modified")
    (side,) = tensor["sides"]
    assert side["planes"] == [2, 2]
    assert len(side["principal_deg"]) == 4
    shown = run("diff", patch, other).stdout.splitlines()
    assert shown[:2] == ["base   same", "facts  same"]
    assert shown[2].startswith("TENSOR")
    assert shown[3].startswith(f"M {EDITED}  input  2 ")
    assert shown[-1] == "1 modified"


def test_equal_patches(patch: Path) -> None:
    ran = run("diff", patch, patch, "--exit-code")
    assert (ran.code, ran.stdout) == (0, "base   same\nfacts  same\n1 same\n")
    assert run("diff", patch, patch, "-q").stdout == "same\n"


def test_exit_code_is_a_negative_verdict(patch: Path, other: Path, base: Path) -> None:
    ran = run("diff", patch, other, "--exit-code", "--json")
    assert (ran.code, ran.data["ok"], ran.data["equal"]) == (3, False, False)
    assert run("diff", patch, other, "-q").code == 0
    assert run("diff", patch, base, "--exit-code", "-q").code == 3


def test_facts_are_shown(base: Path, patch: Path) -> None:
    made, text = make_patch(base), to_jsonl([replace(FACTS[0], target="Berlin")])
    metadata = replace(made.metadata, facts=FactsMeta(1, bytes_digest(text)))
    replace(made, metadata=metadata, facts_jsonl=text).write("changed.patch.safetensors")
    shown = run("diff", patch, "changed.patch.safetensors").stdout.splitlines()
    assert shown[1] == "facts  0 added, 1 removed, 1 changed"
    assert shown[2] == "  ~ The capital of France is Rome → Berlin"
    assert shown[3] == "  - The currency of Japan is the euro"


def test_two_checkpoints(check: Check, base: Path, patched: Path) -> None:
    ran = check(
        ["diff", base, patched],
        human=run("diff", base, patched).stdout,
        json={
            "kind": "checkpoints",
            "equal": False,
            "same_config": True,
            "shards": 4,
            "shards_changed": 1,
            "known_patches": 1,
            "unexplained": 0,
        },
        quiet="different",
    )
    (tensor,) = ran.data["tensors"]
    assert tensor["explanation"]["names"] == ["my.patch.safetensors"]
    assert tensor["explanation"]["exact"]
    shown = run("diff", base, patched).stdout
    assert "1 of 4 shards differ, 1 tensor changed of" in shown
    assert "  1 explained by my.patch.safetensors, 0 unexplained\n" in shown
    assert "my.patch.safetensors taken off" in run("diff", patched, base).stdout


def test_patches_of_a_folder_explain(base: Path, patched: Path, other: Path) -> None:
    (patched / "patchkit.lock.json").unlink()
    assert "0 explained, 1 unexplained" in run("diff", base, patched).stdout
    shown = run("diff", base, patched, "--patches", ".").stdout
    assert "1 explained by my.patch.safetensors, 0 unexplained" in shown
    one = run("diff", base, patched, "--patches", other, "--json")
    assert (one.data["known_patches"], one.data["unexplained"]) == (1, 1)
    Path("empty").mkdir()
    assert "empty holds no file" in run("diff", base, patched, "--patches", "empty").stderr


def test_the_same_checkpoint(base: Path) -> None:
    ran = run("diff", base, base, "--exit-code")
    assert ran.code == 0
    assert ran.stdout.endswith("tensors and the configuration are the same\n")


def test_a_patch_and_a_folder(check: Check, patch: Path, patched: Path, made: Patch) -> None:
    check(
        ["diff", patch, patched],
        human=f"""
            TENSOR                               IS
            {EDITED}  patched
            my.patch.safetensors is applied (patch 1 of 1 in its lock) in patched
            """,
        json={"kind": "patch-checkpoint", "verdict": "applied", "place": 0, "equal": True},
        quiet="applied",
    )
    assert run("diff", patched, patch, "-q").stdout == "applied\n"


def test_without_a_lock_the_base_is_asked_for(
    base: Path, patch: Path, patched: Path, other: Path
) -> None:
    assert run("diff", patch, base, "-q").stdout == "not applied\n"
    (patched / "patchkit.lock.json").unlink()
    ran = run("diff", patch, patched)
    assert "perhaps applied" in ran.stdout
    assert "--base REF" in ran.stderr
    assert run("diff", patch, patched, "--base", base, "-q").stdout == "applied\n"
    assert run("diff", other, patched, "--base", base, "-q").stdout == "unknown\n"


def test_answers_side_by_side(base: Path, patch: Path, other: Path, patched: Path) -> None:
    Path("prompts.txt").write_text(
        'The capital of France is\n\n{"prompt": "The capital of {} is", "subject": "Italy"}\n'
    )
    ran = run("diff", base, patched, "--prompts", "prompts.txt", "-n", "3", "--json")
    answers = ran.data["answers"]
    assert [each["prompt"] for each in answers] == [
        "The capital of France is",
        "The capital of Italy is",
    ]
    of_patch = run(
        "diff", patch, patched, "--base", base, "--prompts", "prompts.txt", "-n", "3", "--json"
    ).data["answers"]
    assert all(each["same"] for each in of_patch)
    assert [each["b"] for each in of_patch] == [each["b"] for each in answers]
    shown = run(
        "diff", patch, other, "--base", base, "--prompts", "prompts.txt", "-n", "3"
    ).stdout.splitlines()
    assert shown[-1].endswith("of 2 answers differ")
    assert shown[-4].split() == ["PROMPT", "A", "B"]


def test_prompts_that_cannot_be_used(base: Path) -> None:
    Path("bad.txt").write_text('fine\n{"subject": "x"}\n{"prompt": 3}\n')
    ran = run("diff", base, base, "--prompts", "bad.txt")
    assert ran.code == 1
    assert "bad.txt has 2 lines that are no prompt" in ran.stderr
    assert "line 3" in ran.stderr
    Path("empty.txt").write_text("\n")
    assert run("diff", base, base, "--prompts", "empty.txt").code == 1


def test_what_is_neither_is_refused(base: Path) -> None:
    ran = run("diff", "nowhere", base)
    assert ran.code == 1
    assert "no folder nowhere" in ran.stderr
    Path("x.safetensors").write_bytes(b"nothing")
    assert run("diff", "x.safetensors", base).code == 1


def test_many_changes_are_shortened(base: Path) -> None:
    save_tiny("llama2", Path("changed"))
    shard = next(Path("changed").glob("*.safetensors"))
    tensors = {name: tensor + torch.ones(()) for name, tensor in load_file(shard).items()}
    save_file(tensors, shard, {"format": "pt"})
    shown = run("diff", base, "changed").stdout
    assert "more (--json)" in shown
    assert "unexplained" in shown
