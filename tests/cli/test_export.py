"""`patchkit export` in its three modes."""

from pathlib import Path

import pytest

from patchkit.export import peft, selftest
from patchkit_cli import export as command
from tests.cli.helpers import Check, run


def test_a_peft_folder(base: Path, patch: Path, check: Check) -> None:
    ran = check(
        ["export", patch, "--to", "peft", "--base", base, "--yes"],
        human="""
            ✓ wrote my-lora (2.14 KB) in 0.0s
              modules  1 module
              rank     4 for every module, alpha 4 (scale 1 everywhere)
              error    ‖ΔW − BA‖ / ‖ΔW‖ = 3e-08
            """,
        stderr=f"""
            hint: vllm serve {base} --enable-lora --max-lora-rank 8 --lora-modules patch=my-lora
            """,
        json={
            "schema": "patchkit.export/1",
            "ok": True,
            "to": "peft",
            "path": "my-lora",
            "rank": 4,
            "alpha": 4,
            "vllm_rank": 8,
            "tensors": ["model.layers.1.mlp.down_proj.weight"],
            "self_test": None,
        },
        quiet="my-lora",
    )
    assert ran.data["relative_error"] < 1e-6
    assert {path.name for path in Path("my-lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_a_gguf_file(base: Path, patch: Path) -> None:
    pytest.importorskip("gguf")
    ran = run("export", patch, "--to", "gguf", "--base", base)
    assert ran.code == 0
    assert "hint: llama-cli -m BASE.gguf --lora my.gguf" in ran.stderr
    assert Path("my.gguf").read_bytes()[:4] == b"GGUF"


def test_the_self_test_decides_the_exit_code(
    base: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("export", patch, "--base", base, "--self-test", "--yes")
    good = run(*args)
    assert good.code == 0
    assert "adapter and patch differ by up to" in good.stdout
    monkeypatch.setattr(selftest, "LIMITS", {"float32": 0.0})
    bad = run(*args, "--json")
    assert bad.code == 3
    assert bad.data["ok"] is False
    assert bad.data["self_test"]["ok"] is False
    assert run(*args, "-q").stdout == ""
    assert "self-test" in run(*args).stdout


def test_a_rank_that_vllm_does_not_take_is_said(
    base: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peft, "VLLM_RANKS", (1,))
    ran = run("export", patch, "--base", base)
    assert ran.code == 0
    assert "warning: vLLM takes adapters up to rank 512, and this one has 4" in ran.stderr


def test_another_base_is_a_sentence(patch: Path) -> None:
    ran = run("export", patch, "--base", "atlas", "--json")
    assert ran.code == 1
    assert ran.data["code"] == "base_mismatch"


@pytest.mark.parametrize(
    ("name", "to", "wanted"),
    [
        ("a.patch.safetensors", "peft", "a-lora"),
        ("dir/a.patch.safetensors", "gguf", "a.gguf"),
        ("b.safetensors", "peft", "b-lora"),
    ],
)
def test_outputs_are_named_after_the_patch(name: str, to: command.Target, wanted: str) -> None:
    assert command._default(Path(name), to) == Path(wanted)
