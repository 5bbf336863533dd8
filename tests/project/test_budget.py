"""What starts without torch, transformers and huggingface_hub, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "huggingface_hub", "scipy")
# Modules that must work where only a file is looked at.
LIGHT = (
    "patchkit",
    "patchkit.errors",
    "patchkit.events",
    "patchkit.report",
    "patchkit.models",
    "patchkit.tensors.source",
    "patchkit.tensors.header",
    "patchkit.tensors.dtypes",
    "patchkit.tensors.checkpoint",
    "patchkit.patch.metadata",
    "patchkit.patch.reader",
    "patchkit.facts.fact",
    "patchkit.facts.reading",
)
REPORT = (
    f"import sys; loaded = sorted(set({HEAVY!r}) & set(sys.modules)); assert not loaded, loaded"
)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run patchkit with these arguments; fail if it loaded anything heavy."""
    code = (
        "import atexit, sys\n"
        "from patchkit_cli.main import run\n"
        "def show():\n"
        f"    heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "    sys.stderr.write('heavy: ' + ' '.join(heavy) + '\\n')\n"
        "atexit.register(show)\n"
        "sys.argv = ['patchkit', *sys.argv[1:]]\n"
        "run()\n"
    )
    done = run(code, *arguments)
    assert done.stderr.splitlines()[-1].strip() == "heavy:", done.stderr
    return done


@pytest.mark.parametrize("module", LIGHT)
def test_module_loads_nothing_heavy(module: str) -> None:
    done = run(f"import {module}; {REPORT}")
    assert done.returncode == 0, done.stderr


def test_help_loads_nothing_heavy() -> None:
    done = run_command("--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version_loads_nothing_heavy() -> None:
    import patchkit

    done = run_command("--version")
    assert done.returncode == 0
    assert patchkit.__version__ in done.stdout


def write_patch(path: Path) -> None:
    import torch

    from patchkit.factors.rotation import Rotation
    from patchkit.patch.drafts import TensorDraft
    from patchkit.patch.metadata import BaseMeta
    from patchkit.patch.patch import build_patch

    planes = Rotation("input", torch.eye(8)[:, :2], torch.eye(8)[:, 2:4])
    draft = TensorDraft((4, 8), "F32", "linear", "sha256:" + "0" * 64, (planes,))
    build_patch(BaseMeta(), {"weight": draft}, None, {}, "rotation", {}).write(path)


def test_inspect_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "my.patch.safetensors"
    write_patch(path)
    done = run_command("inspect", str(path))
    assert done.returncode == 0
    assert "rotation" in done.stdout


def test_refusing_a_file_loads_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "not.patch.safetensors"
    path.write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    assert run_command("inspect", str(path)).returncode == 1


def test_facts_loads_nothing_heavy() -> None:
    assert run_command("facts", "examples/facts.jsonl").returncode == 0
