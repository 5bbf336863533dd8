"""Bytes from outside are never run: no unpickling, no shell, no remote code, anywhere in this tree.

The first half reads the sources, the second watches a whole session as the interpreter reports it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [*sorted((ROOT / "patchkit").rglob("*.py")), *sorted((ROOT / "cli").rglob("*.py"))]
SOURCES = [*SHIPPED, *sorted((ROOT / "benchmarks").rglob("*.py"))]
# A training goes on from its own state, read without running anything, outside the package.
EXCUSED = {"benchmarks/testbeds/training.py": {"torch.load", "weights_only"}}
PRINTING = {"cli/output.py", "cli/progress.py", "cli/main.py"}

MODULES = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "pickle", "shelve"}
CALLS = {
    "__import__", "compile", "eval", "exec", "os.popen", "os.system", "pandas.read_pickle",
    "torch.hub.load", "torch.jit.load", "torch.load", "torch.package.PackageImporter",
    "yaml.full_load", "yaml.load", "yaml.unsafe_load",
}  # fmt: skip
KEYWORDS = {"allow_pickle", "shell", "trust_remote_code", "weights_only"}


def deeds(tree: ast.AST) -> set[str]:
    """What a module does that could run what it reads."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {n for n in names if n in CALLS or n.split(".")[0] in MODULES}
        elif isinstance(node, ast.Call):
            found |= CALLS & {ast.unparse(node.func)}
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in KEYWORDS and not off:
                    found.add(str(keyword.arg))
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_source_runs_what_it_reads(path: Path) -> None:
    found = deeds(ast.parse(path.read_text(encoding="utf-8")))
    assert found == EXCUSED.get(relative(path), set())


@pytest.mark.parametrize(
    ("source", "deed"),
    [
        ("import pickle", "pickle"),
        ("from joblib import load", "joblib.load"),
        ("from torch import load", "torch.load"),
        ("torch.load(path)", "torch.load"),
        ("np.load(path, allow_pickle=True)", "allow_pickle"),
        ("subprocess.run(text, shell=shell)", "shell"),
        ("yaml.load(text)", "yaml.load"),
        ("eval(text)", "eval"),
        ("AutoModel.from_pretrained(x, trust_remote_code=True)", "trust_remote_code"),
    ],
)
def test_each_of_these_deeds_is_seen(source: str, deed: str) -> None:
    assert deeds(ast.parse(source)) == {deed}
    assert deeds(ast.parse("np.load(path, allow_pickle=False)")) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "cli").rglob("*.py")), ids=relative)
def test_text_reaches_the_terminal_in_one_place_only(path: Path) -> None:
    """What prints elsewhere would not escape what a stranger wrote."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    printing = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
    assert relative(path) in PRINTING or called & printing == set()


WATCHED = """
import sys
from pathlib import Path
import safetensors.torch, torch, transformers
from tests.cli.helpers import make_patch, run
from tests.unit.models.factory import save_tiny

work = Path(sys.argv[1])
save_tiny("llama2", work / "base")
make_patch(work / "base").write(work / "a.patch.safetensors")
base, patch, out = work / "base", work / "a.patch.safetensors", work / "out"
session = (
    ("inspect", patch), ("facts", patch), ("verify", patch, "--base", base),
    ("apply", base, patch, "-o", out, "--undo"), ("verify", out),
    ("compose", patch, patch, "-o", work / "b.patch.safetensors"),
    ("export", patch, "--to", "peft", "--base", base, "-o", work / "lora"), ("revert", out),
)
watching = False

def watch(event, given):
    if not watching:
        return
    if event in {"pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen",
                 "socket.connect"}:
        seen.append((event, given))
    if event == "open" and isinstance(given[0], str) and given[2] & 3:
        written.append(given[0])

seen, written = [], []
sys.addaudithook(watch)
for turn in (False, True):  # modules are loaded in the first, which is not watched
    watching = turn
    for arguments in session:
        again = ["--yes"] if arguments[0] in ("apply", "compose", "export") else []
        ran = run(*arguments, *again)
        assert ran.code == 0, (arguments, ran)
watching = False
elsewhere = [path for path in written if work not in Path(path).resolve().parents]
print(len(written) > 0, seen, elsewhere)
"""


@pytest.mark.slow
def test_a_session_runs_nothing_and_writes_only_where_it_was_told(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(tmp_path.resolve())],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["True [] []"], done.stdout + done.stderr
