"""`patchkit apply`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from patchkit.patch.patch import Patch
from patchkit.tensors import rewrite
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from tests.cli.helpers import EDITED, Check, make_patch, run


@pytest.fixture
def anew() -> Callable[[], None]:
    """Remove the output of an earlier run."""
    return lambda: shutil.rmtree("out", ignore_errors=True)


def test_apply(
    check: Check, base: Path, patch: Path, made: Patch, anew: Callable[[], None]
) -> None:
    ran = check(
        ["apply", base, patch, "-o", "out"],
        human="""
            ✓ wrote out in 0.0s
              changed  1 tensor in 1 shard; 29 byte-identical
              lock     patchkit.lock.json
            """,
        stderr="\nhint: patchkit verify out",
        json={
            "schema": "patchkit.apply/1",
            "ok": True,
            "dry_run": False,
            "out": "out",
            "patches": [made.digest],
            "tensors_changed": 1,
            "other_base": [],
            "lock": "out/patchkit.lock.json",
        },
        quiet="out",
        before=anew,
    )
    assert ran.data["bytes_changed"] == 4 * 32 * 64
    patched, original = Checkpoint.open(Path("out")), Checkpoint.open(base)
    changed = [name for name in original.tensors if patched.digest(name) != original.digest(name)]
    assert changed == [EDITED]


def test_dry_run_writes_nothing(check: Check, base: Path, patch: Path, made: Patch) -> None:
    before = set(Path().iterdir())
    total = sum(path.stat().st_size for path in base.iterdir())
    shards = len(list(base.glob("*.safetensors")))
    others = len(list(base.iterdir())) - shards
    ran = check(
        ["apply", base, patch, "-o", "out", "--dry-run"],
        human=f"""
            Would write out
              rewrite  1 of {shards} shards (1 tensor, 8.19 KB of {total / 1000:.3g} KB changed)
              copy     {shards - 1} shards, {others} other files
              disk     {total / 1000:.3g} KB new (8.19 KB where the disk shares blocks)
              memory   at most 300 MB above torch
            """,
        json={"schema": "patchkit.apply/1", "dry_run": True, "out": "out", "tensors_changed": 1},
        quiet="out",
    )
    assert ran.data["bytes_total"] == total
    assert set(Path().iterdir()) == before


def test_the_default_output_is_named_after_the_base(base: Path, patch: Path) -> None:
    assert run("apply", base, patch, "-q").stdout == f"{base.name}-patched\n"
    assert Path(f"{base.name}-patched", "patchkit.lock.json").is_file()


def test_an_existing_output_is_kept_unless_told(base: Path, patch: Path) -> None:
    assert run("apply", base, patch, "-o", "out").code == 0
    shards = {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    refused = run("apply", base, patch, "-o", "out")
    assert (refused.code, refused.stdout) == (1, "")
    assert "out" in refused.stderr
    assert "--yes" in refused.stderr
    assert {path.name: path.stat().st_mtime_ns for path in Path("out").iterdir()} == shards
    assert run("apply", base, patch, "-o", "out", "--yes").code == 0


def test_a_patch_that_is_there_already_is_applied_with_a_warning(base: Path, patch: Path) -> None:
    first = run("apply", base, patch, "-o", "out")
    assert "warning" not in first.stderr
    for arguments in (["--dry-run"], []):
        again = run("apply", "out", patch, "-o", "twice", *arguments)
        assert again.code == 0
        assert "is applied 2 times, and acts as often" in again.stderr


def test_another_base_only_on_request(base: Path, tmp_path: Path) -> None:
    from tests.unit.models.factory import save_tiny

    save_tiny("llama2", tmp_path / "other", seed=1)
    made = make_patch(base)
    made.write("my.patch.safetensors")
    refused = run("apply", tmp_path / "other", "my.patch.safetensors", "-o", "out", "--json")
    assert (refused.code, refused.stdout) == (1, "")
    error = refused.data
    assert error["code"] == "base_mismatch"
    assert error["details"]["expected"] == made.metadata.tensors[EDITED].base_sha256
    assert error["details"]["found"] == Checkpoint.open(tmp_path / "other").digest(EDITED)
    assert not Path("out").exists()
    forced = run(
        "apply", tmp_path / "other", "my.patch.safetensors", "-o", "out", "--allow-other-base"
    )
    assert forced.code == 0
    assert f"warning: the base is not the one the patch was made for ({EDITED})" in forced.stderr


def test_untouched_shards_become_links_when_asked(base: Path, patch: Path) -> None:
    planned = run("apply", base, patch, "-o", "out", "--dry-run", "--link")
    assert "  link     " in planned.stdout
    assert run("apply", base, patch, "-o", "out", "--link").code == 0
    edited = Checkpoint.open(base).tensor(EDITED).shard
    for path in Path("out").iterdir():
        untouched = path.suffix == ".safetensors" and path.name != edited
        assert path.stat().st_nlink == (2 if untouched else 1)


def test_what_a_killed_run_left_is_gone_on_with(
    base: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(rewrite, "swap", lambda *_, **__: stop())
        patched.setattr(rewrite, "discard", lambda *_: None)
        assert run("apply", base, patch, "-o", "out").code == 130
    assert Path("out.partial").is_dir()
    other = make_patch(base, seed=5)
    other.write("other.patch.safetensors")
    refused = run("apply", base, "other.patch.safetensors", "-o", "out", "--resume")
    assert refused.code == 1
    assert "out.partial was begun with patches" in refused.stderr
    assert "without --resume" in refused.stderr
    ran = run("apply", base, patch, "-o", "out", "--resume", "--json")
    assert sorted(ran.data["resumed"]) == sorted(Checkpoint.open(base).shards)
    assert not Path("out.partial").exists()


def stop() -> None:
    raise KeyboardInterrupt


def test_digests_of_files_are_locked_when_asked(base: Path, patch: Path) -> None:
    assert run("apply", base, patch, "-o", "out", "--file-digests").code == 0
    shard = Checkpoint.open(base).tensor(EDITED).shard
    locked = json.loads(Path("out", "patchkit.lock.json").read_text())["shards"][shard]
    assert locked["before"] == file_digest(base / shard)
    assert locked["after"] == file_digest(Path("out", shard))


def test_a_download_cache_is_no_output(base: Path, patch: Path) -> None:
    Path("models--a--b", "snapshots").mkdir(parents=True)
    refused = run("apply", base, patch, "-o", "models--a--b/snapshots/main")
    assert refused.code == 1
    assert "download cache of the Hub" in refused.stderr
