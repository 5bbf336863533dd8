"""`patchkit extract`."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from patchkit.patch.patch import Patch
from tests.cli.helpers import EDITED, Check, run


@pytest.fixture
def patched(base: Path, patch: Path) -> Path:
    assert run("apply", base, patch, "-o", "patched").code == 0
    return Path("patched")


def test_extract(check: Check, base: Path, patched: Path) -> None:
    target = Path("extracted.patch.safetensors")
    args = ["extract", base, patched]

    def again() -> None:
        target.unlink(missing_ok=True)

    again()
    human = run(*args).stdout
    ran = check(
        args,
        human=human,
        stderr=f"\nhint: patchkit verify {target} --base {base}",
        json={
            "schema": "patchkit.extract/1",
            "ok": True,
            "path": str(target),
            "unexplained": [],
            "left_out": [],
        },
        quiet=str(target),
        before=again,
    )
    (tensor,) = ran.data["tensors"]
    assert (tensor["name"], tensor["side"], tensor["planes"]) == (EDITED, "input", 2)
    assert tensor["explained"] == pytest.approx(1, abs=1e-6)
    assert len(ran.data["unchanged"]) == 2
    lines = human.splitlines()
    assert lines[1].startswith(f"{EDITED}  input       2")
    assert lines[1].endswith("100.0 %  100.0 %")
    assert Patch.read(target).digest == ran.data["digest"]
    assert run("verify", target, "--base", base).code == 0
    assert run("diff", base, patched, "--patches", target, "--json").data["unexplained"] == 0


def test_choices(base: Path, patched: Path) -> None:
    args = ("extract", base, patched, "-o", "e.patch.safetensors", "--json")
    ran = run(*args, "--layers", "1", "--side", "input", "--rank", "1", "--storage", "bfloat16")
    (tensor,) = ran.data["tensors"]
    assert tensor["planes"] == 1
    assert tensor["planes_found"] >= 2
    assert ran.data["unchanged"] == []
    assert run(*args).code == 1  # it exists
    assert run(*args, "--yes", "--tensors", "*.q_proj.weight").code == 1
    ran = run(*args, "--yes", "--tensors", "*.q_proj.weight")
    assert ran.data["code"] == "solve_failed"
    assert ran.data["details"]["left_out"] == [EDITED]
    assert run(*args, "--yes", "--layers", "x").code == 2
    assert run(*args, "--yes", "--energy", "0").data["code"] == "invariant_broken"


def test_other_changes_are_said(base: Path, patched: Path) -> None:
    for shard in sorted(patched.glob("*.safetensors")):
        tensors = load_file(shard)
        if "model.norm.weight" in tensors:
            tensors["model.norm.weight"] += torch.ones(())
            save_file(tensors, shard, {"format": "pt"})
    ran = run("extract", base, patched)
    assert ran.code == 0
    assert "left out" in ran.stdout
    assert "1 other tensor of the model changed, too" in ran.stderr
