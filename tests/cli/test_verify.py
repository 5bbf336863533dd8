"""`patchkit verify`."""

import json
from pathlib import Path

from patchkit.tensors.checkpoint import Checkpoint
from tests.cli.helpers import EDITED, Check, run

PATCH_CHECKS = [
    "format",
    "digest",
    "finite",
    "orthogonality",
    "base-match",
    "norm",
    "condition",
    "rounding",
    "displacement",
    "leakage",
    "facts",
]


def test_a_good_patch(check: Check, patch: Path, base: Path) -> None:
    ran = check(
        ["verify", patch, "--base", base],
        human=run("verify", patch, "--base", base).stdout,
        json={
            "schema": "patchkit.verify/1",
            "ok": True,
            "target": "my.patch.safetensors",
            "passed": 8,
            "failed": 0,
            "skipped": 3,
        },
        quiet="my.patch.safetensors",
    )
    assert [found["name"] for found in ran.data["checks"]] == PATCH_CHECKS
    human = run("verify", patch, "--base", base).stdout.splitlines()
    assert human[0].split() == ["CHECK", "VALUE", "LIMIT", "VERDICT"]
    rows = [line.split()[0] for line in human[1:-1] if not line.startswith(" ")]
    assert rows == PATCH_CHECKS
    assert human[-1].startswith("✓ 8 checks passed, 3 skipped in ")


def test_without_a_base_what_needs_one_is_skipped(patch: Path) -> None:
    ran = run("verify", patch, "--json")
    skipped = [found["name"] for found in ran.data["checks"] if found["skipped"]]
    assert (ran.code, skipped) == (0, ["base-match", "rounding", *PATCH_CHECKS[-3:]])
    human = run("verify", patch).stdout
    assert "  needs --base" in human.splitlines()
    assert "✓ 6 checks passed, 5 skipped" in human


def test_a_damaged_patch_is_a_negative_verdict_on_stdout(patch: Path) -> None:
    data = bytearray(patch.read_bytes())
    data[-1] ^= 1
    patch.write_bytes(data)
    ran = run("verify", patch)
    assert (ran.code, ran.stderr) == (3, "")
    assert "FAILED" in ran.stdout
    assert "✗" in ran.stdout
    ran = run("verify", patch, "--json")
    assert (ran.code, ran.stderr) == (3, "")
    assert json.loads(ran.stdout)["ok"] is False
    assert run("verify", patch, "-q").stdout == ""


def test_the_wrong_base_is_a_negative_verdict(patch: Path, tmp_path: Path) -> None:
    from tests.unit.models.factory import save_tiny

    save_tiny("llama2", tmp_path / "other", seed=1)
    ran = run("verify", patch, "--base", tmp_path / "other", "--json")
    failed = {found["name"]: found for found in ran.data["checks"] if not found["ok"]}
    assert ran.code == 3
    assert failed["base-match"]["tensor"] == EDITED


def test_a_folder(check: Check, patch: Path, base: Path) -> None:
    assert run("apply", base, patch, "-o", "out").code == 0
    check(
        ["verify", "out"],
        human="""
            CHECK          VALUE  LIMIT  VERDICT
            lock           1      —      ok
            shards         4      4      ok
            digest         1      1      ok
            base-match     1      1      ok
            patched-match  1      1      ok
            unchanged      29     29     ok
            undo           —      —      skipped
              made without --undo
            facts          —      —      skipped
              needs --behaviour
            ✓ 6 checks passed, 2 skipped in 0.0s
            """,
        json={"schema": "patchkit.verify/1", "ok": True, "target": "out", "passed": 6},
        quiet="out",
    )


def test_a_folder_that_was_changed(patch: Path, base: Path) -> None:
    assert run("apply", base, patch, "-o", "out").code == 0
    entry = Checkpoint.open(Path("out")).tensor("model.norm.weight")
    with Path("out", entry.shard).open("r+b") as shard:
        shard.seek(entry.info.start)
        shard.write(b"\xff")
    ran = run("verify", "out", "--json")
    failed = [found for found in ran.data["checks"] if not found["ok"]]
    assert ran.code == 3
    assert [(found["name"], found["tensor"]) for found in failed] == [
        ("unchanged", "model.norm.weight")
    ]


def test_a_folder_names_its_own_base(patch: Path, base: Path) -> None:
    assert run("apply", base, patch, "-o", "out").code == 0
    assert run("verify", "out", "--base", base).code == 2


def test_a_folder_without_a_lock(base: Path) -> None:
    ran = run("verify", base)
    assert (ran.code, ran.stdout) == (1, "")
    assert "no lock" in ran.stderr


def test_behaviour_asks_the_facts(patch: Path, base: Path) -> None:
    assert run("verify", patch, "--behaviour").code == 2
    ran = run("verify", patch, "--base", base, "--behaviour", "--json")
    checks = {found["name"]: found for found in ran.data["checks"]}
    assert (ran.code, ran.data["skipped"]) == (3, 0)
    assert (checks["facts"]["value"], checks["facts"]["limit"]) == (0, 1)
    assert "The capital of France is" in checks["facts"]["detail"]
    for name in ("displacement", "leakage"):
        assert checks[name]["tensor"] == EDITED
        assert 0 < checks[name]["value"] < 1
    assert run("apply", base, patch, "-o", "out").code == 0
    ran = run("verify", "out", "--behaviour", "--json")
    assert [found["name"] for found in ran.data["checks"] if not found["ok"]] == ["facts"]


def test_a_file_that_is_not_there() -> None:
    ran = run("verify", "nothing.patch.safetensors", "--json")
    assert (ran.code, ran.stdout, ran.data["code"]) == (1, "", "format_invalid")
