"""`patchkit inspect`."""

from pathlib import Path

from patchkit.patch.patch import Patch
from patchkit_cli.units import size
from tests.cli.helpers import EDITED, Check, make_patch, run
from tests.unit.patch.samples import sample


def test_inspect(check: Check, patch: Path, made: Patch) -> None:
    ran = check(
        ["inspect", patch],
        human=f"""
            my.patch.safetensors   {size(patch.stat().st_size)}   format 1   sha256:<8 hex>…
            base     a local folder, config sha256:<8 hex>…
            facts    2 (sha256:<8 hex>…)
            made by  patchkit 0.1.0, method rotation
            TENSOR                               SHAPE  FACTORS                BASE SHA256
            model.layers.1.mlp.down_proj.weight  32×64  input rotation rank 2  sha256:<8 hex>…
            """,
        json={
            "schema": "patchkit.inspect/1",
            "ok": True,
            "path": "my.patch.safetensors",
            "bytes": patch.stat().st_size,
            "digest": made.digest,
            "format": 1,
        },
        quiet="sha256:<64 hex>",
    )
    tensor = ran.data["tensors"][0]
    assert (tensor["name"], tensor["shape"], tensor["dtype"]) == (EDITED, [32, 64], "F32")
    assert tensor["factors"][0]["rank"] == 2
    assert ran.data["facts"] == {**ran.data["facts"], "count": 2, "embedded": True}


def test_quiet_is_the_digest(patch: Path, made: Patch) -> None:
    assert run("inspect", patch, "-q").stdout == f"{made.digest}\n"


def test_angles(patch: Path) -> None:
    angles = run("inspect", patch, "--angles", "--json").data["tensors"][0]["angles_deg"]
    assert len(angles) == 2
    assert 180 > angles[0] >= angles[1] > 0
    assert f"{angles[0]:.1f}°" in run("inspect", patch, "--angles").stdout


def test_every_kind_of_factor_is_shown() -> None:
    sample().write("p.patch.safetensors")
    shown = run("inspect", "p.patch.safetensors").stdout
    assert "input rotation rank 3, additive rank 2" in shown
    wanted = (
        "output rotation rank 3, input rotation-blocks 2 of 4×4, additive-dense, output rotation"
    )
    assert wanted in shown
    ran = run("inspect", "p.patch.safetensors", "--angles", "--json")
    factors = ran.data["tensors"][1]["factors"]
    assert [factor["blocks"] for factor in factors] == [None, 2, None, 1]
    assert len(ran.data["tensors"][1]["angles_deg"]) == 3 + 4 + 3


def test_facts_left_out(base: Path) -> None:
    make_patch(base, embed_facts=False).write("p.patch.safetensors")
    assert "text not embedded" in run("inspect", "p.patch.safetensors").stdout
    failed = run("facts", "p.patch.safetensors", "--json")
    assert (failed.code, failed.data["code"]) == (1, "facts_invalid")
