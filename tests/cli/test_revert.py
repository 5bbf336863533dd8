"""`patchkit revert`."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchkit.patch.patch import Patch
from tests.cli.helpers import Check, make_patch, run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def fresh(base: Path, patch: Path) -> Callable[[], None]:
    """Apply the patch anew, to a copy of the base that may be lost."""

    def make() -> None:
        for folder in ("base", "out", "new"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, "base")
        assert run("apply", "base", patch, "-o", "out", "--undo").code == 0

    return make


def test_revert(check: Check, base: Path, made: Patch, fresh: Callable[[], None]) -> None:
    check(
        ["revert", "out"],
        human="""
            CHECK    VALUE   VERDICT
            tensors  1 of 1  ok
            files    1 of 1  ok
            ✓ out has the bytes of its base again, from the base, in 0.0s
            """,
        json={
            "schema": "patchkit.revert/1",
            "ok": True,
            "dry_run": False,
            "path": "out",
            "source": "base",
            "restored": 1,
            "bit_exact": True,
            "error": 0.0,
            "reverted": [made.digest],
            "remaining": [],
        },
        quiet="out",
        before=fresh,
    )
    assert contents(Path("out")) == contents(base)


def test_from_the_sidecar_where_the_base_is_gone(base: Path, fresh: Callable[[], None]) -> None:
    fresh()
    shutil.rmtree("base")
    ran = run("revert", "out", "-o", "new", "--json")
    assert (ran.code, ran.data["source"], ran.data["path"]) == (0, "undo", "new")
    assert contents(Path("new")) == contents(base)


def test_dry_run_writes_nothing(check: Check, made: Patch, fresh: Callable[[], None]) -> None:
    fresh()
    before = contents(Path("out"))
    shard = next(path for path in Path("out").glob("*.safetensors") if made_in(path, made))
    human = run("revert", "out", "--dry-run").stdout
    assert human.startswith(
        "Would restore out\n  from      the base\n  restore   1 tensor (8.19 KB)"
    )
    assert "take off  my.patch.safetensors sha256:" in human
    ran = run("revert", "out", "--dry-run", "--json")
    assert ran.data["bytes_rewritten"] == shard.stat().st_size
    assert ran.data["reverted"] == [made.digest]
    assert contents(Path("out")) == before


def made_in(shard: Path, made: Patch) -> bool:
    head = shard.read_bytes()
    return all(name.encode() in head for name in made.metadata.tensors)


def test_one_of_two(base: Path, patch: Path) -> None:
    make_patch(base, seed=1).write("other.patch.safetensors")
    assert run("apply", base, patch, "other.patch.safetensors", "-o", "out").code == 0
    assert run("apply", base, patch, "-o", "wanted").code == 0
    ran = run("revert", "out", "--only", "other")
    assert ran.code == 0
    assert "patches  1 of 1  ok" in ran.stdout
    assert "✓ out carries 1 patch now, rounded once" in ran.stdout
    assert contents(Path("out")) == contents(Path("wanted"))


def test_without_anything_to_revert_from(fresh: Callable[[], None]) -> None:
    fresh()
    shutil.rmtree("base")
    Path("out", "patchkit.undo").unlink()
    ran = run("revert", "out")
    assert (ran.code, ran.stdout) == (1, "")
    assert "is gone, and it has no undo sidecar" in ran.stderr
    assert "--approximate -o NEW" in ran.stderr
    ran = run("revert", "out", "--approximate", "-o", "near")
    assert ran.code == 0
    assert "these are not the base's weights: off by up to" in ran.stderr
    ran = run("revert", "out", "--approximate", "-o", "near", "--yes", "--json")
    assert (ran.data["bit_exact"], ran.data["source"]) == (False, "estimate")
    assert 0 < ran.data["error"] < 1e-6


def test_a_folder_without_a_lock(base: Path) -> None:
    ran = run("revert", base, "--json")
    assert (ran.code, ran.stdout, ran.data["code"]) == (1, "", "checkpoint_invalid")
